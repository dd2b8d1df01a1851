//! Decides for a watched site (a site whose allocations are counted separately for each stack) and its stacks
//! which of them leak, and how much each of them leaks.

use crate::site::{JudgedSite, SiteLabel};
use edleak_model::classify::{Judgement, Verdict};
use std::collections::{HashMap, HashSet};

/// Judges a watched site together with its stacks, if the site and its stacks leak together. A site and its
/// stacks leak together in two cases:
///
/// - Neither the curve of the site nor the curve of any stack shows a leak, but the sum of these curves shows
///   a leak.
/// - The site's own curve shows a leak. The site's own curve lacks the allocations of the time in which the
///   site was watched, so the sum of the curves gives better figures.
///
/// The share of each stack in the leak is its share of the growth of the site and all its stacks. The site's
/// own growth, from the time in which it was not watched, is treated like the growth of a stack. If the watch
/// of the site has ended, the site's own growth does not count, and the shares that the stacks have in the
/// watched time are used for the whole record.
pub(super) fn judge_with_stacks(sites: &mut [JudgedSite], ended: &HashSet<SiteLabel>) {
    acquit(sites);
    judge_ended_as_sums(sites, ended);
    let is_leak_together = |site: &JudgedSite| {
        site.with_stacks.as_ref().is_some_and(|all| all.judgement.verdict == Verdict::Leak)
    };
    let with_holes: HashSet<SiteLabel> = sites
        .iter()
        .filter(|site| site.is_leak() && is_leak_together(site))
        .map(|site| site.label.clone())
        .collect();
    let is_part = |site: &JudgedSite| site.parent.as_ref().is_some_and(|parent| with_holes.contains(parent));
    sites.iter_mut().filter(|site| site.is_leak() && is_part(site)).for_each(|stack| {
        stack.judgement = Judgement::part_of_a_leak(stack.judgement.class);
    });
    share_out(sites);
    let leaking: HashSet<SiteLabel> =
        sites.iter().filter(|site| site.is_leak()).filter_map(|site| site.parent.clone()).collect();
    let mut grown: HashMap<SiteLabel, f64> = HashMap::new();
    for site in sites.iter_mut().filter(|site| is_leak_together(site) && !leaking.contains(&site.label)) {
        let Some(all) = site.with_stacks.clone() else { continue };
        let own_growth = if ended.contains(&site.label) { 0.0 } else { site.growth().max(0.0) };
        grown.insert(site.label.clone(), own_growth);
        let why = match site.is_leak() {
            true => "judged together with its stacks, which count its allocations while it was watched",
            false => "judged together with its stacks, none of which leaks enough alone",
        };
        site.judgement = all.judgement;
        site.judgement.why.insert(0, why.into());
        site.judged_with_stacks = true;
    }
    for site in &*sites {
        if let Some(all) = site.parent.as_ref().and_then(|parent| grown.get_mut(parent)) {
            *all += site.growth().max(0.0);
        }
    }
    for site in sites.iter_mut() {
        let all = site.parent.as_ref().and_then(|parent| grown.get(parent));
        site.leak_share = all.map(|all| site.growth() / all).filter(|&share| share > 0.0);
    }
    leave_open(sites);
}

/// Scales the leaks of stacks to the whole record.
///
/// The recorder often begins to watch a site late, when the site begins to look like a leak. So the stacks of
/// the site have counts only for the part of the record after the watch began. So the function multiplies the
/// leaked bytes of each stack by the ratio of the whole record to the watched time. The scaled bytes of all
/// stacks never add up to more than the leak of the caller and its stacks together. The function does not
/// just divide the leak of the summed curve among the stacks. The reason: if the summed curve is a sawtooth,
/// its leak may wrongly include the last rise of the sawtooth. The curves of the single stacks show better
/// that such a rise is no leak.
fn share_out(sites: &mut [JudgedSite]) {
    let mut known: HashMap<SiteLabel, (u64, f64)> = HashMap::new();
    for site in sites.iter().filter(|site| site.is_leak()) {
        if let Some(parent) = &site.parent {
            let (bytes, rate) = known.entry(parent.clone()).or_default();
            *bytes += site.judgement.leak_bytes;
            *rate += site.judgement.rate_bytes_per_s;
        }
    }
    let whole: HashMap<SiteLabel, (f64, f64, f64)> = sites
        .iter()
        .filter_map(|site| {
            let family = &site.with_stacks.as_deref()?.judgement;
            let &(known, rate) = known.get(&site.label)?;
            if known == 0 || known >= family.leak_bytes || family.rate_bytes_per_s <= 0.0 || rate <= 0.0 {
                return None;
            }
            let (of_family, of_known) =
                (family.leak_bytes as f64 / family.rate_bytes_per_s, known as f64 / rate);
            let times = (of_family / of_known).clamp(1.0, family.leak_bytes as f64 / known as f64);
            Some((site.label.clone(), (times, times / of_family, family.began_s)))
        })
        .collect();
    for site in sites.iter_mut().filter(|site| site.is_leak()) {
        if let Some(&(times, per_second, began_s)) = site.parent.as_ref().and_then(|parent| whole.get(parent))
        {
            let own = site.judgement.leak_bytes as f64;
            site.judgement.leak_bytes = (own * times) as u64;
            let count = site.judgement.leak_count.map(|count| (count as f64 * times).round() as u64);
            site.judgement.leak_count = count;
            site.judgement.rate_bytes_per_s = own * per_second;
            site.judgement.began_s = began_s;
        }
    }
}

/// If the watch of a site ended before the recording did, only the curve of the site together with its stacks
/// is complete. The site's own curve lacks the allocations of the watched time, and the curves of its stacks
/// do not grow after the watch ended.
fn judge_ended_as_sums(sites: &mut [JudgedSite], ended: &HashSet<SiteLabel>) {
    for site in sites {
        if site.is_leak() && site.parent.as_ref().is_some_and(|parent| ended.contains(parent)) {
            site.judgement = Judgement::part_of_a_leak(site.judgement.class);
        }
        let all = site.with_stacks.as_ref().filter(|_| ended.contains(&site.label));
        if let Some(all) = all.filter(|all| all.judgement.verdict != Verdict::Leak) {
            site.judgement = all.judgement.clone();
        }
    }
}

/// Makes a watched site undecided if the program stopped working while the site and its stacks grew. The
/// function does nothing if the site or one of its stacks is a leak, or is already undecided because the
/// program stopped working.
fn leave_open(sites: &mut [JudgedSite]) {
    let is_answered = |site: &JudgedSite| site.is_leak() || site.judgement.open_bytes > 0;
    let family = |site: &JudgedSite| site.parent.clone().unwrap_or_else(|| site.label.clone());
    let answered: HashSet<SiteLabel> = sites.iter().filter(|site| is_answered(site)).map(family).collect();
    for site in sites.iter_mut().filter(|site| !answered.contains(&site.label)) {
        if let Some(all) = site.with_stacks.as_ref().filter(|all| all.judgement.open_bytes > 0) {
            site.judgement = all.judgement.clone();
        }
    }
}

/// Drops the judgement of a site together with its stacks, if the ages of the surviving allocations
/// contradict this judgement.
///
/// The ages contradict the judgement if the ages of most allocations of the site are known, and if they show
/// that no stack is a leak. If the ages contradict the judgement, the ages decide, because the judgement on
/// the sum of the curves was made without them.
fn acquit(sites: &mut [JudgedSite]) {
    #[derive(Default)]
    struct Family {
        allocs: u64,
        acquitted_allocs: u64,
        has_leak: bool,
        most: Option<(u64, Judgement)>,
    }
    let mut families: HashMap<SiteLabel, Family> = HashMap::new();
    for stack in &*sites {
        let Some(parent) = &stack.parent else { continue };
        let (family, allocs) =
            (families.entry(parent.clone()).or_default(), stack.totals.allocs.unwrap_or(0));
        family.allocs = family.allocs.saturating_add(allocs);
        family.has_leak |= stack.is_leak();
        if stack.judgement.by_survivors && !stack.is_leak() {
            family.acquitted_allocs = family.acquitted_allocs.saturating_add(allocs);
            if family.most.as_ref().is_none_or(|(most, _)| allocs > *most) {
                family.most = Some((allocs, stack.judgement.clone()));
            }
        }
    }
    for site in sites.iter_mut().filter(|site| site.parent.is_none()) {
        let Some(Family { allocs, acquitted_allocs, has_leak: false, most: Some((_, judgement)) }) =
            families.remove(&site.label)
        else {
            continue;
        };
        let all = allocs.saturating_add(site.totals.allocs.unwrap_or(0));
        if acquitted_allocs <= all / 2 {
            continue;
        }
        if site.is_leak() {
            site.judgement = judgement;
        }
        site.with_stacks = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::tests::{judgement, site};
    use crate::site::WithStacks;
    use edleak_model::levels::Levels;

    /// A caller whose own curve shows a leak; the sum of its curve and the curves of its stacks shows a leak
    /// too.
    fn caller(allocs: u64, together: Judgement) -> JudgedSite {
        let alone = site(1, None, allocs, together.clone());
        JudgedSite {
            with_stacks: Some(Box::new(WithStacks { judgement: together, levels: Levels::default() })),
            ..alone
        }
    }

    #[test]
    fn ages_of_survivors_are_not_overruled_by_a_curve() {
        let leak = || judgement(Verdict::Leak, 100, 1.0, false);
        let is_leak = |callers_allocs: u64, stacks: &[(u64, Verdict, bool)]| {
            let mut sites = vec![caller(callers_allocs, leak())];
            for (number, &(allocs, verdict, by_survivors)) in (2..).zip(stacks) {
                sites.push(site(number, Some(1), allocs, judgement(verdict, 0, 0.0, by_survivors)));
            }
            judge_with_stacks(&mut sites, &HashSet::new());
            sites[0].is_leak()
        };
        assert!(!is_leak(100, &[(900, Verdict::NoLeak, true)]));
        assert!(!is_leak(0, &[(500, Verdict::Undecided, true), (400, Verdict::NoLeak, false)]));
        // The site stays a leak in three cases: the ages are not known, the ages are known for too few
        // allocations, or one of the stacks is a leak.
        assert!(is_leak(100, &[(900, Verdict::NoLeak, false)]));
        assert!(is_leak(1000, &[(900, Verdict::NoLeak, true)]));
        assert!(is_leak(0, &[(900, Verdict::NoLeak, true), (5, Verdict::Leak, true)]));
    }

    #[test]
    fn a_site_whose_watch_ended_has_the_verdict_of_its_sum() {
        let verdict_of = |together: Verdict| {
            let family = caller(900, judgement(together, 100, 1.0, false));
            let alone = judgement(Verdict::Leak, 100, 1.0, false);
            let mut sites =
                vec![JudgedSite { judgement: alone.clone(), ..family }, site(2, Some(1), 100, alone)];
            judge_with_stacks(&mut sites, &HashSet::from([SiteLabel::Number(1)]));
            assert!(!sites[1].is_leak(), "the stack is no leak of its own");
            sites[0].judgement.verdict
        };
        for together in [Verdict::Leak, Verdict::NoLeak, Verdict::Undecided] {
            assert_eq!(verdict_of(together), together);
        }
    }

    #[test]
    fn stacks_that_were_known_late_have_leaked_as_long_as_their_caller() {
        // The counts of the stacks cover 20 s of a record of 40 s, and the stacks leaked 2 B/s in these 20 s.
        // edleak scales the leak of the stacks from 20 s to 40 s. The scaled leak must not exceed the leak of
        // the caller together with its stacks.
        for (whole, whole_rate, bytes, rate) in [(120, 3.0, 80, 2.0), (50, 1.25, 50, 1.25)] {
            let family = caller(0, judgement(Verdict::Leak, whole, whole_rate, false));
            let mut sites = vec![
                JudgedSite { judgement: judgement(Verdict::NoLeak, 0, 0.0, false), ..family },
                site(2, Some(1), 10, judgement(Verdict::Leak, 40, 2.0, true)),
            ];
            share_out(&mut sites);
            assert_eq!((sites[1].judgement.leak_bytes, sites[1].judgement.rate_bytes_per_s), (bytes, rate));
        }
    }
}
