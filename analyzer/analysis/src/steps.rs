//! Decides whether leaks grow in step, that is, at the same times. If one mistake in the program causes leaks
//! at several places, these places leak at the same times.
//!
//! The curves of two steady leaks are both straight lines, so the shape of the curves does not show a common
//! cause. A comparison slice by slice can show it. If one mistake causes the leaks at two places, both places
//! keep new allocations in the same slices. If two mistakes cause the leaks, the places keep new allocations
//! in different slices. So the analyzer compares the growth of two places slice by slice. Then the analyzer
//! shifts the growth of one place by some slices, and compares the two places again. If both places grow in
//! the same slices much more often without the shift than with it, this is evidence of a common cause. If
//! every slice has many new allocations, the two places grow in the same slices as often with the shift as
//! without it. So the slices do not show whether there is a common cause.

use crate::error::Error;
use crate::load::Input;
use crate::replay::Merged;
use crate::replay::points::for_each_site;
use crate::replay::teardown::judged_grid;
use crate::site::{Domain, JudgedSite, SiteLabel};
use edleak_format::{SiteId, Trace};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of instants at which the growth of two sites is compared.
const MOST_INSTANTS: usize = 2048;
/// Maximum number of leaking sites that are compared; the sites with the highest rates come first.
const MOST_SITES: usize = 400;
/// To compare leaks, the analyzer must read the trace a second time. If the number of sites times the number
/// of slices exceeds this limit, the analyzer does not compare leaks.
const MOST_COUNTERS: usize = 60_000_000;
/// The analyzer compares the growth of a place only if the place keeps at least this number of allocations.
/// With fewer allocations, two places may grow in the same slices by chance.
const LEAST_KEPT: f64 = 6.0;
/// Two places grow at the same times only if at most this share of their growth is in different slices. The
/// share must be greater than 0, because two allocations with one cause may be in different slices: the
/// recorder may take a slice after the allocation at one place and before the allocation at the other place.
const MOST_APART: f64 = 0.3;
/// The share of growth in different slices is measured without a shift, and after a shift of one place. Two
/// places grow at the same times only if this share is at least this number of times as large after the
/// shift.
const LEAST_CONTRAST: f64 = 2.0;
/// If two places grow very evenly, about the same share of their growth is in different slices with and
/// without a shift. Such places possibly have one cause only if this share is at most 5 %.
const MOST_UNLIKE: f64 = 0.05;
/// If two places grow very evenly, about the same share of their growth is in different slices with and
/// without a shift. Such places possibly have one cause only if one place keeps 1, 2, 3 or another whole
/// number of allocations for each allocation at the other place. The measured ratio may differ from a whole
/// number by at most this share of the ratio.
const RATIO_ERROR: f64 = 0.03;
/// A comparison may count growth in two neighbouring slices as growth in the same slice. Such a comparison is
/// valid only if, after a shift of one place, more than this share of the growth is in different slices. If
/// the share is smaller, the allocations come so often that two leaks which grow in turns would look like one
/// leak.
const LEAST_LOOSE: f64 = 0.3;
/// Numbers of slices by which the analyzer shifts the growth of one place.
const MOVES: [usize; 8] = [1, 2, 3, 5, 8, 13, 21, 34];

/// The number of live allocations of each leaking site at each slice.
#[derive(Clone, Default, Debug)]
pub(crate) struct Steps {
    live_counts: HashMap<SiteLabel, Box<[u64]>>,
    /// The results of all comparisons so far. The results are stored because the analyzer compares the same
    /// leaks several times for one report.
    compared: Arc<Mutex<HashMap<(u64, u64), Step>>>,
}

/// Whether the growth of two sites or groups of sites has a common cause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Step {
    /// The two sites do not grow at the same times.
    Apart,
    /// It is unknown whether the two sites grow at the same times: every slice has so many new allocations
    /// that the slices show no pattern.
    Possible,
    /// The two sites grow at the same times.
    Together,
}

impl Steps {
    /// Reads from the trace, a second time, the number of live allocations at each slice: for the leaking
    /// sites, for their callers and for their stacks. The result is empty if the input is not a trace, is too
    /// large, or has no sites to compare.
    pub(crate) fn of(recording: &Input, sites: &[JudgedSite]) -> Self {
        let Input::Trace(trace) = recording else { return Self::default() };
        // The function compares only sites of the heap, because a mapping and an allocation never count as
        // leaks of one mistake.
        let leaking = sites.iter().filter(|site| site.is_leak() && site.domain() == Domain::Heap);
        let leaking: Vec<&JudgedSite> = leaking.take(MOST_SITES).collect();
        let together: HashSet<&SiteLabel> =
            leaking.iter().filter(|site| site.judged_with_stacks).map(|site| &site.label).collect();
        let parts = sites.iter().filter(|site| {
            site.leak_share.is_some() && site.parent.as_ref().is_some_and(|parent| together.contains(parent))
        });
        let parents = leaking.iter().filter_map(|site| site.parent.as_ref());
        let labels = leaking.iter().map(|site| &site.label).chain(parents);
        let labels = labels.chain(parts.take(MOST_SITES).map(|part| &part.label));
        let ids: BTreeSet<SiteId> = labels.filter_map(id_of).collect();
        let is_affordable = trace.sites().len().saturating_mul(judged_grid(trace).points) <= MOST_COUNTERS;
        if leaking.len() < 2 && together.is_empty() || !is_affordable {
            return Self::default();
        }
        let live_counts = live_counts(trace, &ids.into_iter().collect::<Vec<_>>());
        Self { live_counts, ..Self::default() }
    }

    /// Makes the live counts for a comparison in tests, without a trace. Each site grows by one of several
    /// patterns; two sites grow at the same times only if they have the same pattern.
    #[cfg(test)]
    pub(crate) fn of_patterns<'a>(sites: impl Iterator<Item = (&'a SiteLabel, u64)>) -> Self {
        let counts = |pattern: u64| {
            let mut live = 0;
            let count = |slice: u64| {
                live += u64::from((slice + 3 * pattern).is_multiple_of(7) && !slice.is_multiple_of(5));
                live
            };
            (0..400).map(count).collect()
        };
        let live_counts = sites.map(|(label, pattern)| (label.clone(), counts(pattern))).collect();
        Self { live_counts, ..Self::default() }
    }

    /// The growth of several sites together; `None`: for none of these sites is the growth known.
    pub(crate) fn growth_of<'a>(&self, labels: impl Iterator<Item = &'a SiteLabel>) -> Option<Growth> {
        let mut sum: Vec<u64> = Vec::new();
        let mut hasher = DefaultHasher::new();
        for label in labels {
            let Some(live_counts) = self.live_counts.get(label) else { continue };
            label.hash(&mut hasher);
            if sum.is_empty() {
                sum = live_counts.to_vec();
            } else {
                sum.iter_mut().zip(live_counts).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
            }
        }
        (!sum.is_empty()).then(|| Growth { id: hasher.finish(), ..Growth::of(sum) })
    }

    /// Compares the growth of two groups. If these two groups were compared before, the function returns the
    /// stored result.
    pub(crate) fn step(&self, one: &Growth, other: &Growth) -> Step {
        let key = (one.id.min(other.id), one.id.max(other.id));
        let compared = || self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&step) = compared().get(&key) {
            return step;
        }
        let step = one.step_with(other);
        compared().insert(key, step);
        step
    }
}

fn id_of(label: &SiteLabel) -> Option<SiteId> {
    match label {
        SiteLabel::Number(number) => u32::try_from(*number).ok().map(SiteId),
        SiteLabel::Text(_) => None,
    }
}

fn live_counts(trace: &Trace, ids: &[SiteId]) -> HashMap<SiteLabel, Box<[u64]>> {
    let every = judged_grid(trace).points.div_ceil(MOST_INSTANTS).max(1);
    let instants = judged_grid(trace).points.div_ceil(every);
    let mut all = HashMap::new();
    let merged = Merged::of(trace);
    // If the record is too long for `for_each_site`, the result stays empty.
    let _: Result<(), Error> = for_each_site(trace, &merged, ids, |site| {
        let mut counts = vec![0; instants];
        let mut from = site.absent;
        for (point, times) in &site.runs {
            let to = from.saturating_add(usize::try_from(*times).unwrap_or(usize::MAX));
            for count in counts.iter_mut().take(to.div_ceil(every)).skip(from.div_ceil(every)) {
                *count = point.live_count;
            }
            from = to;
        }
        all.insert(SiteLabel::Number(u64::from(ids[site.index].0)), counts.into_boxed_slice());
        Ok(())
    });
    all
}

/// The growth of one or more sites: for each slice, the number of allocations that the sites made in this
/// slice and that are still live at the end.
#[derive(Debug)]
pub(crate) struct Growth {
    /// A hash of the labels of the sites, which identifies this growth in the stored results of comparisons.
    id: u64,
    kept: Vec<f64>,
    /// The first slice with a live allocation.
    from: usize,
}

impl Growth {
    /// Computes the growth from the number of live allocations at each slice. Allocations that the program
    /// frees later do not count as growth.
    fn of(mut live_counts: Vec<u64>) -> Self {
        let from = live_counts.iter().position(|&count| count > 0).unwrap_or(live_counts.len());
        let mut least = u64::MAX;
        for count in live_counts.iter_mut().rev() {
            least = least.min(*count);
            *count = least;
        }
        let risen = live_counts.windows(2).map(|pair| (pair[1] - pair[0]) as f64);
        let kept = std::iter::once(0.0).chain(risen).collect();
        Self { id: 0, kept, from }
    }

    /// Compares this growth with another growth, from the first slice on at which both have live allocations.
    fn step_with(&self, other: &Self) -> Step {
        let from = self.from.max(other.from).min(self.kept.len().min(other.kept.len()));
        let (one, two) = (&self.kept[from..], &other.kept[from..]);
        let (all_one, all_two): (f64, f64) = (one.iter().sum(), two.iter().sum());
        if all_one < LEAST_KEPT || all_two < LEAST_KEPT {
            return Step::Apart;
        }
        let share = |kept: &[f64], all: f64| kept.iter().map(|kept| kept / all).collect::<Vec<f64>>();
        let (one, two) = (share(one, all_one), share(two, all_two));
        if is_pattern(&one, &two, apart, MOST_UNLIKE)
            || is_pattern(&one, &two, apart_by_more_than_a_slice, LEAST_LOOSE)
        {
            return Step::Together;
        }
        let ratio = (all_one / all_two).max(all_two / all_one);
        let is_whole = (ratio - ratio.round()).abs() <= RATIO_ERROR * ratio;
        if is_whole && apart(&one, &two, 0) <= MOST_UNLIKE { Step::Possible } else { Step::Apart }
    }
}

/// Whether two places grow in the same slices, and do so much less after the growth of one place is shifted
/// by some slices.
fn is_pattern(one: &[f64], two: &[f64], apart: fn(&[f64], &[f64], usize) -> f64, least: f64) -> bool {
    let here = apart(one, two, 0);
    // If two places grow steadily in every slice, they grow in the same slices with and without a shift, so
    // the function returns false.
    if here > MOST_APART || MOVES[2..5].iter().all(|&by| by >= one.len() || apart(one, two, by) <= least) {
        return false;
    }
    let moves = MOVES.iter().filter(|&&by| by < one.len() / 4).flat_map(|&by| [by, one.len() - by]);
    let mut elsewhere: Vec<f64> = moves.map(|by| apart(one, two, by)).collect();
    elsewhere.sort_by(f64::total_cmp);
    let usual = elsewhere.get(elsewhere.len() / 2).copied().unwrap_or(0.0);
    usual > least && here * LEAST_CONTRAST <= usual
}

/// The share of the growth that is in different slices, after a shift of `two` by `by` slices.
fn apart(one: &[f64], two: &[f64], by: usize) -> f64 {
    let moved = two.iter().cycle().skip(by);
    one.iter().zip(moved).map(|(one, two)| (one - two).abs()).sum::<f64>() / 2.0
}

/// The share of the growth that is in different slices, with a tolerance of one slice: growth in two
/// neighbouring slices counts as growth in the same slice. The tolerance is necessary, because growth can
/// appear one slice too early: this happens if the program frees a short-lived allocation in the same slice
/// in which it makes a kept allocation.
fn apart_by_more_than_a_slice(one: &[f64], two: &[f64], by: usize) -> f64 {
    let moved = two.iter().cycle().skip(by);
    let (mut one_left, mut two_left): (Vec<f64>, Vec<f64>) =
        one.iter().zip(moved).map(|(one, two)| (one - one.min(*two), two - one.min(*two))).unzip();
    for at in 1..one_left.len() {
        for (one_at, two_at) in [(at - 1, at), (at, at - 1)] {
            let matched = one_left[one_at].min(two_left[two_at]);
            one_left[one_at] -= matched;
            two_left[two_at] -= matched;
        }
    }
    one_left.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The growth of a site that keeps `size` new allocations at each slice for which `is_event` is true.
    fn growing(slices: u64, size: u64, is_event: impl Fn(u64) -> bool) -> Growth {
        let mut live = 0;
        let count = |slice| {
            live += if is_event(slice) { size } else { 0 };
            live
        };
        Growth::of((0..slices).map(count).collect())
    }

    #[test]
    fn sites_of_one_mistake_are_in_step_and_those_of_two_are_not() {
        let one = |size| growing(400, size, |slice| slice % 7 < 2 && slice % 5 != 0);
        assert_eq!(one(1).step_with(&one(3)), Step::Together);
        // The site `other` grows as often and as steadily as the first site, but in other slices.
        let other = growing(400, 1, |slice| (slice + 3) % 7 < 2 && slice % 5 != 0);
        assert_eq!(one(1).step_with(&other), Step::Apart);
        // The two sites grow in alternate slices.
        let [even, odd] = [0, 1].map(|of| growing(400, 1, |slice| slice % 2 == of));
        assert_eq!(even.step_with(&odd), Step::Apart);
        assert_eq!(even.step_with(&even), Step::Together);
        // The leaks `first` and `second` take turns about every three slices, as the leaks of
        // samples/leaker.cpp do. Although the comparison has a tolerance of one slice, these two leaks must
        // not become one finding.
        let late = |event: u64| u64::from(event * event % 5 < 2);
        let [first, second] = [0, 1].map(|of| {
            growing(400, 1, |slice| {
                let is_at = |by: u64| slice >= of + by && (slice - of - by).is_multiple_of(3);
                (0..2).any(|by| is_at(by) && late((slice - of - by) / 3) == by)
            })
        });
        assert_eq!(first.step_with(&second), Step::Apart);
    }

    #[test]
    fn lines_without_a_pattern_prove_nothing() {
        let steady = |size| growing(400, size, |_| true);
        assert_eq!(steady(50).step_with(&steady(100)), Step::Possible);
        // One site keeps 71 allocations for each 50 allocations of the other site; 71/50 is not a whole
        // number, so the sites do not have one cause.
        assert_eq!(steady(50).step_with(&steady(71)), Step::Apart);
        // The second site keeps new allocations only in its last few slices, too few for a comparison.
        assert_eq!(steady(50).step_with(&growing(400, 1, |slice| slice > 395)), Step::Apart);
    }

    #[test]
    fn what_comes_and_goes_is_no_growth() {
        let leak = growing(400, 1, |slice| slice % 4 == 0);
        let mut live = 0;
        let busy = (0..400u64).map(|slice| {
            live += u64::from(slice % 4 == 0);
            live + slice * slice % 11
        });
        assert_eq!(leak.step_with(&Growth::of(busy.collect())), Step::Apart);
        // If a site has short-lived allocations in every other slice, its growth can appear one slice too
        // early.
        let leak = growing(400, 1, |slice| slice % 9 == 0);
        let mut live = 0;
        let at_work = (0..400u64).map(|slice| {
            live += u64::from(slice % 9 == 0);
            live + 5 * u64::from(slice % 2 == 1)
        });
        assert_eq!(leak.step_with(&Growth::of(at_work.collect())), Step::Together);
    }
}
