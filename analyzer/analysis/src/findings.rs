//! The findings of one recording: all that the gate decides on and that the reports read, so that no report computes anything.

use crate::group::{self, Group};
use crate::history::History;
use crate::own_heap::OwnHeap;
use crate::site::{self, JudgedSite, Standing};
use crate::unexplained::Unexplained;
use edleak_binary::Outcome;
use edleak_format::ModuleId;
use edleak_model::growth_kind::{ProcessGrowth, ProcessSeries};
use edleak_model::work::Work;
use std::sync::Arc;

/// One recording, judged.
#[derive(Debug)]
pub struct Findings {
    /// The input as the user named it.
    pub source: String,
    /// What was recorded, for how long, and how it ended.
    pub header: Header,
    /// What was seen and what was missed.
    pub summary: Summary,
    /// What kind of growth the process has.
    pub growth: ProcessGrowth,
    /// Growth that no site explains.
    pub unexplained: Option<Unexplained>,
    /// Runtimes and allocators in the process that do not take their memory from malloc, with what to do about it.
    pub own_heaps: Vec<OwnHeap>,
    /// The processor time of its children is most of all that was used.
    pub children_did_the_work: bool,
    /// Every site, leaks first, by falling rate; ties in order of their label.
    pub sites: Vec<JudgedSite>,
    /// The modules of the target, with the addresses they were loaded at; empty where the input does not say.
    pub modules: Vec<LoadedModule>,
    /// Live and resident bytes of the process over the record; empty where the input does not say.
    pub process: ProcessSeries,
    /// What the whole program did over the record.
    pub work: Arc<Work>,
    /// What the reported addresses were symbolized with, by module.
    pub outcomes: Vec<Outcome>,
    /// Every site over the record, where a report asks for it.
    pub history: Option<Box<History>>,
}

/// What was recorded, for how long, and how it ended.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Header {
    /// The program and its arguments; empty where the input does not say.
    pub command: Vec<String>,
    /// The process; 0 where the input does not say.
    pub pid: u32,
    /// Wall-clock start, nanoseconds since 1970; 0 where the input does not say.
    pub started_unix_ns: u64,
    /// From the start to the last slice.
    pub duration_s: f64,
    /// Slices in the input.
    pub slices: u64,
    /// Slices that the verdicts rest on: those at even distance.
    pub judged_slices: u64,
    /// Distance of those slices.
    pub period_s: f64,
    /// The recording was ended in order, and nothing of it is damaged.
    pub complete: bool,
    /// How the recording ended, in words.
    pub end: Option<String>,
    /// It ended because the process became a program that was not recorded.
    pub is_replaced: bool,
    /// Version of edleak-record that wrote the trace; empty where the input does not say.
    pub recorder: String,
    /// Machine of the target, as in `uname -m`; empty where the input does not say.
    pub machine: String,
}

/// What was seen and what was missed.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Summary {
    /// Sites.
    pub sites: u64,
    /// Sites without a verdict.
    pub undecided: u64,
    /// Live bytes of all sites at the end.
    pub live_bytes: u64,
    /// Live allocations of all sites at the end.
    pub live_count: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Allocations.
    pub allocs: u64,
    /// Frees.
    pub frees: u64,
    /// Frees of addresses that no hook ever handed out.
    pub unknown_frees: u64,
    /// Slices that were due and not taken.
    pub lost_slices: u64,
    /// Share of the record for which slices are missing, so that a straight line stands in, 0 to 1.
    pub missing_share: f64,
    /// The same of the longest time in one piece.
    pub longest_gap_share: f64,
    /// Allocations that were not counted: there was no memory to remember them.
    pub untracked_allocs: u64,
    /// Modules loaded or unloaded unseen: sites in them may have no name.
    pub lost_module_events: u64,
    /// Allocations beyond the site table, counted in the site of kind `Other`.
    pub other_site_allocs: u64,
    /// Stacks of watched sites that found no place.
    pub lost_stacks: u64,
    /// Images and child processes that could not be recorded.
    pub unrecorded_images: u64,
    /// Child processes that nobody asked for: at least so many.
    pub unasked_children: u64,
    /// Blocks of the trace that were damaged and skipped.
    pub damaged_blocks: u64,
    /// Bytes that belong to no sound block.
    pub damaged_bytes: u64,
    /// Reported addresses without a function name.
    pub unresolved_addresses: u64,
    /// Reported addresses.
    pub reported_addresses: u64,
}

/// A file that was loaded into the target.
#[derive(Clone, PartialEq, Debug)]
pub struct LoadedModule {
    /// The module that [`Address::module_id`](crate::frame::Address::module_id) names.
    pub id: ModuleId,
    /// Its path.
    pub path: String,
    /// Its build ID in hexadecimal, empty where it has none.
    pub build_id: String,
    /// First address of the mapping.
    pub start: u64,
    /// One past its last address.
    pub end: u64,
    /// Runtime address minus link-time address.
    pub load_bias: u64,
}

impl Findings {
    /// The stacks that a site was judged together with and that have a share in the leak, by falling share.
    pub fn parts_of<'a>(&'a self, site: &'a JudgedSite) -> Vec<&'a JudgedSite> {
        site::parts_of(&self.sites, site)
    }

    /// The leaks among `listed`, which come by falling rate, as a person counts them: a watched caller and its stacks are one.
    pub fn groups<'a>(&'a self, listed: impl Iterator<Item = &'a JudgedSite>) -> Vec<Group<'a>> {
        group::groups(&self.sites, listed)
    }

    /// The stacks that a site's leaked bytes belong to: the site's own, or, where it was judged together with its stacks, those, by
    /// their share. The site itself has what it allocated while it was not watched.
    pub fn leaked_by_stack<'a>(&'a self, site: &'a JudgedSite) -> Vec<(&'a JudgedSite, u64)> {
        let bytes = site.judgement.leak_bytes;
        let parts = self.parts_of(site);
        if parts.is_empty() {
            return vec![(site, bytes)];
        }
        // The shares are of what all of them grew by; a float to integer cast saturates.
        let share = |part: &JudgedSite| (part.leak_share.unwrap_or(0.0) * bytes as f64).round() as u64;
        let mut all: Vec<_> = parts.into_iter().map(|part| (part, share(part))).collect();
        // The shares are rounded, a byte each.
        let rest = bytes.saturating_sub(all.iter().map(|(_, bytes)| bytes).sum());
        if rest > all.len() as u64 {
            all.push((site, rest));
        }
        all.retain(|(_, bytes)| *bytes > 0);
        all
    }

    /// The module of this id.
    pub fn module(&self, id: ModuleId) -> Option<&LoadedModule> {
        self.modules.iter().find(|module| module.id == id)
    }

    /// Sites with this standing.
    pub fn count_standing(&self, is: impl Fn(Standing) -> bool) -> u64 {
        self.sites.iter().filter(|site| is(site.standing)).count() as u64
    }

    /// Leaks below what `--min-class` or `--strict` asks for.
    pub fn unlisted_leaks(&self) -> u64 {
        let is_unlisted = |site: &&JudgedSite| site.is_leak() && site.standing == Standing::Unlisted;
        self.sites.iter().filter(is_unlisted).count() as u64
    }
}
