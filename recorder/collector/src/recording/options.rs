//! The settings and the knowledge with which a recording begins.

use crate::recording::domains::Domains;
use crate::recording::mappings::Mappings;
use crate::recording::modules::Modules;
use crate::recording::period::Period;
use crate::recording::pools::ledger::Ledger as PoolLedger;
use crate::rules::publisher::Publisher;
use std::path::PathBuf;

/// Settings that all recordings of one run share.
#[derive(Clone, Debug)]
pub struct Options {
    /// The recorded command line, for the trace.
    pub command: Vec<String>,
    /// The interval between slices.
    pub period: Period,
    /// The maximum size of a trace.
    pub capacity_bytes: u64,
    /// Watch sites that look like leaks, for at most this share of the target's processor time.
    pub auto_watch: Option<f64>,
    /// The rate of an artificial leak that the collector adds to the counters, in bytes per second.
    pub inject_bytes_per_s: Option<f64>,
    /// The program's file, if the file contains its own allocator.
    pub own_allocator: Option<PathBuf>,
    /// The domains of memory to record.
    pub domains: Domains,
}

/// The rules and modules of an image, as far as they are known before its recording begins.
pub(crate) struct KnownCode {
    /// Publishes the rules to the target.
    pub publisher: Publisher,
    /// The modules at the fork; `None`: no recorded process forked the image.
    pub modules: Option<Modules>,
}

/// The memory that a forked child has from its parent, in the domains that the collector counts itself.
#[derive(Default)]
pub(crate) struct Inherited {
    /// Mappings; `None`: the parent is not recorded, or not in this domain.
    pub mappings: Option<Mappings>,
    /// Objects of pools; `None` as for mappings.
    pub pools: Option<PoolLedger>,
}
