//! The settings of a recording, and the facts about an image that are known when its recording begins.

use crate::recording::domains::Domains;
use crate::recording::mappings::Mappings;
use crate::recording::period::Period;
use crate::recording::pools::ledger::Ledger as PoolLedger;
use crate::rules::modules::Modules;
use crate::rules::publisher::Publisher;
use std::path::PathBuf;

/// Settings that all recordings of one run share.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The command line of the target, as the trace stores it.
    pub(crate) command: Vec<String>,
    /// The interval between slices.
    pub(crate) period: Period,
    /// The maximum size of a trace in bytes.
    pub(crate) capacity_bytes: u64,
    /// The share of the target's processor time that auto-watch may use to watch sites that look like leaks;
    /// `None`: there is no auto-watch.
    pub(crate) auto_watch: Option<f64>,
    /// The rate, in bytes per second, of an artificial leak that the collector adds to the counters; `None`:
    /// there is no such leak.
    pub(crate) inject_bytes_per_s: Option<f64>,
    /// The path of the program's file, if the program contains its own allocator.
    pub(crate) own_allocator: Option<PathBuf>,
    /// The domains of memory to record.
    pub(crate) domains: Domains,
}

/// The rules and modules of an image that are known before the recording of this image begins.
pub(crate) struct KnownCode {
    /// Publishes the rules to the target.
    pub(crate) publisher: Publisher,
    /// The modules of the parent at the fork; `None`: no recorded process forked the image.
    pub(crate) modules: Option<Modules>,
}

/// The memory that a forked child inherits from its parent, in the domains that the collector itself counts:
/// mapped memory and pools.
#[derive(Default)]
pub(crate) struct Inherited {
    /// The inherited mappings; `None`: edleak records no parent, or does not record the parent's mapped
    /// memory.
    pub(crate) mappings: Option<Mappings>,
    /// The inherited objects of pools; `None`: edleak records no parent, or does not record the parent's
    /// pools.
    pub(crate) pools: Option<PoolLedger>,
}
