//! The current trace, judged: the process, and one row per site.

use crate::args::SortArg;
use edleak_analysis::findings::Findings;
use edleak_analysis::frame::base_name;
use edleak_analysis::judge::judge_recording;
use edleak_analysis::load::{LoadOptions, load};
use edleak_analysis::naming::name_sites;
use edleak_analysis::site::{JudgedSite, Kind, SiteLabel};
use edleak_binary::{Options, Symbolizer};
use edleak_model::classify::{Confidence, Judgement, Model, Verdict};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::PathBuf;

/// Number of columns of a curve.
pub(super) const CURVE_COLUMNS: usize = 12;
/// Maximum number of sites with names. Symbolizing is most of the work, and no screen shows more sites.
const NAMED_SITES: usize = 500;

/// Reads one trace repeatedly.
pub(super) struct Reader {
    trace: PathBuf,
    symbolizer: Symbolizer,
}

/// The process and its sites at one instant.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) duration_s: f64,
    pub(super) slices: u64,
    pub(super) live_bytes: u64,
    pub(super) live_count: u64,
    pub(super) resident_bytes: u64,
    /// Growth of live bytes since the first slice, per second.
    pub(super) growth_bytes_per_s: f64,
    /// Number of slices that were due but not taken.
    pub(super) lost_slices: u64,
    pub(super) rows: Vec<Row>,
}

/// One site; a watched site includes its stacks.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) label: SiteLabel,
    pub(super) verdict: Verdict,
    pub(super) is_strict: bool,
    pub(super) class: &'static str,
    pub(super) live_bytes: u64,
    pub(super) live_count: u64,
    pub(super) allocs: u64,
    /// Growth of live bytes since the first slice.
    pub(super) growth_bytes: f64,
    /// For a leak: leaked bytes per second; otherwise the average growth over the recording.
    pub(super) rate_bytes_per_s: f64,
    pub(super) leak_bytes: u64,
    pub(super) curve: Vec<f64>,
    pub(super) function: String,
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) module: String,
    pub(super) why: Vec<String>,
    /// The site in the form that `watch` accepts; empty if it has no address.
    pub(super) spec: String,
    /// The stacks in order of falling live bytes.
    pub(super) stacks: Vec<StackRow>,
}

/// One stack of a watched site: live bytes, live allocations, and one line per frame.
#[derive(Clone, Debug)]
pub(super) struct StackRow {
    pub(super) live_bytes: u64,
    pub(super) live_count: u64,
    pub(super) frames: Vec<String>,
}

impl Reader {
    pub(super) fn new(trace: PathBuf) -> Self {
        Self { trace, symbolizer: Symbolizer::new(Options::default()) }
    }

    /// Reads the current trace.
    pub(super) fn read(&mut self) -> Result<Snapshot, String> {
        let recording = load(&self.trace, LoadOptions::default()).map_err(|error| error.to_string())?;
        let mut findings = judge_recording(self.trace.display().to_string(), &recording, Model::Growth);
        let named: HashMap<SiteLabel, ()> = ranked(&findings).into_iter().take(NAMED_SITES).collect();
        let root = |site: &JudgedSite| site.parent.clone().unwrap_or_else(|| site.label.clone());
        name_sites(&mut findings, &recording, &self.symbolizer, |site| named.contains_key(&root(site)));
        Ok(Snapshot::of(&findings))
    }
}

/// Sites weighted by live bytes and growth, so that the first rows of every order are among the named sites.
fn ranked(findings: &Findings) -> Vec<(SiteLabel, ())> {
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
    fn of(findings: &Findings) -> Self {
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
            rows,
        }
    }

    /// Sorts the rows; equal rows are sorted by label, so that they keep their places.
    pub(super) fn sort(&mut self, by: SortArg) {
        let rank = |row: &Row| match row.verdict {
            Verdict::Leak => 0,
            Verdict::Undecided | Verdict::NoLeak => 1,
        };
        self.rows.sort_by(|a, b| {
            let order = match by {
                SortArg::Growth => {
                    rank(a).cmp(&rank(b)).then_with(|| falling(a.rate_bytes_per_s, b.rate_bytes_per_s))
                }
                SortArg::Live => b.live_bytes.cmp(&a.live_bytes),
                SortArg::Allocs => b.allocs.cmp(&a.allocs),
            };
            order.then_with(|| a.label.cmp(&b.label))
        });
    }

    /// Number of leaks so far.
    pub(super) fn leaks(&self) -> usize {
        self.rows.iter().filter(|row| row.verdict == Verdict::Leak).count()
    }
}

fn falling(a: f64, b: f64) -> Ordering {
    b.total_cmp(&a)
}

impl Row {
    fn of(site: &JudgedSite, stacks: &[&JudgedSite], duration_s: f64) -> Self {
        let mut members: Vec<&JudgedSite> = stacks.to_vec();
        members.sort_by(|a, b| {
            b.totals.live_bytes.cmp(&a.totals.live_bytes).then_with(|| a.label.cmp(&b.label))
        });
        let all = || std::iter::once(site).chain(stacks.iter().copied());
        // The verdict of the member that leaks fastest is used for all members.
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

    /// The word for the verdict so far.
    pub(super) fn word(&self) -> &'static str {
        match (self.verdict, self.is_strict) {
            (Verdict::Leak, true) => "LEAK",
            (Verdict::Leak, false) => "SUSPECT",
            (Verdict::Undecided, _) => "open",
            (Verdict::NoLeak, _) => "-",
        }
    }

    /// Whether the row passes a filter: the filter's text is part of the function, the file or the module,
    /// ignoring case.
    pub(super) fn matches(&self, filter: &str) -> bool {
        let filter = filter.to_lowercase();
        [&self.function, &self.file, &self.module].iter().any(|text| text.to_lowercase().contains(&filter))
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
