//! Programs that compute from start to end: a compiler, a converter, a debugger that runs a script.
//!
//! Such a program builds up its data as steadily as a leak, until it ends. No curve tells the two apart, and
//! a slow machine only makes the curve longer. So a strict leak becomes a suspect in each of three cases:
//!
//! - Most of the live memory grew late.
//! - The program frees the leak when it ends.
//! - The program used less than [`STRICT_SECONDS`] of processor time.

use crate::site::{Domain, JudgedSite, Kind};
use edleak_model::classify::{Confidence, STRICT_SECONDS};
use edleak_model::reasons;

/// Least share of the live bytes that must have grown over the last three quarters of the record for the rule
/// to apply.
const GROWN_SHARE: f64 = 0.6;
/// Greatest share of a site's leak that may be left at the end, if the program freed the leak when it ended.
const LEFT_SHARE: f64 = 0.5;

/// Turns strict leaks into suspects. `used_s` is the processor time of the program, which was busy the whole
/// time.
pub(super) fn doubt(sites: &mut [JudgedSite], used_s: f64) {
    let of_heap = || sites.iter().filter(|site| site.domain() == Domain::Heap);
    let live: f64 = of_heap().map(JudgedSite::judged_bytes).sum();
    let grown: f64 = of_heap().map(late_growth).sum();
    let is_batch = grown >= GROWN_SHARE * live;
    let is_certain = |site: &JudgedSite| {
        site.judgement.confidence == Some(Confidence::Strict) && site.kind != Kind::Injected
    };
    for site in sites.iter_mut().filter(|site| is_certain(site)) {
        let left = site.totals.live_bytes as f64;
        let why = match () {
            () if left < LEFT_SHARE * site.judged_bytes() => reasons::freed_at_exit(),
            () if is_batch => reasons::batch(),
            () if used_s < STRICT_SECONDS => reasons::little_processor_time(used_s),
            () => continue,
        };
        site.judgement.confidence = Some(Confidence::Suspect);
        site.judgement.why.push(why);
    }
}

/// The growth of a site over the last three quarters of the record.
fn late_growth(site: &JudgedSite) -> f64 {
    let quarter = site.levels.at(4).get(1).copied().unwrap_or(0.0);
    (site.levels.last() - quarter).max(0.0)
}
