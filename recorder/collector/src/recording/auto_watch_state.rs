//! The state of auto-watch in one recording.

use crate::rules::publisher::Change;
use crate::watch::auto_watch::AutoWatch;
use crate::watch::budget::Budget;
use std::collections::BTreeMap;

/// The data of auto-watch: the search for sites that look like leaks, the budget of processor time for
/// stacks, the sites found, and the unwind rules for the stacks of these sites.
pub(super) struct Watching {
    pub(super) auto_watch: AutoWatch,
    pub(super) budget: Budget,
    /// The sites that looked like leaks at the latest check, as indices into the counters of call sites.
    pub(super) suspects: Vec<usize>,
    /// The unwind rules that the collector compiles in the background, and the number of modules for which it
    /// compiles them.
    pub(super) rules: Option<(Change, usize)>,
}

impl Watching {
    /// Creates the state of auto-watch. `share` is the share of the target's processor time that auto-watch
    /// may cost.
    pub(super) fn new(share: f64) -> Watching {
        Watching {
            auto_watch: AutoWatch::default(),
            budget: Budget::new(share),
            suspects: Vec::new(),
            rules: None,
        }
    }
}

/// The sites that have stacks in the trace, and whether each of these sites is still watched.
#[derive(Default)]
pub(super) struct Watches {
    /// For each session id of a site: whether the site was watched when the collector last checked.
    pub(super) of_sites: BTreeMap<u32, bool>,
    /// How often the set of watched sites had changed when the collector last checked (the publisher counts
    /// these changes).
    pub(super) changes: usize,
}
