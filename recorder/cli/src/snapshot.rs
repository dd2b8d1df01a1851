//! The content of a trace at the time of reading: the process, and one row with a verdict for each site.

use crate::args::SortArg;
use edleak_analysis::analysis::{Analysis, Summary};
use edleak_analysis::frame::base_name;
use edleak_analysis::judge::judge_recording;
use edleak_analysis::load::{LoadOptions, load};
use edleak_analysis::naming::name_sites;
use edleak_analysis::site::{JudgedSite, Kind, SiteLabel};
use edleak_binary::{Options, Symbolizer};
use edleak_collector::Error;
use edleak_model::classify::{Confidence, Judgement, Model, Verdict};
use edleak_model::growth_kind::GrowthKind;
use edleak_text::globs::Glob;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::PathBuf;

/// Number of columns of a site's curve.
pub(crate) const CURVE_COLUMNS: usize = 12;
/// Maximum number of sites for which the reader finds function names. Finding names takes most of the time of
/// a read, and no screen has lines for 500 sites.
const NAMED_SITES: usize = 500;

/// Reads one trace again and again.
#[derive(Debug)]
pub(crate) struct Reader {
    trace: PathBuf,
    symbolizer: Symbolizer,
}

/// The process and its sites at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) duration_s: f64,
    pub(crate) slices: u64,
    pub(crate) live_bytes: u64,
    pub(crate) live_count: u64,
    pub(crate) resident_bytes: u64,
    /// Growth of live bytes since the first slice, in bytes per second.
    pub(crate) growth_bytes_per_s: f64,
    /// Number of slices that were due and that the collector did not take.
    pub(crate) lost_slices: u64,
    pub(crate) pid: u32,
    /// The time at which the recording began, in nanoseconds since 1970.
    pub(crate) started_unix_ns: u64,
    /// The file name of the program.
    pub(crate) program: String,
    pub(crate) allocated_bytes: u64,
    pub(crate) allocs: u64,
    /// How the memory of the process grows; `None` before the first read of the trace.
    pub(crate) growth_kind: Option<GrowthKind>,
    /// Number of events that the recording missed, for each kind.
    pub(crate) losses: Vec<(&'static str, u64)>,
    pub(crate) rows: Vec<Row>,
}

/// One site. The row of a watched site also contains the stacks of the site.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) label: SiteLabel,
    pub(crate) verdict: Verdict,
    pub(crate) is_strict: bool,
    pub(crate) class: &'static str,
    pub(crate) live_bytes: u64,
    pub(crate) live_count: u64,
    pub(crate) allocs: u64,
    /// Growth of live bytes since the first slice, in bytes.
    pub(crate) growth_bytes: f64,
    /// For a leak, the leaked bytes per second; for a site that does not leak, the average growth of its live
    /// bytes per second.
    pub(crate) rate_bytes_per_s: f64,
    pub(crate) leak_bytes: u64,
    pub(crate) curve: Vec<f64>,
    /// The domain of the site: `heap`, `mapping` or `pool`.
    pub(crate) domain: &'static str,
    pub(crate) function: String,
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) module: String,
    pub(crate) why: Vec<String>,
    /// The site in the form that the command `watch` accepts; empty if the site has no address.
    pub(crate) spec: String,
    /// The stacks of the site, sorted by live bytes: the largest first.
    pub(crate) stacks: Vec<StackRow>,
}

/// One stack of a watched site: its live bytes, its live allocations, and one line for each frame.
#[derive(Clone, Debug)]
pub(crate) struct StackRow {
    pub(crate) live_bytes: u64,
    pub(crate) live_count: u64,
    pub(crate) frames: Vec<String>,
}

impl Reader {
    pub(crate) fn new(trace: PathBuf) -> Self {
        Self { trace, symbolizer: Symbolizer::new(Options::default()) }
    }

    /// Reads the current trace. A verdict depends on the whole record, so the reader opens the whole trace
    /// each time; `GrowingTrace`, which reads only the new slices, would not help.
    pub(crate) fn read(&mut self) -> Result<Snapshot, Error> {
        let recording = load(&self.trace, LoadOptions::default()).map_err(crate::analysis::earlier_trace)?;
        let mut findings = judge_recording(self.trace.display().to_string(), &recording, Model::Growth);
        let named: HashMap<SiteLabel, ()> = ranked(&findings).into_iter().take(NAMED_SITES).collect();
        let root = |site: &JudgedSite| site.parent.clone().unwrap_or_else(|| site.label.clone());
        name_sites(&mut findings, &recording, &self.symbolizer, |site| named.contains_key(&root(site)));
        Ok(Snapshot::of(&findings))
    }
}

/// All sites: first the leaks, then the other sites. Within each of these two groups, the site with the
/// greatest sum of live bytes and growth comes first. Only the first `NAMED_SITES` sites of this list get
/// function names. The list is sorted in this way so that the first rows on the screen have names, whether
/// the user sorts by live bytes or by growth.
fn ranked(findings: &Analysis) -> Vec<(SiteLabel, ())> {
    let mut weights: HashMap<&SiteLabel, f64> = HashMap::new();
    for site in &findings.sites {
        let root = site.parent.as_ref().unwrap_or(&site.label);
        let leak = if site.is_leak() { 1e18 } else { 0.0 };
        *weights.entry(root).or_default() += leak + site.totals.live_bytes as f64 + site.growth().max(0.0);
    }
    let mut ranked: Vec<_> = weights.into_iter().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    ranked.into_iter().map(|(label, _)| (label.clone(), ())).collect()
}

impl Snapshot {
    fn of(findings: &Analysis) -> Self {
        let mut stacks: HashMap<&SiteLabel, Vec<&JudgedSite>> = HashMap::new();
        for site in findings.sites.iter().filter(|site| site.kind == Kind::Stack) {
            if let Some(parent) = &site.parent {
                stacks.entry(parent).or_default().push(site);
            }
        }
        let duration_s = findings.header.duration_s;
        let callers = findings.sites.iter().filter(|site| site.kind != Kind::Stack);
        let rows = callers
            .map(|site| Row::of(site, stacks.get(&site.label).map_or(&[], Vec::as_slice), duration_s))
            .collect();
        let points = findings.process.points();
        let (first, last) =
            (points.first().copied().unwrap_or_default(), points.last().copied().unwrap_or_default());
        let grown = findings.summary.live_bytes as f64 - first.live_bytes as f64;
        Self {
            duration_s,
            slices: findings.header.slices,
            live_bytes: findings.summary.live_bytes,
            live_count: findings.summary.live_count,
            resident_bytes: last.resident_bytes,
            growth_bytes_per_s: if duration_s > 0.0 { grown / duration_s } else { 0.0 },
            lost_slices: findings.summary.lost_slices,
            pid: findings.header.pid,
            started_unix_ns: findings.header.started_unix_ns,
            program: findings.header.command.first().map_or("", |path| base_name(path)).to_owned(),
            allocated_bytes: findings.summary.allocated_bytes,
            allocs: findings.summary.allocs,
            growth_kind: Some(findings.growth.kind),
            losses: losses(&findings.summary),
            rows,
        }
    }

    /// Sorts the rows. Rows of equal rank are sorted by label, so that their order does not change at a
    /// refresh.
    pub(crate) fn sort(&mut self, by: SortArg) {
        self.rows.sort_by(|a, b| Row::order(by, a, b));
    }

    /// Number of leaks so far.
    pub(crate) fn leaks(&self) -> usize {
        self.rows.iter().filter(|row| row.verdict == Verdict::Leak).count()
    }
}

fn falling(a: f64, b: f64) -> Ordering {
    b.total_cmp(&a)
}

fn losses(summary: &Summary) -> Vec<(&'static str, u64)> {
    vec![
        ("slices", summary.lost_slices),
        ("stacks", summary.lost_stacks),
        ("module_events", summary.lost_module_events),
        ("unknown_frees", summary.unknown_frees),
        ("untracked_allocations", summary.untracked_allocs),
        ("allocations_beyond_the_site_table", summary.other_site_allocs),
        ("unrecorded_programs", summary.unrecorded_images),
    ]
}

impl Row {
    /// Compares two rows by the figure `by`, with leaks before all other rows. Rows of equal rank are sorted
    /// by label, so that their order does not change at a refresh.
    pub(crate) fn order(by: SortArg, a: &Row, b: &Row) -> Ordering {
        let rank = |row: &Row| match row.verdict {
            Verdict::Leak => 0,
            Verdict::Undecided | Verdict::NoLeak => 1,
        };
        let order = match by {
            SortArg::Growth => {
                rank(a).cmp(&rank(b)).then_with(|| falling(a.rate_bytes_per_s, b.rate_bytes_per_s))
            }
            SortArg::Live => b.live_bytes.cmp(&a.live_bytes),
            SortArg::Allocs => b.allocs.cmp(&a.allocs),
        };
        order.then_with(|| a.label.cmp(&b.label))
    }

    #[cfg(test)]
    pub(crate) fn for_test(id: u64) -> Self {
        Self {
            label: SiteLabel::Number(id),
            verdict: Verdict::NoLeak,
            is_strict: false,
            class: "",
            live_bytes: 0,
            live_count: 0,
            allocs: 0,
            growth_bytes: 0.0,
            rate_bytes_per_s: 0.0,
            leak_bytes: 0,
            curve: Vec::new(),
            domain: "heap",
            function: String::new(),
            file: String::new(),
            line: 0,
            module: String::new(),
            why: Vec::new(),
            spec: String::new(),
            stacks: Vec::new(),
        }
    }

    fn of(site: &JudgedSite, stacks: &[&JudgedSite], duration_s: f64) -> Self {
        let mut members: Vec<&JudgedSite> = stacks.to_vec();
        members.sort_by(|a, b| {
            b.totals.live_bytes.cmp(&a.totals.live_bytes).then_with(|| a.label.cmp(&b.label))
        });
        let all = || std::iter::once(site).chain(stacks.iter().copied());
        // A row shows a site together with its stacks. If the site or its stacks contain several leaks, the
        // row gets the verdict of the fastest leak.
        let leak = all()
            .filter(|site| site.is_leak())
            .max_by(|a, b| a.judgement.rate_bytes_per_s.total_cmp(&b.judgement.rate_bytes_per_s));
        let judgement: &Judgement = leak.map_or(&site.judgement, |leak| &leak.judgement);
        let levels = site.with_stacks.as_ref().map_or(&site.levels, |all| &all.levels);
        let growth_bytes = levels.last() - levels.first();
        let leaks = || all().filter(|site| site.is_leak());
        let rate_bytes_per_s = match leak {
            Some(_) => leaks().map(|site| site.judgement.rate_bytes_per_s).sum(),
            None if duration_s > 0.0 => growth_bytes / duration_s,
            None => 0.0,
        };
        let sum = |value: fn(&JudgedSite) -> u64| all().map(value).fold(0u64, u64::saturating_add);
        let headline = site.headline();
        let (file, line) = headline.and_then(|frame| frame.place()).unwrap_or_default();
        let address = site.stack.first();
        let module = address.and_then(|address| address.module.clone()).unwrap_or_default();
        let spec = address.and_then(|address| Some((address, address.offset?)));
        Self {
            label: site.label.clone(),
            verdict: judgement.verdict,
            is_strict: judgement.confidence == Some(Confidence::Strict),
            class: judgement.class.name(),
            live_bytes: sum(|site| site.totals.live_bytes),
            live_count: sum(|site| site.totals.live_count.unwrap_or(0)),
            allocs: sum(|site| site.totals.allocs.unwrap_or(0)),
            growth_bytes,
            rate_bytes_per_s,
            leak_bytes: leaks().map(|site| site.judgement.leak_bytes).fold(0, u64::saturating_add),
            curve: levels.at(CURVE_COLUMNS),
            domain: site.domain().as_str(),
            function: site.name(),
            file: file.to_owned(),
            line,
            spec: spec.map_or_else(String::new, |(address, offset)| match address.build_id.is_empty() {
                true => format!("{module}!{offset:#x}"),
                false => format!("build-id:{}!{offset:#x}", address.build_id),
            }),
            module: base_name(&module).to_owned(),
            why: judgement.why.clone(),
            stacks: members.into_iter().map(StackRow::of).collect(),
        }
    }

    /// The word that the view shows for the verdict.
    pub(crate) fn word(&self) -> &'static str {
        match (self.verdict, self.is_strict) {
            (Verdict::Leak, true) => "LEAK",
            (Verdict::Leak, false) => "SUSPECT",
            (Verdict::Undecided, _) => "open",
            (Verdict::NoLeak, _) => "-",
        }
    }

    /// Whether the row passes a filter: its function, file or module contains the text of the filter, in
    /// upper or lower case.
    pub(crate) fn matches(&self, filter: &str) -> bool {
        let pattern = Glob::part(&filter.to_lowercase());
        [&self.function, &self.file, &self.module].iter().any(|text| pattern.matches(&text.to_lowercase()))
    }
}

impl StackRow {
    fn of(stack: &JudgedSite) -> Self {
        let frames = stack.frames().map(|frame| match frame.place() {
            Some((file, line)) => format!("{}  {}:{line}", frame.name(), base_name(file)),
            None => frame.name(),
        });
        Self {
            live_bytes: stack.totals.live_bytes,
            live_count: stack.totals.live_count.unwrap_or(0),
            frames: frames.collect(),
        }
    }
}
