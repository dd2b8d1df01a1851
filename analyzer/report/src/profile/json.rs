//! The profile as JSON, for programs. The name of a field never changes; new fields may be added. All sizes
//! are exact integers.

use super::{ProfileReport, order_name};
use crate::json::place::{FrameJson, LabelJson};
use edleak_analysis::baseline::FORMAT_VERSION;
use edleak_analysis::frame::frames;
use edleak_analysis::profile::{At, Figures, Moment, Span};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
struct Document<'a> {
    format_version: u32,
    source: &'a str,
    command: &'a [String],
    pid: u32,
    duration_s: f64,
    /// The part of the recording that the profile shows: `peak`, `end`, `time` or `range`.
    at: &'static str,
    by: &'static str,
    from_s: Option<f64>,
    to_s: f64,
    /// The precision of `from_s` and `to_s`: the time between two neighbouring slices there, in seconds.
    precision_s: f64,
    total: FiguresJson,
    sites: Vec<RowJson<'a>>,
}

#[derive(Serialize)]
struct FiguresJson {
    live_bytes: i128,
    live_count: i128,
    allocated_bytes: u64,
    allocs: u64,
    freed_bytes: u64,
    frees: u64,
    temporary_allocs: u64,
    temporary_bytes: u64,
}

#[derive(Serialize)]
struct RowJson<'a> {
    id: LabelJson<'a>,
    parent: Option<LabelJson<'a>>,
    name: String,
    /// The site's share of the total, from 0 to 1, for the figure by which the sites are sorted. Null: the
    /// total is 0 or negative, so there is no share.
    share: Option<f64>,
    #[serde(flatten)]
    figures: FiguresJson,
    verdict: &'static str,
    stack: Vec<FrameJson<'a>>,
}

impl From<Figures> for FiguresJson {
    fn from(figures: Figures) -> Self {
        let Figures {
            live_bytes,
            live_count,
            allocated_bytes,
            allocs,
            freed_bytes,
            frees,
            temporary_allocs,
            temporary_bytes,
        } = figures;
        Self {
            live_bytes,
            live_count,
            allocated_bytes,
            allocs,
            freed_bytes,
            frees,
            temporary_allocs,
            temporary_bytes,
        }
    }
}

impl ProfileReport<'_> {
    /// Writes one JSON object.
    ///
    /// # Errors
    /// `out` cannot be written to.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let (profile, analysis) = (self.profile, self.analysis);
        let total = profile.total.by(profile.order);
        let row = |row: &edleak_analysis::profile::Row| {
            let site = &analysis.sites[row.site];
            RowJson {
                id: (&site.label).into(),
                parent: site.parent.as_ref().map(LabelJson::from),
                name: site.name(),
                share: (total > 0).then(|| row.figures.by(profile.order) as f64 / total as f64),
                figures: row.figures.into(),
                verdict: crate::json::words::verdict_name(site.judgement.verdict),
                stack: frames(&site.stack).map(FrameJson::of).collect(),
            }
        };
        let document = Document {
            format_version: FORMAT_VERSION,
            source: &analysis.source,
            command: &analysis.header.command,
            pid: analysis.header.pid,
            duration_s: analysis.header.duration_s,
            at: match profile.span {
                Span::Instant(At::Peak) => "peak",
                Span::Instant(At::End) => "end",
                Span::Instant(At::Time(_)) => "time",
                Span::Range { .. } => "range",
            },
            by: order_name(profile.order),
            from_s: profile.from.map(|from| from.time_s),
            to_s: profile.to.time_s,
            precision_s: [profile.from, Some(profile.to)]
                .into_iter()
                .flatten()
                .map(|moment: Moment| moment.precision_s)
                .fold(0.0, f64::max),
            total: profile.total.into(),
            sites: profile.rows.iter().take(self.top.unwrap_or(usize::MAX)).map(row).collect(),
        };
        serde_json::to_writer(&mut *out, &document)?;
        writeln!(out)
    }
}
