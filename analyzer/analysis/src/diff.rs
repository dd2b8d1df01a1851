//! Compares the leaks of two recordings: which leaks are new, gone, faster, slower, or unchanged.

use crate::analysis::Analysis;
use crate::baseline::{Baseline, Change, KnownLeak};
use crate::gate::{Outcome, too_little};
use crate::site::JudgedSite;

/// The differences between the leaks of two recordings.
#[derive(Debug)]
pub struct Diff<'a> {
    /// Every leak of the second recording, and its change since the first recording.
    pub leaks: Vec<(&'a JudgedSite, Change)>,
    /// The leaks of the first recording that are not in the second recording.
    pub gone: Vec<KnownLeak>,
    /// For each recording that does not suffice for a verdict, the reason; such a recording may hide a leak.
    pub undecided: Vec<String>,
}

impl<'a> Diff<'a> {
    /// Compares two recordings; the sites of both recordings must have symbols.
    pub fn of(before: &Analysis, after: &'a Analysis) -> Self {
        let leaks: Vec<&JudgedSite> = after.sites.iter().filter(|site| site.is_leak()).collect();
        let baseline = Baseline::of(before);
        let (changes, gone) = baseline.compare(&leaks);
        let gone = gone.into_iter().cloned().collect();
        let undecided = [before, after]
            .iter()
            .filter_map(|analysis| Some(format!("{}: {}", analysis.source, too_little(analysis)?)))
            .collect();
        Self { leaks: leaks.into_iter().zip(changes).collect(), gone, undecided }
    }

    /// The result for the build: `Leaks` if a leak is new or faster.
    pub fn outcome(&self) -> Outcome {
        match () {
            () if self.leaks.iter().any(|(_, change)| !change.is_known()) => Outcome::Leaks,
            () if !self.undecided.is_empty() => Outcome::Undecided,
            () => Outcome::Clean,
        }
    }
}
