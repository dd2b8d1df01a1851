//! Writes series lines: one JSON object for each site on one line, with the counters of the site at every
//! slice. edleak-analyze can read these lines, and then gives the same verdicts as for the trace.
//!
//! | field | meaning |
//! |---|---|
//! | `id`, `parent` | the site, and its caller if it is a stack |
//! | `period_s` | seconds between two slices |
//! | `first_slice` | slices of the recording before the site's first slice |
//! | `live_bytes`, `live_count`, `allocs`, `frees` | one number per slice; the last two count from the start |
//! | `with_stacks_first_slice`, `…_live_bytes`, `…_live_count` | only a watched site: the sum over the site and its stacks |
//! | `program_allocs`, `program_allocs_every` | allocations of the whole program, cumulated: at the recording's first slice, then after every so many slices |
//! | `undecided` | only if the recording does not suffice for a verdict: the reason, the same on each line |
//! | `epoch_*`, `last_free_slice`, `max_age_at_free` | for each birth epoch, the allocations that are still
//! live, if this was recorded |
//!
//! In a large trace, the counters of all sites do not fit in memory at the same time. To save memory, the
//! exporter reads the trace several times, each time for as many sites as fit in memory.

use super::{Exporter, Report};
use edleak_analysis::analysis::Analysis;
use edleak_analysis::gate::too_little;
use edleak_analysis::load::Input;
use edleak_analysis::load::line_series::{KeptPoints, LineSeries};
use edleak_analysis::replay::points::{Families, SitePoints, for_each_site};
use edleak_analysis::replay::teardown::judged_grid;
use edleak_analysis::replay::{BirthTable, Merged};
use edleak_analysis::site::{JudgedSite, SiteLabel};
use edleak_format::{SiteId, Trace};
use edleak_model::series::{Births, Point, Series};
use edleak_model::work::Work;
use serde::{Serialize, Serializer};
use std::collections::HashMap;
use std::io::{self, Write};

/// The exporter of series lines.
#[derive(Clone, Copy, Debug)]
pub struct SeriesLines;

impl Exporter for SeriesLines {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        for (recording, analysis) in report.recordings.iter().zip(report.analyses) {
            match recording {
                Input::Trace(trace) => of_trace(trace, analysis, out)?,
                Input::Lines(lines) => lines.iter().try_for_each(|line| of_line(line, out))?,
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Line<'a> {
    id: Label<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Label<'a>>,
    period_s: f64,
    first_slice: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    with_stacks_first_slice: Option<u64>,
    live_bytes: Column<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_count: Option<Column<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocs: Option<Column<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frees: Option<Column<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    with_stacks_live_bytes: Option<Column<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    with_stacks_live_count: Option<Column<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program_allocs: Option<&'a [u64]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program_allocs_every: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    freed_bytes: Option<u64>,
    stack: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecided: Option<&'a str>,
    #[serde(flatten)]
    births: Option<BirthFields<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Label<'a> {
    Number(u64),
    Text(&'a str),
}

#[derive(Serialize)]
struct BirthFields<'a> {
    epoch_live_bytes: &'a [u64],
    epoch_live_count: &'a [u64],
    epoch_allocs: &'a [u64],
    last_free_slice: f64,
    max_age_at_free: f64,
}

/// One counter of a site, for example the live bytes, at every slice. In memory, equal values in a row are
/// stored only once; the output has one value for each slice.
struct Column<'a> {
    runs: &'a [(Point, u64)],
    value: fn(&Point) -> u64,
}

impl Serialize for Column<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = self.runs.iter().flat_map(|(point, times)| {
            let value = (self.value)(point);
            (0..*times).map(move |_| value)
        });
        serializer.collect_seq(values)
    }
}

impl<'a> From<&'a SiteLabel> for Label<'a> {
    fn from(label: &'a SiteLabel) -> Self {
        match label {
            SiteLabel::Number(number) => Self::Number(*number),
            SiteLabel::Text(text) => Self::Text(text),
        }
    }
}

impl<'a> From<&'a Births> for BirthFields<'a> {
    fn from(births: &'a Births) -> Self {
        Self {
            epoch_live_bytes: &births.epoch_live_bytes,
            epoch_live_count: &births.epoch_live_count,
            epoch_allocs: &births.epoch_allocs,
            last_free_slice: births.last_free_slice,
            max_age_at_free: births.max_age_at_free,
        }
    }
}

fn of_trace(trace: &Trace, analysis: &Analysis, out: &mut dyn Write) -> io::Result<()> {
    let mut by_id: Vec<(SiteId, &JudgedSite)> = analysis
        .sites
        .iter()
        .filter_map(|site| match site.label {
            SiteLabel::Number(number) => Some((SiteId(u32::try_from(number).ok()?), site)),
            SiteLabel::Text(_) => None,
        })
        .collect();
    by_id.sort_unstable_by_key(|(id, _)| *id);
    let ids: Vec<SiteId> = by_id.iter().map(|(id, _)| *id).collect();
    let merged = Merged::of(trace);
    let families: HashMap<SiteId, SitePoints> = Families::of::<io::Error>(trace, &merged, &ids)?;
    let births = BirthTable::new(trace, &merged, judged_grid(trace));
    let undecided = too_little(analysis);
    for_each_site(trace, &merged, &ids, |points| {
        let (id, site) = by_id[points.index];
        let together = families.get(&id);
        let silent;
        let (absent, runs) = match together.filter(|_| points.runs.is_empty()) {
            // If a caller was watched from the start of the recording, edleak counted its allocations only at
            // its stacks. No slice contains a caller whose own counters stayed 0. So the series of such a
            // caller consists of zeros.
            Some(together) => {
                silent = [(Point::default(), together.points())];
                (together.absent, &silent[..])
            }
            None => (points.absent, &points.runs[..]),
        };
        let births = births.of(id, absent);
        let column = |value| Column { runs, value };
        let family = |value| together.map(|points| Column { runs: &points.runs, value });
        let line = Line {
            id: (&site.label).into(),
            parent: site.parent.as_ref().map(Label::from),
            period_s: analysis.header.period_s,
            first_slice: absent as u64,
            with_stacks_first_slice: together.map(|points| points.absent as u64),
            live_bytes: column(|point| point.live_bytes),
            live_count: Some(column(|point| point.live_count)),
            allocs: Some(column(|point| point.allocs)),
            frees: Some(column(|point| point.frees)),
            with_stacks_live_bytes: family(|point| point.live_bytes),
            with_stacks_live_count: family(|point| point.live_count),
            program_allocs: Some(analysis.work.allocs()),
            program_allocs_every: Some(analysis.work.width()),
            allocated_bytes: site.totals.allocated_bytes,
            freed_bytes: site.totals.freed_bytes,
            stack: stack_of(site),
            undecided: undecided.as_deref(),
            births: births.as_ref().map(BirthFields::from),
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")
    })
}

fn of_line(line: &LineSeries, out: &mut dyn Write) -> io::Result<()> {
    let kept = line.kept.as_ref();
    let none = KeptPoints::default();
    let kept = kept.unwrap_or(&none);
    let column = |value| Column { runs: &kept.runs, value };
    let known = |is_known: Option<u64>, value| is_known.is_some().then(|| column(value));
    let line = Line {
        id: (&line.label).into(),
        parent: line.parent.as_ref().map(Label::from),
        period_s: line.period_s,
        first_slice: line.series.absent(),
        with_stacks_first_slice: line.with_stacks.as_ref().map(Series::absent),
        live_bytes: column(|point| point.live_bytes),
        live_count: kept.has_counts.then(|| column(|point| point.live_count)),
        allocs: known(line.totals.allocs, |point| point.allocs),
        frees: known(line.totals.frees, |point| point.frees),
        with_stacks_live_bytes: kept
            .with_stacks
            .as_ref()
            .map(|runs| Column { runs, value: |point| point.live_bytes }),
        with_stacks_live_count: kept
            .with_stacks
            .as_ref()
            .map(|runs| Column { runs, value: |point| point.live_count }),
        program_allocs: line.series.work().map(Work::allocs),
        program_allocs_every: line.series.work().map(Work::width),
        allocated_bytes: line.totals.allocated_bytes,
        freed_bytes: line.totals.freed_bytes,
        stack: line
            .stack
            .iter()
            .map(|address| address_text(address.address, address.frames.first()))
            .collect(),
        undecided: line.undecided.as_deref(),
        births: kept.births.as_ref().map(BirthFields::from),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// A stack in the form that edLeak uses: for each address, the module and the offset. Module and offset are
/// known even if the symbols are not.
fn stack_of(site: &JudgedSite) -> Vec<String> {
    site.stack
        .iter()
        .map(|address| match (&address.module, address.offset) {
            (Some(module), Some(offset)) => {
                format!("{:#x}:{}+{offset:#x}", address.address, edleak_analysis::frame::base_name(module))
            }
            _ => format!("{:#x}", address.address),
        })
        .collect()
}

fn address_text(address: u64, frame: Option<&edleak_format::SymbolFrame>) -> String {
    match (address, frame.and_then(|frame| frame.function.as_deref())) {
        (0, Some(function)) => function.to_owned(),
        (address, Some(function)) => format!("{address:#x}:{function}"),
        (address, None) => format!("{address:#x}"),
    }
}
