//! The findings of one recording: all data that the gate and the reports need, so that no report computes
//! anything.

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
use crate::unexplained::Unexplained;
use edleak_binary::Outcome;
use edleak_format::ModuleId;
use edleak_model::growth_kind::ProcessGrowth;
use edleak_model::process_series::ProcessSeries;
use edleak_model::work::Work;
use std::sync::Arc;

/// One recording, judged.
#[derive(Debug)]
pub struct Findings {
    /// The input as the user named it.
    pub source: String,
    /// The program, the duration and the end of the recording.
    pub header: Header,
    /// The totals, and the losses.
    pub summary: Summary,
    /// The kind of growth of the process.
    pub growth: ProcessGrowth,
    /// The totals of the domain of mapped memory; `None`: the trace does not have the domain.
    pub mapped: Option<Mapped>,
    /// The totals of the domain of pools; `None`: the trace does not have the domain, or the program has no
    /// pool of edleak.h.
    pub pools: Option<Pools>,
    /// Growth that no site explains.
    pub unexplained: Option<Unexplained>,
    /// Runtimes and allocators in the process that take their memory from elsewhere than malloc, each with a
    /// remedy.
    pub own_heaps: Vec<OwnHeap>,
    /// Functions of counted allocators whose calls are not counted.
    pub uncounted_functions: Vec<UncountedFunctions>,
    /// Whether the children of the process used most of the processor time.
    pub children_did_the_work: bool,
    /// Every site: leaks first, by falling rate. Sites with equal rates are in order of their label.
    pub sites: Vec<JudgedSite>,
    /// The modules of the target, with their load addresses; empty: the input does not name modules.
    pub modules: Vec<LoadedModule>,
    /// Live and resident bytes of the process over the record; empty: the input does not have them.
    pub process: ProcessSeries,
    /// The work of the whole program over the record.
    pub work: Arc<Work>,
    /// The debug files that gave the names of the reported addresses, by module.
    pub outcomes: Vec<Outcome>,
    /// The growth of the leaking sites, slice by slice.
    pub steps: Steps,
    /// The counters of every site over the record; `None`: no report asks for them.
    pub history: Option<Box<History>>,
    /// The marks of the trace.
    pub marks: Vec<MarkSeen>,
    /// The marks that judge the sites (`--per-mark`); `None`: the verdicts are by time.
    pub per_mark: Option<PerMark>,
}

/// The program, the duration and the end of one recording.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Header {
    /// The program and its arguments; empty: the input does not name them.
    pub command: Vec<String>,
    /// The process ID; 0: the input does not give it.
    pub pid: u32,
    /// Wall-clock start in nanoseconds since 1970; 0: the input does not give it.
    pub started_unix_ns: u64,
    /// Seconds from the start to the last slice.
    pub duration_s: f64,
    /// Number of slices in the input.
    pub slices: u64,
    /// Number of evenly spaced slices that the verdicts rest on.
    pub judged_slices: u64,
    /// Seconds between two of the judged slices.
    pub period_s: f64,
    /// Whether the recording ended in an orderly way, and no part of it is damaged.
    pub complete: bool,
    /// The end of the recording, in words.
    pub end: Option<String>,
    /// Whether the recording ended because the process executed a program that was not recorded.
    pub is_replaced: bool,
    /// Version of the edleak-record that wrote the trace; empty if the input does not give it.
    pub recorder: String,
    /// Machine of the target, as in `uname -m`; empty if the input does not give it.
    pub machine: String,
    /// The process when its recording began; `None`: the recording began with the process.
    pub before: Option<Before>,
}

/// A process that ran before its recording began.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Before {
    /// Age of the process at that time, in seconds.
    pub age_s: f64,
    /// Resident anonymous memory of the process at that time.
    pub resident_bytes: u64,
}

/// The totals of a recording, and its losses.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Summary {
    /// Number of sites.
    pub sites: u64,
    /// Number of sites without a verdict.
    pub undecided: u64,
    /// Live bytes of all sites at the end.
    pub live_bytes: u64,
    /// Live allocations of all sites at the end.
    pub live_count: u64,
    /// Bytes that all sites allocated.
    pub allocated_bytes: u64,
    /// Bytes that all sites freed.
    pub freed_bytes: u64,
    /// Allocations.
    pub allocs: u64,
    /// Frees.
    pub frees: u64,
    /// Number of frees of addresses that no entry point had returned.
    pub unknown_frees: u64,
    /// Number of frees of allocations from before the recording; 0 if the process did not run before.
    pub earlier_frees: u64,
    /// Number of slices that were due but that the recorder did not take.
    pub lost_slices: u64,
    /// Share of the record without slices, 0 to 1. A straight line replaces the missing slices.
    pub missing_share: f64,
    /// Share of the record that the longest single gap takes, 0 to 1.
    pub longest_gap_share: f64,
    /// Number of allocations that the recorder did not count, because the side table had no memory for them.
    pub untracked_allocs: u64,
    /// Number of modules that were loaded or unloaded without an event in the trace. Sites in these modules
    /// may have no name.
    pub lost_module_events: u64,
    /// Number of allocations beyond the site table; the site of kind `Other` counts them.
    pub other_site_allocs: u64,
    /// Number of stacks of watched sites that did not fit into the session.
    pub lost_stacks: u64,
    /// Number of images and child processes that edleak could not record.
    pub unrecorded_images: u64,
    /// Least number of child processes that edleak did not record, because the user did not ask for them.
    pub unrequested_children: u64,
    /// Number of blocks of the trace that were damaged and skipped.
    pub damaged_blocks: u64,
    /// Number of bytes that belong to no sound block.
    pub damaged_bytes: u64,
    /// Number of reported addresses without a function name.
    pub unresolved_addresses: u64,
    /// Number of reported addresses.
    pub reported_addresses: u64,
}

/// A file that was loaded into the target.
#[derive(Clone, PartialEq, Debug)]
pub struct LoadedModule {
    /// The module that [`Address::module_id`](crate::frame::Address::module_id) names.
    pub id: ModuleId,
    /// The path of the module.
    pub path: String,
    /// The module's build ID in hexadecimal; empty: it has none.
    pub build_id: String,
    /// First address of the mapping.
    pub start: u64,
    /// One past the last address of the mapping.
    pub end: u64,
    /// Runtime address minus link-time address.
    pub load_bias: u64,
}

impl Findings {
    /// The stacks that have a share in the leak of `site`, if `site` was judged together with its stacks; by
    /// falling share.
    pub fn parts_of<'a>(&'a self, site: &'a JudgedSite) -> Vec<&'a JudgedSite> {
        site::parts_of(&self.sites, site)
    }

    /// Groups the leaks in `listed` as a person counts them. A watched caller and its stacks are one leak.
    /// Places that leak in step below one function are also one leak. The sites in `listed` come by falling
    /// rate.
    pub fn of_leaks<'a>(&'a self, listed: impl Iterator<Item = &'a JudgedSite>) -> Vec<Finding<'a>> {
        finding::findings(group::groups(&self.sites, listed), &self.steps)
    }

    /// The findings among the leaks for which the gate has made one of these decisions.
    pub fn with_standing(&self, is: impl Fn(Standing) -> bool) -> Vec<Finding<'_>> {
        self.of_leaks(self.sites.iter().filter(|site| is(site.standing)))
    }

    /// The stacks that hold a site's leaked bytes.
    ///
    /// If the site was judged together with its stacks, these are the stacks by falling share. The site
    /// itself then has the bytes that it allocated while it was not watched. If the site was judged alone,
    /// the result is only the site's own stack.
    pub fn leaked_by_stack<'a>(&'a self, site: &'a JudgedSite) -> Vec<(&'a JudgedSite, u64)> {
        let bytes = site.judgement.leak_bytes;
        let parts = self.parts_of(site);
        if parts.is_empty() {
            return vec![(site, bytes)];
        }
        // The shares refer to the growth of all stacks together. A cast from float to integer saturates.
        let share = |part: &JudgedSite| (part.leak_share.unwrap_or(0.0) * bytes as f64).round() as u64;
        let mut all: Vec<_> = parts.into_iter().map(|part| (part, share(part))).collect();
        // The function rounds each share, so the sum may differ by one byte per share.
        let rest = bytes.saturating_sub(all.iter().map(|(_, bytes)| bytes).sum());
        if rest > all.len() as u64 {
            all.push((site, rest));
        }
        all.retain(|(_, bytes)| *bytes > 0);
        all
    }

    /// The module with this id.
    pub fn module(&self, id: ModuleId) -> Option<&LoadedModule> {
        self.modules.iter().find(|module| module.id == id)
    }

    /// The number of leaks that `--min-class` or `--strict` excludes from the list.
    pub fn unlisted_leaks(&self) -> u64 {
        let is_unlisted = |site: &&JudgedSite| site.is_leak() && site.standing == Standing::Unlisted;
        self.sites.iter().filter(is_unlisted).count() as u64
    }
}
