//! JSON: a stable format. Names never change; new names may be added.
//!
//! One recording is one object. Several recordings are `{"format_version":1,"traces":[…]}` with one such
//! object each. All sizes are exact integers; a value that the input does not give is null. Without `--all`
//! only the listed sites appear. A site that was judged together with its stacks is followed by the stacks
//! that have a share in the leak. Each of these stacks has its `parent` and `leak_share`.
//!
//! `findings` are the leaks as the text report counts them, each with its parts. `summary.leaks` is the number
//! of findings that fail the gate; `--top` shortens both lists, but not this number.

use super::{CURVE_COLUMNS, Exporter, Report, why_of};
use edleak_analysis::baseline::FORMAT_VERSION;
use edleak_analysis::finding::{Finding, Together};
use edleak_analysis::findings::{Findings, Header, Summary};
use edleak_analysis::frame::{GENERATED_NAME, frames};
use edleak_analysis::gate::{Outcome, RuleUse, outcome, too_little};
use edleak_analysis::group::Group;
use edleak_analysis::history::Peak;
use edleak_analysis::mapped::{Mapped, Unseen};
use edleak_analysis::per_mark::{JudgedMark, MarkSeen, PerMark, SitePerMark};
use edleak_analysis::pools::{NamedPools, Pools};
use edleak_analysis::site::{JudgedSite, Kind, SiteLabel, Standing};
use edleak_model::classify::{Confidence, Verdict};
use edleak_model::growth_kind::{FreeBytes, ProcessGrowth};
use edleak_model::iterations::Verdict as OfIterations;
use serde::Serialize;
use std::collections::HashMap;
use std::io::{self, Write};

/// The JSON exporter.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Exporter for Json {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        match report.analyses {
            [analysis] => {
                let document =
                    Document { format_version: FORMAT_VERSION, trace: TraceJson::of(report, analysis) };
                serde_json::to_writer(&mut *out, &document)?;
            }
            analyses => {
                let traces = analyses.iter().map(|analysis| TraceJson::of(report, analysis)).collect();
                serde_json::to_writer(&mut *out, &Documents { format_version: FORMAT_VERSION, traces })?;
            }
        }
        writeln!(out)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    format_version: u32,
    #[serde(flatten)]
    trace: TraceJson<'a>,
}

#[derive(Serialize)]
struct Documents<'a> {
    format_version: u32,
    traces: Vec<TraceJson<'a>>,
}

#[derive(Serialize)]
struct TraceJson<'a> {
    trace: HeaderJson<'a>,
    summary: SummaryJson<'a>,
    growth: GrowthJson,
    /// The totals of the domain of mapped memory; null: the trace does not have the domain.
    mapped: Option<MappedJson<'a>>,
    /// The totals of the domain of pools; null: the program has no pool of edleak.h, or it was not recorded.
    pools: Option<PoolsJson<'a>>,
    damage: DamageJson,
    marks: Vec<MarkJson<'a>>,
    /// The marks that judge the sites; null: the verdicts are by time.
    per_mark: Option<PerMarkJson<'a>>,
    findings: Vec<FindingJson<'a>>,
    sites: Vec<SiteJson<'a>>,
}

/// A leak as a person counts it; the text report gives it a number.
#[derive(Serialize)]
struct FindingJson<'a> {
    name: String,
    /// `step` if several places are one finding because they grow at the same instants; null for a single
    /// place.
    together: Option<&'static str>,
    /// The function below which all parts lie; null: unknown.
    below: Option<FrameJson<'a>>,
    headline: Option<FrameJson<'a>>,
    class: &'static str,
    confidence: Option<&'static str>,
    standing: &'static str,
    why: String,
    leak_bytes: u64,
    leak_count: Option<u64>,
    rate_bytes_per_s: f64,
    began_s: f64,
    freed_at_end: bool,
    fingerprint: String,
    parts: Vec<PartJson<'a>>,
}

/// A place of a finding.
#[derive(Serialize)]
struct PartJson<'a> {
    name: String,
    headline: Option<FrameJson<'a>>,
    /// The caller of malloc.
    site: LabelJson<'a>,
    /// The stacks of the place that leak here.
    stacks: Vec<LabelJson<'a>>,
    share: f64,
    leak_bytes: u64,
    leak_count: Option<u64>,
    rate_bytes_per_s: f64,
}

#[derive(Serialize)]
struct HeaderJson<'a> {
    source: &'a str,
    command: &'a [String],
    pid: u32,
    started_unix_ns: u64,
    duration_s: f64,
    slices: u64,
    judged_slices: u64,
    period_s: f64,
    complete: bool,
    attached: bool,
    end: Option<&'a str>,
    recorder: &'a str,
    machine: &'a str,
}

#[derive(Serialize)]
struct SummaryJson<'a> {
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
struct GrowthJson {
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
struct MarkJson<'a> {
    name: &'a str,
    name_cut: bool,
    count: u64,
    slices: u64,
    first_s: f64,
    last_s: f64,
}

#[derive(Serialize)]
struct PerMarkJson<'a> {
    pattern: &'a str,
    unnamed_marks: u64,
    marks: Vec<JudgedMarkJson<'a>>,
}

#[derive(Serialize)]
struct JudgedMarkJson<'a> {
    name: &'a str,
    iterations: u64,
    warm_up: u64,
    too_few: Option<&'a str>,
}

#[derive(Serialize)]
struct SitePerMarkJson<'a> {
    mark: &'a str,
    verdict: &'static str,
    exact: bool,
    judged_iterations: u64,
    bytes_per_iteration: f64,
    allocations_per_iteration: f64,
    left_bytes: u64,
    left_allocations: u64,
    why: &'a str,
    needed_iterations: Option<u64>,
}

#[derive(Serialize)]
struct MappedJson<'a> {
    sites: u64,
    live_bytes: u64,
    live_count: u64,
    resident_bytes: u64,
    allocator_bytes: u64,
    lost_events: u64,
    unseen_bytes: u64,
    unseen_rate_bytes_per_s: f64,
    unseen_names: Vec<NamedJson<'a>>,
    unseen_sentence: Option<String>,
}

/// The bytes of pools are also in the heap or in mapped memory, so no sum in `summary` contains them.
#[derive(Serialize)]
struct PoolsJson<'a> {
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

#[derive(Serialize)]
struct NamedJson<'a> {
    name: &'a str,
    bytes: u64,
}

#[derive(Serialize)]
struct DamageJson {
    blocks: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct SiteJson<'a> {
    id: LabelJson<'a>,
    parent: Option<LabelJson<'a>>,
    kind: &'static str,
    /// `heap`, `mapping` or `pool`. In the domain `mapping`, bytes are address space and allocations are mappings.
    /// In the domain `pool`, allocations are objects, whose bytes are also in one of the other domains.
    domain: &'static str,
    /// The name of the pools, empty if they have none; null in other domains.
    pool: Option<&'a str>,
    name: String,
    class: &'static str,
    verdict: &'static str,
    confidence: Option<&'static str>,
    standing: &'static str,
    why: &'a [String],
    record_longer_s: Option<f64>,
    judged_with_stacks: bool,
    /// The memory that each iteration leaves behind; null: the verdict is by time.
    per_mark: Option<SitePerMarkJson<'a>>,
    leak_share: Option<f64>,
    leak_bytes: i128,
    leak_count: Option<u64>,
    leak_factor: Option<LeakFactorJson>,
    rate_bytes_per_s: f64,
    began_s: f64,
    live_bytes: u64,
    live_count: Option<u64>,
    allocs: Option<u64>,
    frees: Option<u64>,
    allocated_bytes: Option<u64>,
    freed_bytes: Option<u64>,
    /// Resident and swapped bytes at the end, for a site that maps memory; null: unknown.
    resident_bytes: Option<u64>,
    curve: Vec<u64>,
    /// The greatest number of live bytes at any slice; null: unknown.
    peak_bytes: Option<u64>,
    peak_s: Option<f64>,
    survivors: Vec<SurvivorJson>,
    addresses: u64,
    stack_cut: bool,
    stack: Vec<FrameJson<'a>>,
}

/// edLeak's coefficients of c0·x² + c1·x + c2 over the scaled series, and the factors of the scaling.
#[derive(Serialize)]
struct LeakFactorJson {
    coef: [f64; 3],
    min_bytes: u64,
    max_bytes: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum LabelJson<'a> {
    Number(u64),
    Text(&'a str),
}

#[derive(Serialize)]
struct SurvivorJson {
    from_s: f64,
    to_s: f64,
    bytes: u64,
    count: u64,
}

#[derive(Serialize)]
pub(crate) struct FrameJson<'a> {
    address: String,
    module: Option<&'a str>,
    build_id: Option<&'a str>,
    offset: Option<String>,
    function: Option<&'a str>,
    file: Option<&'a str>,
    line: u32,
    inlined: bool,
}

impl<'a> TraceJson<'a> {
    fn of(report: &'a Report<'_>, analysis: &'a Findings) -> Self {
        let Header {
            command,
            pid,
            started_unix_ns,
            duration_s,
            slices,
            judged_slices,
            period_s,
            complete,
            before,
            end,
            recorder,
            machine,
            is_replaced: _, // is part of `end` and `too_little`, in words
        } = &analysis.header;
        let histories = analysis.history.iter().flat_map(|history| &history.sites);
        let peaks: HashMap<&SiteLabel, Peak> = histories.map(|known| (&known.label, known.peak)).collect();
        Self {
            trace: HeaderJson {
                source: &analysis.source,
                command,
                pid: *pid,
                started_unix_ns: *started_unix_ns,
                duration_s: *duration_s,
                slices: *slices,
                judged_slices: *judged_slices,
                period_s: *period_s,
                complete: *complete,
                attached: before.is_some(),
                end: end.as_deref(),
                recorder,
                machine,
            },
            summary: summary_of(report, analysis),
            growth: growth_of(&analysis.growth),
            mapped: analysis.mapped.as_ref().map(mapped_of),
            pools: analysis.pools.as_ref().map(pools_of),
            damage: DamageJson {
                blocks: analysis.summary.damaged_blocks,
                bytes: analysis.summary.damaged_bytes,
            },
            marks: analysis.marks.iter().map(MarkJson::of).collect(),
            per_mark: analysis.per_mark.as_ref().map(PerMarkJson::of),
            findings: report.findings(analysis).iter().map(FindingJson::of).collect(),
            sites: report
                .with_parts(analysis)
                .into_iter()
                .map(|site| SiteJson::of(site, peaks.get(&site.label).copied()))
                .collect(),
        }
    }
}

fn summary_of<'a>(report: &'a Report<'_>, analysis: &'a Findings) -> SummaryJson<'a> {
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
        known_leaks: entries(|standing| standing == Standing::Known),
        suppressed_leaks: entries(|standing| matches!(standing, Standing::Suppressed(_))),
        tolerated_leaks: entries(|standing| standing == Standing::Tolerated),
        unlisted_leaks: analysis.unlisted_leaks(),
        unused_suppressions: texts(RuleUse::Unused),
        exceeded_suppressions: texts(RuleUse::Exceeded),
    }
}

fn growth_of(growth: &ProcessGrowth) -> GrowthJson {
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

fn mapped_of(mapped: &Mapped) -> MappedJson<'_> {
    let unseen = mapped.unseen.as_ref();
    let names = unseen.map_or(&[][..], |unseen| &unseen.names);
    MappedJson {
        sites: mapped.sites,
        live_bytes: mapped.live_bytes,
        live_count: mapped.live_count,
        resident_bytes: mapped.resident_bytes,
        allocator_bytes: mapped.allocator_bytes,
        lost_events: mapped.lost_events,
        unseen_bytes: unseen.map_or(0, |unseen| unseen.bytes),
        unseen_rate_bytes_per_s: unseen.map_or(0.0, |unseen| unseen.rate_bytes_per_s),
        unseen_names: names.iter().map(|(name, bytes)| NamedJson { name, bytes: *bytes }).collect(),
        unseen_sentence: unseen.map(Unseen::sentence),
    }
}

fn pools_of(pools: &Pools) -> PoolsJson<'_> {
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

impl<'a> From<&'a SiteLabel> for LabelJson<'a> {
    fn from(label: &'a SiteLabel) -> Self {
        match label {
            SiteLabel::Number(number) => Self::Number(*number),
            SiteLabel::Text(text) => Self::Text(text),
        }
    }
}

impl<'a> MarkJson<'a> {
    fn of(mark: &'a MarkSeen) -> Self {
        let MarkSeen { name, is_cut, count, slices, first_s, last_s } = mark;
        Self { name, name_cut: *is_cut, count: *count, slices: *slices, first_s: *first_s, last_s: *last_s }
    }
}

impl<'a> PerMarkJson<'a> {
    fn of(per_mark: &'a PerMark) -> Self {
        let judged = |mark: &'a JudgedMark| JudgedMarkJson {
            name: &mark.name,
            iterations: mark.iterations,
            warm_up: mark.warm_up,
            too_few: mark.too_few.as_deref(),
        };
        Self {
            pattern: &per_mark.pattern,
            unnamed_marks: per_mark.unnamed,
            marks: per_mark.marks.iter().map(judged).collect(),
        }
    }
}

impl<'a> SitePerMarkJson<'a> {
    fn of(per_mark: &'a SitePerMark) -> Self {
        let found = &per_mark.iterations;
        Self {
            mark: &per_mark.mark,
            verdict: match found.verdict {
                OfIterations::Leak => "leak",
                OfIterations::Undecided => "undecided",
                OfIterations::Clean => "no-leak",
            },
            exact: found.is_exact,
            judged_iterations: found.judged,
            bytes_per_iteration: found.bytes,
            allocations_per_iteration: found.allocations,
            left_bytes: found.left_bytes,
            left_allocations: found.left_count,
            why: &found.why,
            needed_iterations: found.needed,
        }
    }
}

impl<'a> SiteJson<'a> {
    fn of(site: &'a JudgedSite, peak: Option<Peak>) -> Self {
        let (judgement, totals) = (&site.judgement, &site.totals);
        let survivor = |s: &edleak_analysis::site::Survivor| SurvivorJson {
            from_s: s.from_s,
            to_s: s.to_s,
            bytes: s.bytes,
            count: s.count,
        };
        Self {
            id: (&site.label).into(),
            parent: site.parent.as_ref().map(LabelJson::from),
            kind: kind_name(site.kind),
            domain: site.domain().as_str(),
            pool: site.pool.as_deref(),
            name: site.name(),
            class: judgement.class.name(),
            verdict: verdict_name(judgement.verdict),
            confidence: judgement.confidence.map(confidence_name),
            standing: match site.standing {
                Standing::Unlisted if site.leak_share.is_some() => "part",
                standing => standing.as_str(),
            },
            why: &judgement.why,
            record_longer_s: judgement.record_longer_s,
            judged_with_stacks: site.judged_with_stacks,
            per_mark: site.per_mark.as_deref().map(SitePerMarkJson::of),
            leak_share: site.leak_share,
            // edLeak's formula gives leaked bytes for every class, and negative bytes if memory shrank.
            leak_bytes: site
                .leak_factor
                .map_or(i128::from(judgement.leak_bytes), |factor| factor.leak_bytes.into()),
            leak_count: judgement.leak_count,
            leak_factor: site.leak_factor.map(|factor| LeakFactorJson {
                coef: factor.coef,
                min_bytes: factor.min_bytes,
                max_bytes: factor.max_bytes,
            }),
            rate_bytes_per_s: judgement.rate_bytes_per_s,
            began_s: judgement.began_s,
            live_bytes: totals.live_bytes,
            live_count: totals.live_count,
            allocs: totals.allocs,
            frees: totals.frees,
            allocated_bytes: totals.allocated_bytes,
            freed_bytes: totals.freed_bytes,
            resident_bytes: site.resident_bytes,
            // The values are means of buckets. A cast from float to integer saturates.
            curve: site.levels.at(CURVE_COLUMNS).iter().map(|bytes| bytes.round() as u64).collect(),
            peak_bytes: peak.map(|peak| peak.live_bytes),
            peak_s: peak.map(|peak| peak.at_s),
            survivors: site.survivors.iter().map(survivor).collect(),
            addresses: site.addresses,
            stack_cut: site.is_stack_cut,
            stack: frames(&site.stack).map(FrameJson::of).collect(),
        }
    }
}

impl<'a> FrameJson<'a> {
    pub(crate) fn of(frame: edleak_analysis::frame::SiteFrame<'a>) -> Self {
        let address = frame.address;
        Self {
            address: format!("{:#x}", address.address),
            module: address.module.as_deref(),
            build_id: address.module.is_some().then_some(address.build_id.as_str()),
            offset: address.offset.map(|offset| format!("{offset:#x}")),
            function: frame.function().or(address.is_generated.then_some(GENERATED_NAME)),
            file: frame.frame.and_then(|frame| frame.file.as_deref()),
            line: frame.frame.map_or(0, |frame| frame.line),
            inlined: frame.frame.is_some_and(|frame| frame.is_inlined),
        }
    }
}

impl<'a> FindingJson<'a> {
    fn of(finding: &Finding<'a>) -> Self {
        let lead = finding.lead();
        // A cast from float to integer saturates.
        let bytes = |bytes: f64| bytes.round() as u64;
        let part = |part: &Group<'a>| PartJson {
            name: part.name(),
            headline: part.headline().map(FrameJson::of),
            site: (&part.site.label).into(),
            stacks: part.shares.iter().filter_map(|share| Some((&share.site?.label).into())).collect(),
            share: part.leak_bytes / finding.leak_bytes().max(1.0),
            leak_bytes: bytes(part.leak_bytes),
            leak_count: part.leak_count,
            rate_bytes_per_s: part.rate_bytes_per_s,
        };
        Self {
            name: finding.name(),
            together: finding.together.map(|_| "step"),
            below: match finding.together {
                Some(Together::Below(frame)) => Some(FrameJson::of(frame)),
                _ => None,
            },
            headline: finding.headline().map(FrameJson::of),
            class: lead.judgement.class.name(),
            confidence: lead.judgement.confidence.map(confidence_name),
            standing: lead.standing.as_str(),
            why: why_of(finding),
            leak_bytes: bytes(finding.leak_bytes()),
            leak_count: finding.leak_count(),
            rate_bytes_per_s: finding.rate_bytes_per_s(),
            began_s: finding.began_s(),
            freed_at_end: finding.is_freed_at_end(),
            fingerprint: finding.fingerprint(),
            parts: finding.parts.iter().map(part).collect(),
        }
    }
}

fn confidence_name(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Suspect => "suspect",
        Confidence::Strict => "strict",
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Caller => "caller",
        Kind::Stack => "stack",
        Kind::Other => "other",
        Kind::Injected => "injected",
        Kind::Mapping => "mapping",
        Kind::Allocator => "allocator",
        Kind::Pool => "pool",
    }
}

/// The word for the verdict in JSON.
pub(crate) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Leak => "leak",
        Verdict::NoLeak => "no-leak",
        Verdict::Undecided => "undecided",
    }
}
