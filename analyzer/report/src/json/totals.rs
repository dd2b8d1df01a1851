//! JSON: the totals of a recording: its summary, the growth of the process, and the domains other than the
//! heap.

use crate::Report;
use edleak_analysis::analysis::{Analysis, Summary};
use edleak_analysis::gate::{Outcome, RuleUse, outcome, too_little};
use edleak_analysis::mapped::{Mapped, Unseen};
use edleak_analysis::pools::{NamedPools, Pools};
use edleak_analysis::site::Standing;
use edleak_analysis::uncounted::UncountedFunctions;
use edleak_model::growth_kind::ProcessGrowth;
use edleak_model::process_series::FreeBytes;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct SummaryJson<'a> {
    sites: u64,
    leaks: u64,
    undecided: u64,
    outcome: &'static str,
    unexplained_bytes: u64,
    unexplained_sites: u64,
    too_little: Option<String>,
    live_bytes: u64,
    live_count: u64,
    allocated_bytes: u64,
    freed_bytes: u64,
    allocs: u64,
    frees: u64,
    unknown_frees: u64,
    earlier_frees: u64,
    lost_slices: u64,
    missing_share: f64,
    longest_gap_share: f64,
    untracked_allocs: u64,
    lost_module_events: u64,
    other_site_allocs: u64,
    lost_stacks: u64,
    unrecorded_images: u64,
    unasked_children: u64,
    unresolved_addresses: u64,
    known_leaks: u64,
    suppressed_leaks: u64,
    tolerated_leaks: u64,
    unlisted_leaks: u64,
    unused_suppressions: Vec<&'a str>,
    exceeded_suppressions: Vec<&'a str>,
}

#[derive(Serialize)]
pub(super) struct GrowthJson {
    kind: &'static str,
    sentence: Option<String>,
    live_from_bytes: u64,
    live_to_bytes: u64,
    live_peak_bytes: u64,
    resident_from_bytes: u64,
    resident_to_bytes: u64,
    turnover_bytes: u64,
    free: Option<FreeJson>,
}

/// Free memory inside the arenas of malloc.
#[derive(Serialize)]
struct FreeJson {
    main_bytes: u64,
    other_bytes: u64,
    others: u64,
}

#[derive(Serialize)]
pub(super) struct MappedJson<'a> {
    sites: u64,
    live_bytes: u64,
    live_count: u64,
    resident_bytes: Option<u64>,
    allocator_bytes: u64,
    lost_events: u64,
    given_back_bytes: u64,
    given_back_calls: u64,
    lost_give_backs: u64,
    unseen_bytes: u64,
    unseen_rate_bytes_per_s: f64,
    unseen_names: Vec<NamedJson<'a>>,
    unseen_sentence: Option<String>,
}

#[derive(Serialize)]
struct NamedJson<'a> {
    name: &'a str,
    bytes: u64,
}

/// Functions of one module that allocate memory, but whose calls edleak did not count.
#[derive(Serialize)]
pub(super) struct UncountedJson<'a> {
    module: &'a str,
    functions: &'a [String],
}

/// The totals of pools. The bytes of pools are also counted in the heap or in mapped memory, so the sums in
/// `summary` do not contain these bytes a second time.
#[derive(Serialize)]
pub(super) struct PoolsJson<'a> {
    sites: u64,
    live_bytes: u64,
    live_count: u64,
    pools: u64,
    lost_events: u64,
    lost_resets: u64,
    unknown_frees: u64,
    names: Vec<NamedPoolsJson<'a>>,
}

#[derive(Serialize)]
struct NamedPoolsJson<'a> {
    name: &'a str,
    live_bytes: u64,
    live_count: u64,
}

pub(super) fn summary_of<'a>(report: &'a Report<'_>, analysis: &'a Analysis) -> SummaryJson<'a> {
    let texts = |of: RuleUse| report.rules_that_are(of).map(|rule| rule.text.as_str()).collect();
    let Summary {
        sites, undecided, live_bytes, live_count, allocated_bytes, freed_bytes, allocs, frees, ..
    } = analysis.summary;
    let summary = &analysis.summary;
    let entries = |is: fn(Standing) -> bool| analysis.with_standing(is).len() as u64;
    SummaryJson {
        sites,
        leaks: entries(|standing| standing == Standing::Reported),
        undecided,
        outcome: match outcome(analysis) {
            Outcome::Clean => "no-leak",
            Outcome::Leaks => "leak",
            Outcome::Undecided => "undecided",
        },
        unexplained_bytes: analysis.unexplained.map_or(0, |unexplained| unexplained.bytes),
        unexplained_sites: analysis.unexplained.map_or(0, |unexplained| unexplained.sites),
        too_little: too_little(analysis),
        live_bytes,
        live_count,
        allocated_bytes,
        freed_bytes,
        allocs,
        frees,
        unknown_frees: summary.unknown_frees,
        earlier_frees: summary.earlier_frees,
        lost_slices: summary.lost_slices,
        missing_share: summary.missing_share,
        longest_gap_share: summary.longest_gap_share,
        untracked_allocs: summary.untracked_allocs,
        lost_module_events: summary.lost_module_events,
        other_site_allocs: summary.other_site_allocs,
        lost_stacks: summary.lost_stacks,
        unrecorded_images: summary.unrecorded_images,
        unasked_children: summary.unrequested_children,
        unresolved_addresses: summary.unresolved_addresses,
        known_leaks: entries(|standing| standing == Standing::InBaseline),
        suppressed_leaks: entries(|standing| matches!(standing, Standing::Suppressed(_))),
        tolerated_leaks: entries(|standing| standing == Standing::Tolerated),
        unlisted_leaks: analysis.unlisted_leaks(),
        unused_suppressions: texts(RuleUse::Unused),
        exceeded_suppressions: texts(RuleUse::Exceeded),
    }
}

pub(super) fn growth_of(growth: &ProcessGrowth) -> GrowthJson {
    GrowthJson {
        kind: growth.kind.as_str(),
        sentence: growth.sentence(),
        live_from_bytes: growth.live_from_bytes,
        live_to_bytes: growth.live_to_bytes,
        live_peak_bytes: growth.live_peak_bytes,
        resident_from_bytes: growth.resident_from_bytes,
        resident_to_bytes: growth.resident_to_bytes,
        turnover_bytes: growth.turnover_bytes,
        free: growth.free.map(|FreeBytes { main_bytes, other_bytes, others }| FreeJson {
            main_bytes,
            other_bytes,
            others,
        }),
    }
}

pub(super) fn mapped_of(mapped: &Mapped) -> MappedJson<'_> {
    let unseen = mapped.unseen.as_ref();
    let names = unseen.map_or(&[][..], |unseen| &unseen.names);
    MappedJson {
        sites: mapped.sites,
        live_bytes: mapped.live_bytes,
        live_count: mapped.live_count,
        resident_bytes: mapped.resident_bytes,
        allocator_bytes: mapped.allocator_bytes,
        lost_events: mapped.lost_events,
        given_back_bytes: mapped.given_back.bytes,
        given_back_calls: mapped.given_back.calls,
        lost_give_backs: mapped.lost_give_backs,
        unseen_bytes: unseen.map_or(0, |unseen| unseen.bytes),
        unseen_rate_bytes_per_s: unseen.map_or(0.0, |unseen| unseen.rate_bytes_per_s),
        unseen_names: names.iter().map(|(name, bytes)| NamedJson { name, bytes: *bytes }).collect(),
        unseen_sentence: unseen.map(Unseen::sentence),
    }
}

pub(super) fn uncounted_of(functions: &UncountedFunctions) -> UncountedJson<'_> {
    UncountedJson { module: &functions.module, functions: &functions.names }
}

pub(super) fn pools_of(pools: &Pools) -> PoolsJson<'_> {
    let Pools { sites, live_bytes, live_count, pools, lost_events, lost_resets, unknown_frees, ref names } =
        *pools;
    let names = names.iter().map(NamedPoolsJson::of).collect();
    PoolsJson { sites, live_bytes, live_count, pools, lost_events, lost_resets, unknown_frees, names }
}

impl<'a> NamedPoolsJson<'a> {
    fn of(pools: &'a NamedPools) -> Self {
        Self { name: &pools.name, live_bytes: pools.live_bytes, live_count: pools.live_count }
    }
}
