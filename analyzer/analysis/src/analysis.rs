//! One recording, judged: what the gate decides on and what the reports read.

use crate::judge::WithStacks;
use edleak_binary::Outcome;
use edleak_format::{ModuleId, SymbolFrame};
use edleak_model::classify::{Judgement, Verdict};
use edleak_model::growth_kind::ProcessGrowth;
use edleak_model::regression::LeakFactor;
use std::fmt;
use std::sync::Arc;

/// What a site is called in its input: a number in a trace, a number or a string in series lines.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SiteLabel {
    /// The id of a site of a trace.
    Number(u64),
    /// Any other name.
    Text(String),
}

impl fmt::Display for SiteLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// One recording, judged.
#[derive(Debug)]
pub struct Analysis {
    /// The input as the user named it.
    pub source: String,
    /// What was recorded, for how long, and how it ended.
    pub header: Header,
    /// What was seen and what was missed.
    pub summary: Summary,
    /// What kind of growth the process has.
    pub growth: ProcessGrowth,
    /// Every site, leaks first, by falling rate; ties in order of their label.
    pub sites: Vec<JudgedSite>,
    /// What the reported addresses were symbolized with, by module.
    pub outcomes: Vec<Outcome>,
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
    /// Calls and allocations that were not counted.
    pub uncounted_allocs: u64,
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

/// Counters of one site at the end of the recording; `None` where the input does not say.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Live bytes.
    pub live_bytes: u64,
    /// Live allocations.
    pub live_count: Option<u64>,
    /// Allocations.
    pub allocs: Option<u64>,
    /// Frees.
    pub frees: Option<u64>,
    /// Bytes allocated.
    pub allocated_bytes: Option<u64>,
    /// Bytes freed.
    pub freed_bytes: Option<u64>,
}

/// What a site stands for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Kind {
    /// A caller.
    #[default]
    Caller,
    /// One full stack of a watched caller.
    Stack,
    /// Everything that found no place in the site table.
    Other,
    /// The known leak of `--inject-leak`.
    Injected,
}

/// One site and its verdict.
#[derive(Clone, Debug)]
pub struct JudgedSite {
    /// Its name.
    pub label: SiteLabel,
    /// The caller, for a stack of a watched site.
    pub parent: Option<SiteLabel>,
    /// What it stands for.
    pub kind: Kind,
    /// The verdict.
    pub judgement: Judgement,
    /// The leak factor itself, where edLeak's formula judged.
    pub leak_factor: Option<LeakFactor>,
    /// A watched site and its stacks taken together.
    pub with_stacks: Option<Box<WithStacks>>,
    /// The verdict is that of all of them together.
    pub judged_with_stacks: bool,
    /// Of a stack whose caller was so judged: its share of the leaked bytes, 0 to 1.
    pub leak_share: Option<f64>,
    /// Counters at the end.
    pub totals: Totals,
    /// Live allocations at the last slice that was judged: the very last one may show the program's own clearing up.
    pub judged_count: Option<u64>,
    /// Live bytes at equally spaced instants.
    pub curve: Vec<f64>,
    /// When the survivors were born, oldest first.
    pub survivors: Vec<Survivor>,
    /// Where it is: return addresses, innermost first; one for a caller.
    pub stack: Vec<Address>,
    /// The stack goes on, but was not walked further.
    pub is_stack_cut: bool,
    /// What the gate made of it.
    pub standing: Standing,
}

/// Allocations of one birth epoch that are still live.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Survivor {
    /// Start of the epoch.
    pub from_s: f64,
    /// Its end.
    pub to_s: f64,
    /// Bytes that survive.
    pub bytes: u64,
    /// Allocations that survive.
    pub count: u64,
}

/// One return address, symbolized if it is reported.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Address {
    /// The return address in the target.
    pub address: u64,
    /// The module it lies in, in a trace.
    pub module_id: Option<ModuleId>,
    /// Its path.
    pub module: Option<String>,
    /// The module's build ID in hexadecimal, empty where it has none.
    pub build_id: String,
    /// The return address minus the module's load bias.
    pub offset: Option<u64>,
    /// Inlined frames first, innermost first; empty where no symbol is known.
    pub frames: Arc<[SymbolFrame]>,
}

/// What the gate made of a site.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Standing {
    /// Not asked for.
    #[default]
    Unlisted,
    /// Listed because it was asked for; does not fail the gate.
    Shown,
    /// A leak that fails the gate.
    Reported,
    /// A leak in the baseline as well, and not faster now.
    Known,
    /// A leak hidden by this rule of the suppressions.
    Suppressed(usize),
    /// A leak within the budget.
    Tolerated,
}

impl Standing {
    /// The word for it in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unlisted => "unlisted",
            Self::Shown => "shown",
            Self::Reported => "reported",
            Self::Known => "known",
            Self::Suppressed(_) => "suppressed",
            Self::Tolerated => "tolerated",
        }
    }
}

impl Analysis {
    /// The stacks that a site was judged together with and that have a share in the leak, by falling share.
    pub fn parts_of<'a>(&'a self, site: &'a JudgedSite) -> Vec<&'a JudgedSite> {
        if !site.judged_with_stacks {
            return Vec::new();
        }
        let is_part =
            |part: &&JudgedSite| part.leak_share.is_some() && part.parent.as_ref() == Some(&site.label);
        let mut parts: Vec<&JudgedSite> = self.sites.iter().filter(is_part).collect();
        parts.sort_by(|a, b| b.leak_share.unwrap_or(0.0).total_cmp(&a.leak_share.unwrap_or(0.0)));
        parts
    }
}

impl JudgedSite {
    /// Whether the verdict is a leak.
    pub fn is_leak(&self) -> bool {
        self.judgement.verdict == Verdict::Leak
    }

    /// Live bytes where judging ended.
    pub fn judged_bytes(&self) -> f64 {
        self.curve.last().copied().unwrap_or(0.0)
    }

    /// By how much its live bytes grew over its curve.
    pub fn growth(&self) -> f64 {
        self.curve.last().copied().unwrap_or(0.0) - self.curve.first().copied().unwrap_or(0.0)
    }

    /// Every frame, innermost first: inlined ones, and addresses without symbols.
    pub fn frames(&self) -> impl Iterator<Item = SiteFrame<'_>> + Clone {
        frames(&self.stack)
    }

    /// What a person calls the site: the function of its [headline](Self::headline).
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Injected => INJECTED_NAME.into(),
            Kind::Other => "(sites beyond the site table)".into(),
            Kind::Caller | Kind::Stack => {
                self.headline().map_or_else(|| format!("site {}", self.label), |frame| frame.name())
            }
        }
    }

    /// The frame to look at first: the innermost one that is not a language's runtime inlined into the program (the inside of a
    /// `Vec` or a `std::string` is never what leaks).
    pub fn headline(&self) -> Option<SiteFrame<'_>> {
        let is_own = |frame: &SiteFrame<'_>| !frame.is_runtime();
        self.frames().find(is_own).or_else(|| self.frames().next())
    }
}

/// What the known leak of `--inject-leak` is called.
pub const INJECTED_NAME: &str = "edleak_injected_leak";

/// Every frame of these addresses: inlined ones, and addresses without symbols.
pub fn frames(stack: &[Address]) -> impl Iterator<Item = SiteFrame<'_>> + Clone {
    stack.iter().flat_map(|address| {
        let unresolved = address.frames.is_empty().then_some(SiteFrame { address, frame: None });
        address.frames.iter().map(move |frame| SiteFrame { address, frame: Some(frame) }).chain(unresolved)
    })
}

/// One frame of a site's stack, with the address it lies at.
#[derive(Clone, Copy, Debug)]
pub struct SiteFrame<'a> {
    /// The return address.
    pub address: &'a Address,
    /// The frame; `None` where no symbol is known.
    pub frame: Option<&'a SymbolFrame>,
}

impl<'a> SiteFrame<'a> {
    /// The function, if it is known.
    pub fn function(self) -> Option<&'a str> {
        self.frame?.function.as_deref()
    }

    /// Code of a language's runtime or standard library.
    pub fn is_runtime(self) -> bool {
        const FUNCTIONS: [&str; 12] = [
            "std::",
            "alloc::",
            "core::",
            "hashbrown::",
            "__gnu_cxx::",
            "operator new",
            "__rust_",
            "__rdl_",
            "<alloc::",
            "<std::",
            "<core::",
            "<hashbrown::",
        ];
        const FILES: [&str; 7] = [
            "/rustc/",
            "/library/alloc/src/",
            "/library/std/src/",
            "/usr/include/c++/",
            // What the headers of glibc inline when they fortify: getline, asprintf, …
            "-linux-gnu/bits/",
            "/usr/include/bits/",
            "/include/rtld-malloc.h",
        ];
        let function = self.function().unwrap_or_default();
        let file = self.place().map_or("", |(file, _)| file);
        FUNCTIONS.iter().any(|start| function.starts_with(start))
            || FILES.iter().any(|part| file.contains(part))
    }

    /// File and line, if they are known. Line 0 stands for an unknown line.
    pub fn place(self) -> Option<(&'a str, u32)> {
        let frame = self.frame?;
        Some((frame.file.as_deref()?, frame.line))
    }

    /// The function, or else `module+0x12`, or else the bare address.
    pub fn name(self) -> String {
        match (self.function(), &self.address.module, self.address.offset) {
            (Some(function), _, _) => function.to_owned(),
            (None, Some(module), Some(offset)) => format!("{}+{offset:#x}", base_name(module)),
            (None, ..) => format!("{:#x}", self.address.address),
        }
    }
}

/// The last component of a path.
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}
