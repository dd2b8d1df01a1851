//! One site of a recording: where it is, what it counted, its verdict, and its standing at the gate.

use crate::frame::{Address, SiteFrame, frames};
use edleak_model::classify::{Judgement, Verdict};
use edleak_model::levels::Levels;
use edleak_model::regression::LeakFactor;
use std::fmt;

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
    /// Live bytes over the record, up to where judging ended.
    pub levels: Levels,
    /// By how much the allocator's own share of its memory grew.
    pub block_growth_bytes: f64,
    /// When the survivors were born, oldest first.
    pub survivors: Vec<Survivor>,
    /// Sites of the trace that this one stands for: the same code at several addresses.
    pub addresses: u64,
    /// Where it is: return addresses, innermost first; one for a caller.
    pub stack: Vec<Address>,
    /// The stack goes on, but was not walked further.
    pub is_stack_cut: bool,
    /// What the gate made of it.
    pub standing: Standing,
}

/// A watched site and its stacks taken together.
#[derive(Clone, Debug)]
pub struct WithStacks {
    /// The verdict on the sum.
    pub judgement: Judgement,
    /// Live bytes of the sum over the record.
    pub levels: Levels,
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

impl JudgedSite {
    /// Whether the verdict is a leak.
    pub fn is_leak(&self) -> bool {
        self.judgement.verdict == Verdict::Leak
    }

    /// Live bytes where judging ended.
    pub fn judged_bytes(&self) -> f64 {
        self.levels.last()
    }

    /// By how much its live bytes grew over the record.
    pub fn growth(&self) -> f64 {
        self.levels.last() - self.levels.first()
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

/// The stacks among `sites` that `site` was judged together with and that have a share in the leak, by falling share.
pub(crate) fn parts_of<'a>(sites: &'a [JudgedSite], site: &'a JudgedSite) -> Vec<&'a JudgedSite> {
    if !site.judged_with_stacks {
        return Vec::new();
    }
    let is_part = |part: &&JudgedSite| part.leak_share.is_some() && part.parent.as_ref() == Some(&site.label);
    let mut parts: Vec<&JudgedSite> = sites.iter().filter(is_part).collect();
    parts.sort_by(|a, b| b.leak_share.unwrap_or(0.0).total_cmp(&a.leak_share.unwrap_or(0.0)));
    parts
}
