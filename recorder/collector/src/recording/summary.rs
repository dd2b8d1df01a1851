//! The result of a finished recording, and the part of a recording that the collector keeps for the children
//! of the recorded process.

use crate::rules::modules::Modules;
use edleak_format::{Children, Losses};
use std::path::PathBuf;
use std::time::Duration;

/// The result of a finished recording.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The path of the trace.
    pub path: PathBuf,
    /// The size of the trace in bytes.
    pub bytes: u64,
    /// Number of slices that the collector has taken.
    pub slices: u64,
    /// Number of sites whose counters are not all zero.
    pub sites: usize,
    /// The duration of the recording.
    pub duration: Duration,
    /// Counts of the events that the recording could not record.
    pub losses: Losses,
    /// The rate of the injected leak in bytes per second.
    pub injected_bytes_per_s: Option<f64>,
    /// Names that the user asked to watch and that no module contains.
    pub unmatched_watches: Vec<String>,
    /// Whether the process executed a program that is not recorded.
    pub is_replaced: bool,
    /// Whether edleak counted almost nothing of the program, because the program has its own allocator.
    pub(crate) is_blind: bool,
    /// Whether another process moved or deleted the trace during the recording, so that `path` is now the
    /// path of another file or of no file.
    pub is_moved: bool,
    /// Number of child processes without a trace.
    pub children: Children,
    /// Whether the process already ran before the recording began, so that its allocations from before this
    /// start are unknown.
    pub attached: bool,
}

/// The part of a finished recording that the collector keeps for the children of the recorded process.
pub(crate) struct Remains {
    /// The serial number of the session of the finished recording.
    pub(crate) serial: u64,
    /// The modules of the finished recording.
    pub(crate) modules: Modules,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
}

/// Counts of the images (programs in processes) that have no trace.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Others {
    /// Number of images (programs in processes) that edleak did not record, because they got no session.
    pub(crate) unrecorded: u64,
    /// Number of children that the user did not ask to record.
    pub(crate) unrequested: u64,
    /// Whether the collector records each child into its own trace.
    pub(crate) children_are_recorded: bool,
}
