//! JSON: one judged site.

use crate::CURVE_COLUMNS;
use crate::json::marks::SitePerMarkJson;
use crate::json::place::{FrameJson, LabelJson};
use crate::json::words::{confidence_name, verdict_name};
use edleak_analysis::frame::frames;
use edleak_analysis::history::Peak;
use edleak_analysis::site::{JudgedSite, Kind, Standing, Survivor};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct SiteJson<'a> {
    id: LabelJson<'a>,
    parent: Option<LabelJson<'a>>,
    kind: &'static str,
    /// The kind of memory that the site allocates: `heap`, `mapping` or `pool`. In the domain `mapping`,
    /// bytes are bytes of address space, and allocations are mappings. In the domain `pool`, allocations are
    /// objects; the bytes of these objects are also counted in `heap` or in `mapping`.
    domain: &'static str,
    /// Only in the domain `pool`: the name of the pools from which the site gets its objects; empty if these
    /// pools have no name.
    pool: Option<&'a str>,
    name: String,
    class: &'static str,
    verdict: &'static str,
    confidence: Option<&'static str>,
    standing: &'static str,
    why: &'a [String],
    record_longer_s: Option<f64>,
    judged_with_stacks: bool,
    /// The memory that each iteration leaks. Null: the verdict is computed from time and not from marks.
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
    /// Only in the domain `mapping`: the resident and swapped bytes at the end of the recording; null if
    /// unknown.
    resident_bytes: Option<u64>,
    /// Bytes that the program returned to the kernel with madvise but kept mapped, summed over all calls.
    /// Null: the program returned no memory of this site with madvise.
    given_back_bytes: Option<u64>,
    given_back_calls: Option<u64>,
    curve: Vec<u64>,
    /// The greatest number of live bytes in any slice; null if unknown.
    peak_bytes: Option<u64>,
    peak_s: Option<f64>,
    survivors: Vec<SurvivorJson>,
    addresses: u64,
    stack_cut: bool,
    stack: Vec<FrameJson<'a>>,
}

/// Only with `--model edleak`: the coefficients of the parabola c0·x² + c1·x + c2 that edLeak fits to the
/// scaled series, and the numbers with which the series was scaled.
#[derive(Serialize)]
struct LeakFactorJson {
    coef: [f64; 3],
    min_bytes: u64,
    max_bytes: u64,
}

#[derive(Serialize)]
struct SurvivorJson {
    from_s: f64,
    to_s: f64,
    bytes: u64,
    count: u64,
}

impl<'a> SiteJson<'a> {
    pub(super) fn of(site: &'a JudgedSite, peak: Option<Peak>) -> Self {
        let (judgement, totals) = (&site.judgement, &site.totals);
        let survivor =
            |s: &Survivor| SurvivorJson { from_s: s.from_s, to_s: s.to_s, bytes: s.bytes, count: s.count };
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
            // With `--model edleak`, also a site that does not leak has a number of leaked bytes. This number
            // of bytes is negative if the site's memory became smaller.
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
            given_back_bytes: site.given_back.map(|given| given.bytes),
            given_back_calls: site.given_back.map(|given| given.calls),
            // The values of the curve are floats, because each value is the mean of several slices. If a
            // value is too large for a `u64`, the cast gives the greatest `u64`.
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
