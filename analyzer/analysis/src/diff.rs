//! Two recordings beside each other: which leaks are new, gone, faster, slower, or the same.

use crate::baseline::{Baseline, Change, KnownLeak};
use crate::findings::Findings;
use crate::gate::{Outcome, too_little};
use crate::site::JudgedSite;

/// What changed from one recording to another.
#[derive(Debug)]
pub struct Diff<'a> {
    /// Every leak of the second one, and how it compares.
    pub leaks: Vec<(&'a JudgedSite, Change)>,
    /// The leaks of the first one that the second one has not.
    pub gone: Vec<KnownLeak>,
    /// The recordings that say too little, and why: what they do not show may be there all the same.
    pub undecided: Vec<String>,
}

impl<'a> Diff<'a> {
    /// Compares; both have to be symbolized.
    pub fn of(before: &Findings, after: &'a Findings) -> Self {
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

    /// What it means for the build: leaks if something became worse.
    pub fn outcome(&self) -> Outcome {
        match () {
            () if self.leaks.iter().any(|(_, change)| !change.is_known()) => Outcome::Leaks,
            () if !self.undecided.is_empty() => Outcome::Undecided,
            () => Outcome::Clean,
        }
    }
}
