//! Adjusts the verdicts of a recording if the process ran before its recording began.
//!
//! A recording of a running process does not count the allocations that exist when the recording begins. So a
//! site with a constant number of live allocations can look like a leak. For example, the program frees its
//! old allocations (from before the recording) one by one, and makes a new allocation for each of them. The
//! recording counts only the new allocations, so the curve of the site rises from zero like a leak until all
//! allocations from before the recording are freed. The recording counts how many allocations from before the
//! recording the program frees, but does not know their sites. So the growth of a site is evidence of a leak
//! only if it is greater than the number of allocations from before the recording that the program freed.

use crate::site::{Domain, JudgedSite, Kind};
use edleak_format::Attached;
use edleak_model::classify::{Confidence, Judgement};
use edleak_model::growth_class::Class;
use edleak_model::reasons;

/// If the frees of allocations from before the recording are at least this share of the growth of a site,
/// these frees explain the growth.
const EXPLAINED: f64 = 0.8;

/// Makes leaks undecided if frees of allocations from before the recording may explain their growth in the
/// second half of the record.
pub(super) fn withdraw_explained_leaks(sites: &mut [JudgedSite], attached: &Attached, record_s: f64) {
    let frees = late_frees(attached, record_s);
    let is_leak = |site: &&mut JudgedSite| site.is_leak() && site.kind != Kind::Injected;
    for site in sites.iter_mut().filter(is_leak) {
        if site.domain() != Domain::Heap {
            // Some mappings and pool objects may be from before the recording, and the recording does not
            // count how many of them the program gave back. So a leak of mappings or pool objects may only
            // replace older ones, and gets the confidence `Suspect`.
            site.judgement.confidence = Some(Confidence::Suspect);
            let earlier = if site.domain() == Domain::Mapping { "mappings" } else { "objects" };
            site.judgement.why.push(format!("it may replace {earlier} from before the recording"));
            continue;
        }
        let growth = late_growth(site);
        if frees >= EXPLAINED * growth {
            let mut why = std::mem::take(&mut site.judgement.why);
            why.push(reasons::may_replace_earlier(growth, frees));
            site.judgement = Judgement::undecided(Class::Log, record_s, why);
        }
    }
}

/// Number of allocations from before the recording that the program freed in the second half of the record.
fn late_frees(attached: &Attached, record_s: f64) -> f64 {
    let half_ns = (record_s / 2.0 * 1e9) as u64;
    let last = attached.earlier_frees.last().map_or(0, |sample| sample.frees);
    let before = attached.earlier_frees.iter().rev().find(|sample| sample.at_ns <= half_ns);
    last.saturating_sub(before.map_or(0, |sample| sample.frees)) as f64
}

/// The growth of a site in the second half of the record, as a number of allocations: the growth in bytes,
/// divided by the usual size of an allocation of this site.
fn late_growth(site: &JudgedSite) -> f64 {
    // The call `at(4)` returns the live bytes at four evenly spaced columns of the curve; the third column
    // begins in the middle of the record. (The call `at(2)` would not do: its second column is at the end of
    // the record.)
    let middle = site.levels.at(4).get(2).copied().unwrap_or(0.0);
    let bytes = (site.levels.last() - middle).max(0.0);
    match (site.totals.allocated_bytes, site.totals.allocs) {
        (Some(allocated), Some(allocs)) if allocated > 0 => bytes * allocs as f64 / allocated as f64,
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_format::EarlierFrees;

    #[test]
    fn only_frees_of_the_second_half_count() {
        let sample = |at_s: u64, frees| EarlierFrees { at_ns: at_s * 1_000_000_000, frees };
        let samples = vec![sample(1, 10), sample(4, 50), sample(6, 70), sample(10, 90)];
        let attached = Attached { earlier_frees: samples, ..Attached::default() };
        assert!((late_frees(&attached, 10.0) - 40.0).abs() < 1e-9);
        assert!((late_frees(&attached, 1.0) - 90.0).abs() < 1e-9);
        assert!((late_frees(&Attached::default(), 1.0)).abs() < 1e-9);
    }
}
