//! Makes leaks undecided if they are very small or have very few allocations, because such growth may be
//! chance.

use crate::site::{Domain, JudgedSite, Kind, SiteLabel};
use edleak_model::classify::{Confidence, Judgement};
use edleak_model::growth_class::Class;
use edleak_model::reasons;
use std::collections::HashMap;

/// If a leak with the confidence `Suspect` has less than this share of the live bytes, the site becomes
/// undecided. The function compares this share with the leaks of all stacks of one caller together, and not
/// with the leak of each stack.
const NEGLIGIBLE: f64 = 0.001;

/// Changes the verdict of a leak with the confidence `Suspect` to undecided, if it leaked very little.
///
/// The model wrongly judges about one in fifty of the sites that do not leak as a leak with the confidence
/// `Suspect`. A large program has thousands of sites, and most of them are small. So without the function
/// `withdraw_negligible`, the report of every large program would list one or two small sites that do not
/// leak. A leak with the confidence `Strict` is reported even if it is very small. A real leak soon becomes
/// large enough for a report.
pub(super) fn withdraw_negligible(sites: &mut [JudgedSite], record_s: f64) {
    let live = live_by_domain(sites);
    let family = |site: &JudgedSite| site.parent.clone().unwrap_or_else(|| site.label.clone());
    let mut leaked: HashMap<SiteLabel, f64> = HashMap::new();
    for site in sites.iter().filter(|site| site.is_leak()) {
        *leaked.entry(family(site)).or_default() += match site.judgement.confidence {
            Some(Confidence::Strict) => f64::INFINITY,
            _ => site.judgement.leak_bytes as f64,
        };
    }
    let is_negligible = |site: &JudgedSite| {
        let is_leak = site.is_leak() && site.kind != Kind::Injected;
        is_leak && leaked.get(&family(site)).is_some_and(|&leaked| leaked < NEGLIGIBLE * live(site.domain()))
    };
    for site in sites.iter_mut().filter(|site| is_negligible(site)) {
        let mut why = std::mem::take(&mut site.judgement.why);
        why.push(reasons::negligible(site.judgement.leak_bytes));
        site.judgement = Judgement::undecided(Class::Log, record_s, why);
    }
}

/// A leak becomes undecided if it has fewer allocations than this number and also meets the conditions of
/// `FEW_LEFT` and `FEW_SHARE`.
const FEW_FREED: u64 = 32;
/// A leak of few allocations becomes undecided only if the ending program freed most of its bytes: less than
/// this share of the bytes may be left.
const FEW_LEFT: f64 = 0.25;
/// A leak of few allocations becomes undecided only if its bytes are less than this share of the live bytes.
const FEW_SHARE: f64 = 0.1;

/// Turns a leak of few allocations into an undecided site, if the program freed these allocations when it
/// ended.
///
/// For example, a program allocates a queue for each thread, or a page of a table for each new kind of
/// request. The memory for these queues or pages grows in even steps until the program has seen all threads
/// or all kinds of requests. At the end of the program, a destructor frees the queues or pages. In a short
/// record, queues for threads and pages for kinds of requests look like a leak. A leak of more allocations or
/// more bytes stays a leak, even if the program freed the memory when it ended, because the program may have
/// kept the memory so long by mistake.
pub(super) fn withdraw_leaks_freed_at_exit(sites: &mut [JudgedSite], record_s: f64) {
    #[derive(Default)]
    struct Leaked {
        bytes: f64,
        count: Option<u64>,
        live_at_the_end: f64,
        live: f64,
    }
    let live = live_by_domain(sites);
    let family = |site: &JudgedSite| site.parent.clone().unwrap_or_else(|| site.label.clone());
    let mut leaked: HashMap<SiteLabel, Leaked> = HashMap::new();
    for site in sites.iter().filter(|site| site.is_leak() && site.kind != Kind::Injected) {
        let known =
            leaked.entry(family(site)).or_insert_with(|| Leaked { count: Some(0), ..Leaked::default() });
        known.live = live(site.domain());
        known.bytes += site.judgement.leak_bytes as f64;
        known.count =
            known.count.zip(site.judgement.leak_count).map(|(sum, count)| sum.saturating_add(count));
    }
    for site in &*sites {
        if let Some(known) = leaked.get_mut(&family(site)) {
            known.live_at_the_end += site.totals.live_bytes as f64;
        }
    }
    leaked.retain(|_, known| {
        known.count.is_some_and(|count| count < FEW_FREED)
            && known.live_at_the_end < FEW_LEFT * known.bytes
            && known.bytes < FEW_SHARE * known.live
    });
    for site in sites.iter_mut().filter(|site| site.is_leak()) {
        let Some(count) = leaked.get(&family(site)).and_then(|known| known.count) else { continue };
        let mut why = std::mem::take(&mut site.judgement.why);
        why.push(reasons::few_freed_at_exit(count));
        site.judgement = Judgement::undecided(Class::Log, record_s, why);
    }
}

/// The live bytes of each domain. Address space may be a thousand times as large as the heap, and the bytes
/// of pools are a part of the other domains. So the bytes of different domains are never added up.
fn live_by_domain(sites: &[JudgedSite]) -> impl Fn(Domain) -> f64 + use<> {
    let of = |domain: Domain| {
        sites.iter().filter(|site| site.domain() == domain).map(JudgedSite::judged_bytes).sum()
    };
    let live: [f64; Domain::ALL.len()] = Domain::ALL.map(of);
    move |domain| live[domain as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::tests::{judgement, site};
    use crate::site::Totals;
    use edleak_model::classify::Verdict;
    use edleak_model::levels::Levels;
    use edleak_model::series::{Point, SeriesBuilder};

    #[test]
    fn few_allocations_freed_at_the_end_are_undecided_and_more_of_them_are_a_leak() {
        let is_leak = |count: u64, bytes: u64, left: u64, others: u64| {
            let judged = Judgement { leak_count: Some(count), ..judgement(Verdict::Leak, bytes, 1.0, false) };
            let held = |bytes: u64| {
                let mut series = SeriesBuilder::new();
                series.push(Point { live_bytes: bytes, ..Default::default() });
                Levels::of(&series.finish())
            };
            let totals = Totals { live_bytes: left, ..Totals::default() };
            let leak = JudgedSite { levels: held(bytes), totals, ..site(1, None, count, judged) };
            let other = site(2, None, 1, judgement(Verdict::NoLeak, 0, 0.0, false));
            let mut sites = [leak, JudgedSite { levels: held(others), ..other }];
            withdraw_leaks_freed_at_exit(&mut sites, 10.0);
            sites[0].is_leak()
        };
        assert!(!is_leak(15, 8_000, 0, 200_000));
        assert!(is_leak(15, 8_000, 8_000, 200_000), "still live at the end");
        assert!(is_leak(500, 8_000, 0, 200_000), "many allocations");
        assert!(is_leak(15, 80_000, 0, 200_000), "a large part of the live memory");
    }
}
