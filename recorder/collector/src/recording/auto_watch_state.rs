//! The state of auto-watch in one recording.

use crate::rules::publisher::Change;
use crate::watch::auto_watch::AutoWatch;
use crate::watch::budget::Budget;
use std::collections::BTreeMap;

/// Auto-watch, its budget, and the sites that wait.
pub(super) struct Watching {
    pub(super) auto_watch: AutoWatch,
    pub(super) budget: Budget,
    /// The sites that looked like leaks at the newest check, by their index in the counters of call sites.
    pub(super) suspects: Vec<usize>,
    /// The rules that are being compiled in the background, and the number of their modules.
    pub(super) rules: Option<(Change, usize)>,
}

impl Watching {
    /// Auto-watch that may cost this share of the target's processor time.
    pub(super) fn new(share: f64) -> Watching {
        Watching {
            auto_watch: AutoWatch::default(),
            budget: Budget::new(share),
            suspects: Vec::new(),
            rules: None,
        }
    }
}

/// The watched sites that have stacks in the trace, and whether each of them is still watched.
#[derive(Default)]
pub(super) struct Watches {
    /// By session id of the site: whether the site was watched at the newest look.
    pub(super) of_sites: BTreeMap<u32, bool>,
    /// The number of changes of watches, as of the newest look.
    pub(super) changes: usize,
}
