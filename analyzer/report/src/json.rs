//! JSON: a stable format. The name of a field never changes; new fields may be added.
//!
//! For one recording, the report is one object. For several recordings, the report is
//! `{"format_version":1,"traces":[…]}`, and the list has one object for each recording. All sizes are exact
//! integers. A value that the input does not have is null. Without `--all`, the list of sites has only the
//! sites that the text report would list. If a site was judged together with its stacks, the stacks that
//! leaked follow the site in the list. In the entry of a stack, the field `parent` names the stack's site,
//! and `leak_share` is the stack's share of the leak.
//!
//! `findings` lists the leaks as the text report counts them. Each leak has a list of its parts, which are
//! places in the code. `summary.leaks` is the number of findings that fail the gate. `--top` shortens the
//! lists of findings and sites, but does not change `summary.leaks`.

mod finding;
mod marks;
pub(crate) mod place;
mod site;
mod totals;
pub(crate) mod words;

use crate::{Exporter, Report};
use edleak_analysis::analysis::{Analysis, Header};
use edleak_analysis::baseline::FORMAT_VERSION;
use edleak_analysis::history::Peak;
use edleak_analysis::site::SiteLabel;
use finding::FindingJson;
use marks::{MarkJson, PerMarkJson};
use serde::Serialize;
use site::SiteJson;
use std::collections::HashMap;
use std::io::{self, Write};
use totals::{
    GrowthJson, MappedJson, PoolsJson, SummaryJson, UncountedJson, growth_of, mapped_of, pools_of,
    summary_of, uncounted_of,
};

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
    /// The totals of mapped memory. Null: the recording did not count mapped memory.
    mapped: Option<MappedJson<'a>>,
    /// The totals of pools. Null: the program has no pool of edleak.h, or its pools were not recorded.
    pools: Option<PoolsJson<'a>>,
    /// Functions that allocate memory, but whose calls edleak did not count. edleak counts the other
    /// functions of their allocators.
    uncounted_functions: Vec<UncountedJson<'a>>,
    damage: DamageJson,
    marks: Vec<MarkJson<'a>>,
    /// The marks by which the sites are judged. Null: the verdicts are computed from time.
    per_mark: Option<PerMarkJson<'a>>,
    findings: Vec<FindingJson<'a>>,
    sites: Vec<SiteJson<'a>>,
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
struct DamageJson {
    blocks: u64,
    bytes: u64,
}

impl<'a> TraceJson<'a> {
    fn of(report: &'a Report<'_>, analysis: &'a Analysis) -> Self {
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
            // The sentences in `end` and `too_little` already tell these facts.
            is_replaced: _,
            undecided: _,
            is_executed: _,
            earlier_traces: _,
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
            uncounted_functions: analysis.uncounted_functions.iter().map(uncounted_of).collect(),
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
