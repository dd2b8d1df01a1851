//! One site of a recording: its addresses in the code, its counters, its verdict, and the decision of the
//! gate.

use crate::frame::{Address, SiteFrame, frames};
use crate::marks::SitePerMark;
use edleak_format::SiteKind;
use edleak_model::classify::{Judgement, Verdict};
use edleak_model::levels::Levels;
use edleak_model::regression::LeakFactor;
use edleak_text::units;
use std::fmt;

/// The name of a site in the input. In a trace, the name of a site is a number; in series lines, the name is
/// a number or a string.
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

/// Counters of one site at the end of the recording; a counter is `None` if the input does not give this
/// counter.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Number of live bytes.
    pub live_bytes: u64,
    /// Number of live allocations.
    pub live_count: Option<u64>,
    /// Number of allocations.
    pub allocs: Option<u64>,
    /// Number of frees.
    pub frees: Option<u64>,
    /// Number of bytes allocated.
    pub allocated_bytes: Option<u64>,
    /// Number of bytes freed.
    pub freed_bytes: Option<u64>,
}

/// The kind of a site.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Kind {
    /// A caller that allocates.
    #[default]
    Caller,
    /// One stack of a watched caller, from the caller to the outermost frame.
    Stack,
    /// A site that stands for all allocations whose own site did not fit into the site table.
    Other,
    /// The test leak that `--inject-leak` adds to the program.
    Injected,
    /// A caller that maps memory.
    Mapping,
    /// The mappings that an allocator makes for itself.
    Allocator,
    /// A caller that takes objects from the program's own pools.
    Pool,
}

impl Kind {
    /// The kind of a site that a trace has.
    pub(crate) fn of(recorded: SiteKind) -> Self {
        match recorded {
            SiteKind::Caller => Self::Caller,
            SiteKind::Stack => Self::Stack,
            SiteKind::Other => Self::Other,
            SiteKind::Injected => Self::Injected,
            SiteKind::Mapping => Self::Mapping,
            SiteKind::AllocatorMapping => Self::Allocator,
            SiteKind::Pool(_) => Self::Pool,
        }
    }

    /// The kind of memory that sites of this kind count.
    pub(crate) fn domain(self) -> Domain {
        match self {
            Self::Mapping | Self::Allocator => Domain::Mapping,
            Self::Pool => Domain::Pool,
            Self::Caller | Self::Stack | Self::Other | Self::Injected => Domain::Heap,
        }
    }
}

/// The kind of memory that a site counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Domain {
    /// Allocations on the heap; the size of an allocation is the number of requested bytes.
    #[default]
    Heap,
    /// Mappings; the size of a mapping is the number of bytes of its address space.
    Mapping,
    /// Objects that the program's own pools hand out.
    Pool,
}

impl Domain {
    /// All domains.
    pub const ALL: [Domain; 3] = [Self::Heap, Self::Mapping, Self::Pool];

    /// The word that JSON reports use for this kind of memory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Mapping => "mapping",
            Self::Pool => "pool",
        }
    }
}

/// One site and its verdict.
#[derive(Clone, Debug)]
pub struct JudgedSite {
    /// The name of the site in its input.
    pub label: SiteLabel,
    /// For a stack of a watched site: the label of the watched site. `None`: the site is not a stack of a
    /// watched site.
    pub parent: Option<SiteLabel>,
    /// The kind of the site.
    pub kind: Kind,
    /// The name of the pools from which this site takes objects; empty: the pools have no name; `None`: the
    /// site takes no objects from a pool.
    pub pool: Option<String>,
    /// The verdict on the site.
    pub judgement: Judgement,
    /// The leak factor; `None` if the site was not judged by edLeak's formula.
    pub leak_factor: Option<LeakFactor>,
    /// For a watched site (a site whose allocations are counted separately for each stack), the judgement on
    /// the site together with its stacks.
    pub with_stacks: Option<Box<WithStacks>>,
    /// Whether `judgement` is the judgement on the site together with its stacks, and not on the site alone.
    pub judged_with_stacks: bool,
    /// The stack's share of the leaked bytes, 0 to 1; `None` if its caller was not judged together with its
    /// stacks.
    pub leak_share: Option<f64>,
    /// The verdict by the iterations of a mark; `None`: the site is judged by time.
    pub per_mark: Option<Box<SitePerMark>>,
    /// The counters at the end of the recording.
    pub totals: Totals,
    /// For a site that maps memory: its number of resident and swapped bytes at the end of the recording.
    /// This number is an estimate: the share of the site's bytes that was resident or swapped at the last
    /// reading of /proc, times the live bytes at the end. `None`: no reading of /proc shows this site.
    pub resident_bytes: Option<u64>,
    /// For a site that maps memory, the pages that the program gave back with madvise; `None`: the program
    /// gave back no pages, or their number is unknown.
    pub given_back: Option<GivenBack>,
    /// Live bytes, as a curve over the time of the judged record.
    pub levels: Levels,
    /// The number of bytes by which the additional memory of the allocator grew. (The allocator holds more
    /// bytes for a site than the program requested.)
    pub(crate) block_growth_bytes: f64,
    /// For each birth epoch, the allocations of the site that are still live at the end; the oldest epoch
    /// comes first.
    pub survivors: Vec<Survivor>,
    /// The number of sites of the trace that were merged into this site, because they are the same code at
    /// several addresses.
    pub addresses: u64,
    /// The place of the site in the code: return addresses, innermost first. A site that is a caller has one
    /// address; a site that is a stack has several addresses. A caller of a pool has two addresses: the first
    /// is in the pool's own function, and the second is in the caller of that function.
    pub stack: Vec<Address>,
    /// Whether `stack` is not complete, because the recorder stopped reading the stack before its outermost
    /// frame.
    pub is_stack_cut: bool,
    /// The decision of the gate on this site.
    pub standing: Standing,
}

/// Pages that the program gave back with madvise and kept mapped.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GivenBack {
    /// Number of calls of madvise.
    pub calls: u64,
    /// Number of bytes of all pages that the program gave back with calls of madvise; a page counts even if
    /// it was not resident.
    pub bytes: u64,
}

impl GivenBack {
    /// Adds the calls of madvise, and the bytes that they gave back, of another site.
    pub(crate) fn add(&mut self, other: GivenBack) {
        self.calls = self.calls.saturating_add(other.calls);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// The text of the report about pages that were given back: `3.2 GiB were given back with madvise in 1,204
/// calls`.
impl fmt::Display for GivenBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = units::plural(self.calls, "call", "calls");
        write!(f, "{} were given back with madvise in {calls}", units::bytes(self.bytes as f64))
    }
}

/// The verdict and the curve of a watched site together with its stacks.
#[derive(Clone, Debug)]
pub struct WithStacks {
    /// The verdict on the sum of the curves of the site and its stacks.
    pub(crate) judgement: Judgement,
    /// Live bytes of the site and its stacks together, as a curve over the time of the record.
    pub levels: Levels,
}

/// Allocations of one birth epoch that are still live.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Survivor {
    /// Start of the birth epoch, in seconds since the recording began.
    pub from_s: f64,
    /// End of the birth epoch, in seconds since the recording began.
    pub to_s: f64,
    /// Number of bytes that are still live.
    pub bytes: u64,
    /// Number of allocations that are still live.
    pub count: u64,
}

/// The decision of the gate on a site.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Standing {
    /// The report does not list this site, because the options do not ask for it.
    #[default]
    Unlisted,
    /// The report lists the site because the options ask for it, but the site does not fail the build.
    Shown,
    /// The site is a leak that fails the build.
    Reported,
    /// The site is a leak that is also in the baseline, and its rate is not clearly higher than in the
    /// baseline.
    InBaseline,
    /// The site is a leak that a suppression rule hides; the number is the index of the rule.
    Suppressed(usize),
    /// The site is a leak, but all leaks of the recording together are within the budget.
    Tolerated,
}

impl Standing {
    /// The word that JSON reports use for this decision of the gate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unlisted => "unlisted",
            Self::Shown => "shown",
            Self::Reported => "reported",
            Self::InBaseline => "known",
            Self::Suppressed(_) => "suppressed",
            Self::Tolerated => "tolerated",
        }
    }
}

impl JudgedSite {
    /// Whether the verdict on the site is `Leak`.
    pub fn is_leak(&self) -> bool {
        self.judgement.verdict == Verdict::Leak
    }

    /// The kind of memory that this site counts.
    pub fn domain(&self) -> Domain {
        self.kind.domain()
    }

    /// Live bytes at the end of the judged record.
    pub(crate) fn judged_bytes(&self) -> f64 {
        self.levels.last()
    }

    /// The live bytes at the end of the judged record, minus the live bytes at its beginning.
    pub fn growth(&self) -> f64 {
        self.levels.last() - self.levels.first()
    }

    /// Every frame of the site, innermost first. Each inlined function is a frame of its own. An address
    /// without symbols gives one frame.
    pub fn frames(&self) -> impl Iterator<Item = SiteFrame<'_>> + Clone {
        frames(&self.stack)
    }

    /// A name of the site for people: the function of its [headline](Self::headline).
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Injected => INJECTED_NAME.into(),
            Kind::Other => "(sites beyond the site table)".into(),
            Kind::Caller | Kind::Stack | Kind::Mapping | Kind::Allocator | Kind::Pool => {
                self.headline().map_or_else(|| format!("site {}", self.label), |frame| frame.name())
            }
        }
    }

    /// The frame that the user should look at first: the innermost frame that is not part of a language's
    /// runtime. (A `Vec` or a `std::string` that was inlined into the program never causes a leak itself.)
    pub fn headline(&self) -> Option<SiteFrame<'_>> {
        let is_own = |frame: &SiteFrame<'_>| !frame.is_runtime();
        let outside = self.frames_outside_pool();
        outside.clone().find(is_own).or_else(|| outside.clone().next()).or_else(|| self.pool_function())
    }

    /// The frames of the site. If the site is a caller of a pool, the function leaves out edleak's own frames
    /// (`edleak_pool_…`) and the frame of the pool's function that calls edleak (for example `arena_alloc`).
    /// It also leaves out such a frame if the compiler inlined it, so that only the debug information shows
    /// it.
    fn frames_outside_pool(&self) -> impl Iterator<Item = SiteFrame<'_>> + Clone {
        let is_of_pool = self.kind == Kind::Pool;
        let outside = self.frames().skip_while(move |frame| is_of_pool && frame.is_pool_note());
        outside.skip(usize::from(is_of_pool))
    }

    /// If the site is a caller of a pool: the frame of the pool's function that calls edleak (for example
    /// `arena_alloc`). For any other site: the innermost frame.
    pub fn pool_function(&self) -> Option<SiteFrame<'_>> {
        self.frames().find(|frame| !frame.is_pool_note()).or_else(|| self.frames().next())
    }
}

/// The name of the test leak that `--inject-leak` adds to the program.
pub const INJECTED_NAME: &str = "edleak_injected_leak";

/// The stacks among `sites` that have a share in the leak of `site`, if `site` was judged together with its
/// stacks. The list is sorted by share, largest first.
pub(crate) fn parts_of<'a>(sites: &'a [JudgedSite], site: &'a JudgedSite) -> Vec<&'a JudgedSite> {
    if !site.judged_with_stacks {
        return Vec::new();
    }
    let is_part = |part: &&JudgedSite| part.leak_share.is_some() && part.parent.as_ref() == Some(&site.label);
    let mut parts: Vec<&JudgedSite> = sites.iter().filter(is_part).collect();
    parts.sort_by(|a, b| b.leak_share.unwrap_or(0.0).total_cmp(&a.leak_share.unwrap_or(0.0)));
    parts
}
