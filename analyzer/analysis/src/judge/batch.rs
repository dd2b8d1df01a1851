//! Lowers the confidence in leaks of programs that compute from start to end, such as a compiler, a
//! converter, or a debugger that runs a script.
//!
//! The memory of a program that computes from start to end grows as steadily as a leak until the program
//! ends. So the curve of such a program looks like the curve of a leak. On a slow machine, the curve of the
//! program has the same shape and only takes longer. So a leak with the confidence `Strict` gets the
//! confidence `Suspect` in each of three cases:
//!
//! - Most of the live memory of the leak's domain was added in the last three quarters of the record.
//! - The program freed the leaked memory when it ended.
//! - The program used less than [`STRICT_SECONDS`] of processor time.

use crate::site::{Domain, JudgedSite, Kind};
use edleak_model::classify::{Confidence, STRICT_SECONDS};
use edleak_model::reasons;

/// For a program that was busy for the whole record: if it added at least this share of its live bytes in the
/// last three quarters of the record, its leaks get the confidence `Suspect` instead of `Strict`.
const GROWN_SHARE: f64 = 0.6;
/// For a program that was busy for the whole record: if it freed most of a site's live bytes when it ended,
/// so that less than this share is left, a leak of the site gets the confidence `Suspect` instead of
/// `Strict`.
const LEFT_SHARE: f64 = 0.5;

/// Changes the confidence of leaks from `Strict` to `Suspect`, in the three cases that the comment at the top
/// of this file lists. The code that calls this function has already checked that the program was busy.
/// `used_s` is the processor time of the program, in seconds.
pub(super) fn lower_confidence(sites: &mut [JudgedSite], used_s: f64) {
    // The domains are compared separately, because a program may keep its data in only one of them.
    let is_batch = Domain::ALL.map(|domain| {
        let of_domain = || sites.iter().filter(|site| site.domain() == domain);
        let live: f64 = of_domain().map(JudgedSite::judged_bytes).sum();
        let grown: f64 = of_domain().map(late_growth).sum();
        (domain, grown >= GROWN_SHARE * live)
    });
    let is_batch = |of: Domain| is_batch.iter().any(|(domain, is_batch)| *domain == of && *is_batch);
    let is_certain = |site: &JudgedSite| {
        site.judgement.confidence == Some(Confidence::Strict) && site.kind != Kind::Injected
    };
    for site in sites.iter_mut().filter(|site| is_certain(site)) {
        let left = site.totals.live_bytes as f64;
        let why = match () {
            () if left < LEFT_SHARE * site.judged_bytes() => reasons::freed_at_exit(),
            () if is_batch(site.domain()) => reasons::batch(),
            () if used_s < STRICT_SECONDS => reasons::little_processor_time(used_s),
            () => continue,
        };
        site.judgement.confidence = Some(Confidence::Suspect);
        site.judgement.why.push(why);
    }
}

/// The growth of a site in the last three quarters of the record.
fn late_growth(site: &JudgedSite) -> f64 {
    let quarter = site.levels.at(4).get(1).copied().unwrap_or(0.0);
    (site.levels.last() - quarter).max(0.0)
}
