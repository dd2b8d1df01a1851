//! Makes a site undecided if it keeps all its allocations and grows in a few bursts.
//!
//! A program that leaks once a minute, for example with each report that it writes, shows only a few bursts
//! in a short recording. A program that loads data in a few steps has the same curve. Neither the curve nor
//! the ages of the allocations tell the two apart, so the site is undecided. A recording with more bursts
//! decides.
//!
//! The rule is only for programs that mostly wait. A program that computes from start to end allocates most
//! of its memory in a few phases, and then ends.

use crate::site::{Domain, JudgedSite, Kind};
use edleak_model::classify::{Judgement, Verdict};
use edleak_model::growth_class::Class;
use edleak_model::reasons;

/// Number of instants at which the rule looks at the live bytes of a site.
const COLUMNS: usize = 40;
/// Growth before this instant may be the start of the program.
const START: usize = COLUMNS / 8;
/// The last burst must begin after this instant, because growth that ended long ago is no leak.
const LATE: usize = COLUMNS * 3 / 5;
/// A burst is a rise of at least this share of the growth after the start.
const LEAST_SHARE: f64 = 0.15;
/// Least number of bursts after the start. Two bursts are not enough, because many servers initialize two of
/// their parts only when they are first used.
const LEAST_BURSTS: usize = 3;
/// In a shorter record, in seconds, the start of the program takes too large a share.
const LEAST_RECORD_S: f64 = 5.0;

/// Makes sites undecided that keep all their allocations and grow in a few bursts. Call this function only
/// for a program that is not busy.
pub(super) fn leave_bursts_undecided(sites: &mut [JudgedSite], record_s: f64) {
    if record_s < LEAST_RECORD_S {
        return;
    }
    let keeps_all = |site: &&mut JudgedSite| {
        site.domain() == Domain::Heap
            && site.kind != Kind::Injected
            && site.judgement.verdict == Verdict::NoLeak
            && site.totals.frees == Some(0)
    };
    for site in sites.iter_mut().filter(keeps_all) {
        let bursts = bursts_of(&site.levels.at(COLUMNS));
        if bursts.len() >= LEAST_BURSTS && bursts.last().is_some_and(|&last| last >= LATE) {
            let last_s = *bursts.last().unwrap_or(&0) as f64 / COLUMNS as f64 * record_s;
            let why = reasons::bursts(bursts.len() as u64, last_s);
            site.judgement = Judgement::undecided(Class::Log, record_s, vec![why]);
        }
    }
}

/// The instants at which the bursts after the start begin. Rises at instants next to each other are one
/// burst.
fn bursts_of(levels: &[f64]) -> Vec<usize> {
    let (Some(&from), Some(&to)) = (levels.get(START), levels.last()) else { return Vec::new() };
    let mut bursts: Vec<(usize, f64)> = Vec::new();
    let mut rises_on = false;
    for at in START + 1..levels.len() {
        let rise = levels[at] - levels[at - 1];
        match bursts.last_mut().filter(|_| rises_on) {
            Some((_, risen)) if rise > 0.0 => *risen += rise,
            _ if rise > 0.0 => bursts.push((at, rise)),
            _ => {}
        }
        rises_on = rise > 0.0;
    }
    let is_burst = |(_, risen): &(usize, f64)| *risen >= LEAST_SHARE * (to - from);
    bursts.into_iter().filter(is_burst).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(bursts: &[usize], width: usize) -> Vec<f64> {
        let level = |i: usize| bursts.iter().map(|&at| (i + 1).saturating_sub(at).min(width)).sum::<usize>();
        (0..COLUMNS).map(|i| 1000.0 + level(i) as f64).collect()
    }

    #[test]
    fn bursts_are_counted_after_the_start() {
        assert_eq!(bursts_of(&curve(&[15, 30], 1)), [15, 30]);
        assert_eq!(bursts_of(&curve(&[1, 15, 30], 3)), [15, 30]);
        assert_eq!(bursts_of(&curve(&[20], 5)), [20]);
        assert!(bursts_of(&curve(&[], 1)).is_empty() && bursts_of(&[]).is_empty());
        assert!(bursts_of(&curve(&[1, 2, 3], 1)).is_empty());
    }
}
