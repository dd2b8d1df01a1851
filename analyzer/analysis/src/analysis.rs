//! The results of one recording: all data that the gate and the reports need. A report only prints these
//! data, so all reports show the same figures.

use crate::finding::{self, Finding};
use crate::group;
use crate::history::History;
use crate::mapped::Mapped;
use crate::marks::{MarkSeen, PerMark};
use crate::own_heap::OwnHeap;
use crate::pools::Pools;
use crate::site::{self, JudgedSite, Standing};
use crate::steps::Steps;
use crate::uncounted::UncountedFunctions;
pub use crate::unexplained::Unexplained;
use edleak_binary::Outcome;
use edleak_model::growth_kind::ProcessGrowth;
use edleak_model::process_series::ProcessSeries;
use edleak_model::work::Work;
use std::sync::Arc;

/// The results for one recording.
#[derive(Debug)]
pub struct Analysis {
    /// The path of the input, as the user gave it.
    pub source: String,
    /// General facts: the program, the duration of the recording, and the reason why the recording ended.
    pub header: Header,
    /// The totals of the recording, such as the live bytes of all sites, and the numbers of events that the
    /// recorder could not record.
    pub summary: Summary,
    /// The kind of memory that grows in the process, with the numbers of its growth.
    pub growth: ProcessGrowth,
    /// The totals of mapped memory; `None`: the trace has no data about mapped memory.
    pub mapped: Option<Mapped>,
    /// The totals of the program's own pools; `None`: the trace does not record pools, or the program reports
    /// no pool with edleak.h.
    pub pools: Option<Pools>,
    /// Growth that is spread over many sites, so that no single site explains it; `None`: there is no such
    /// growth.
    pub unexplained: Option<Unexplained>,
    /// Runtimes and allocators in the process that do not take their memory from malloc, each with a remedy.
    pub(crate) own_heaps: Vec<OwnHeap>,
    /// Functions of an allocator whose calls the recorder did not count, although it counted calls of other
    /// functions of this allocator.
    pub uncounted_functions: Vec<UncountedFunctions>,
    /// Whether child processes without a recording used more processor time than the process itself.
    pub(crate) children_did_the_work: bool,
    /// All sites, sorted: leaks come before all other sites, and the leak with the highest rate is the first.
    /// Sites with the same rate are sorted by their labels.
    pub sites: Vec<JudgedSite>,
    /// Live and resident bytes of the process at evenly spaced times of the record; the series is empty if
    /// the input does not contain these bytes.
    pub process: ProcessSeries,
    /// The number of allocations of the whole program, as a curve over the time of the record.
    pub work: Arc<Work>,
    /// For each module, the debug file from which edleak read the names of the reported addresses.
    pub outcomes: Vec<Outcome>,
    /// The number of live allocations of each leaking site at each slice; reports use it to list leaks that
    /// grow at the same times as one finding.
    pub(crate) steps: Steps,
    /// The counters of every site over the record; `None`: no report needs the history.
    pub history: Option<Box<History>>,
    /// The marks of the trace.
    pub marks: Vec<MarkSeen>,
    /// The marks by which the sites are judged (`--per-mark`); `None`: the sites are judged by time.
    pub per_mark: Option<PerMark>,
}

/// General facts about one recording: its program, its duration, the reason for its end, and so on.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Header {
    /// The program and its arguments; empty: the input does not give the program.
    pub command: Vec<String>,
    /// The process ID; 0 if the input does not give the process ID.
    pub pid: u32,
    /// The time at which the recording began, in nanoseconds since 1970 (wall clock); 0 if the input does not
    /// give this time.
    pub started_unix_ns: u64,
    /// Seconds from the start of the recording to the last slice.
    pub duration_s: f64,
    /// Number of slices in the input.
    pub slices: u64,
    /// Number of evenly spaced slices from which edleak computes the verdicts.
    pub judged_slices: u64,
    /// Seconds from one judged slice to the next.
    pub period_s: f64,
    /// Whether the recording ended in an orderly way and no part of the trace is damaged.
    pub complete: bool,
    /// The reason why the recording ended, in words.
    pub end: Option<String>,
    /// Whether the recording ended because the process executed a program that was not recorded.
    pub is_replaced: bool,
    /// The reason why the recording does not suffice for a verdict, if the input itself gives this reason
    /// (series lines).
    pub undecided: Option<String>,
    /// Whether the recording ended because the process executed a program that has a trace of its own.
    pub is_executed: bool,
    /// The file names of the traces of the programs that the process executed before this one. The gate
    /// removes the names of traces that are analyzed together with this one.
    pub earlier_traces: Vec<String>,
    /// Version of the edleak-record that wrote the trace; empty if the input does not give the version.
    pub recorder: String,
    /// Machine of the target, as in `uname -m`; empty if the input does not give it.
    pub machine: String,
    /// The age and the memory that the process had when its recording began; `None`: the recording began when
    /// the process started.
    pub before: Option<Before>,
}

/// The age and the memory that a process had when its recording began, if the process ran before the
/// recording.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Before {
    /// Age of the process when its recording began, in seconds.
    pub age_s: f64,
    /// Resident anonymous memory of the process when its recording began, in bytes.
    pub resident_bytes: u64,
}

/// The totals of a recording, such as the live bytes of all sites, and the numbers of events that the
/// recorder could not record.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Summary {
    /// Number of sites.
    pub sites: u64,
    /// Number of sites with the verdict `Undecided`.
    pub undecided: u64,
    /// Live bytes of all sites at the end of the recording.
    pub live_bytes: u64,
    /// Number of live allocations of all sites at the end of the recording.
    pub live_count: u64,
    /// Number of bytes that all sites allocated.
    pub allocated_bytes: u64,
    /// Number of bytes that all sites freed.
    pub freed_bytes: u64,
    /// Number of allocations of all sites.
    pub allocs: u64,
    /// Number of frees of all sites.
    pub frees: u64,
    /// Number of frees of unknown memory: no allocation function that edleak records had returned the
    /// address.
    pub unknown_frees: u64,
    /// Number of frees of allocations that the process had made before the recording began; 0 if the
    /// recording began when the process started.
    pub earlier_frees: u64,
    /// Number of slices that were due but that the recorder did not take.
    pub lost_slices: u64,
    /// Share of the record without slices, 0 to 1. Where slices are missing, the analysis draws a straight
    /// line from the slice before to the slice after.
    pub missing_share: f64,
    /// Length of the longest gap without slices, as a share of the record, 0 to 1.
    pub longest_gap_share: f64,
    /// Number of allocations that the recorder did not count, because the side table had no memory for them.
    pub untracked_allocs: u64,
    /// Number of modules that the program loaded or unloaded and that the trace does not mention. Sites in a
    /// module that the trace does not mention may have no name.
    pub lost_module_events: u64,
    /// Number of allocations whose site did not fit into the site table. The recorder counts all of these
    /// allocations at one site of the kind `Other`.
    pub other_site_allocs: u64,
    /// Number of stacks of watched sites that did not fit into the session.
    pub lost_stacks: u64,
    /// Number of programs (after an exec) and of child processes that edleak could not record.
    pub unrecorded_images: u64,
    /// Number of child processes that edleak did not record, because the user did not request a recording of
    /// children. The true number of such child processes may be higher.
    pub unrequested_children: u64,
    /// Number of blocks of the trace that were damaged and skipped.
    pub damaged_blocks: u64,
    /// Number of bytes of the trace that are lost because they are in damaged blocks or between blocks.
    pub damaged_bytes: u64,
    /// Number of code addresses that a report shows without a function name.
    pub unresolved_addresses: u64,
    /// Number of code addresses that a report shows, with or without a function name.
    pub reported_addresses: u64,
}

impl Analysis {
    /// The stacks that have a share in the leak of `site`, if `site` was judged together with its stacks. The
    /// list is sorted by share, largest first.
    pub fn parts_of<'a>(&'a self, site: &'a JudgedSite) -> Vec<&'a JudgedSite> {
        site::parts_of(&self.sites, site)
    }

    /// Groups the leaks in `listed`, so that one mistake in the program counts as one leak. A watched caller
    /// and its stacks count as one leak. Several places also count as one leak if one function calls all of
    /// them and they keep new allocations at the same times. The site with the highest rate must come first
    /// in `listed`.
    fn of_leaks<'a>(&'a self, listed: impl Iterator<Item = &'a JudgedSite>) -> Vec<Finding<'a>> {
        finding::findings(group::groups(&self.sites, listed), &self.steps)
    }

    /// The findings made of those leaks for which `is` returns true. The argument of `is` is the standing of
    /// a leak, which is the decision of the gate on this leak.
    pub fn with_standing(&self, is: impl Fn(Standing) -> bool) -> Vec<Finding<'_>> {
        self.of_leaks(self.sites.iter().filter(|site| is(site.standing)))
    }

    /// The stacks that hold a site's leaked bytes.
    ///
    /// If the site was judged together with its stacks, the result has these stacks, and the stack with the
    /// largest share comes first. The result also has an entry for the watched site itself, with the bytes
    /// that the site leaked while it was not watched. If the site was judged without its stacks, the result
    /// is only the site itself, with all its leaked bytes.
    pub fn leaked_by_stack<'a>(&'a self, site: &'a JudgedSite) -> Vec<(&'a JudgedSite, u64)> {
        let bytes = site.judgement.leak_bytes;
        let parts = self.parts_of(site);
        if parts.is_empty() {
            return vec![(site, bytes)];
        }
        // The share of a stack is its part of the growth of all stacks together. The cast from float to
        // integer cannot overflow, because such a cast saturates.
        let share = |part: &JudgedSite| (part.leak_share.unwrap_or(0.0) * bytes as f64).round() as u64;
        let mut all: Vec<_> = parts.into_iter().map(|part| (part, share(part))).collect();
        // Each share is rounded, so the sum of the shares may differ from `bytes` by up to one byte per
        // share.
        let rest = bytes.saturating_sub(all.iter().map(|(_, bytes)| bytes).sum());
        if rest > all.len() as u64 {
            all.push((site, rest));
        }
        all.retain(|(_, bytes)| *bytes > 0);
        all
    }

    /// The number of leaks that `--min-class` or `--strict` excludes from the list.
    pub fn unlisted_leaks(&self) -> u64 {
        let is_unlisted = |site: &&JudgedSite| site.is_leak() && site.standing == Standing::Unlisted;
        self.sites.iter().filter(is_unlisted).count() as u64
    }
}
