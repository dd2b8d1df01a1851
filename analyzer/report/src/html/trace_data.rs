//! Writes one recording into the page's data, as columns. Some columns have one row for each site, and some
//! have one row for each instant of the process. Another column holds the packed counters of all sites, as
//! one sequence of bytes.

use super::headline::Headline;
use super::names::Names;
use super::payload::Payload;
use edleak_analysis::analysis::Analysis;
use edleak_analysis::baseline::Change;
use edleak_analysis::diff::Diff;
use edleak_analysis::finding::Finding;
use edleak_analysis::history::History;
use edleak_analysis::site::{Domain, JudgedSite, Kind, SiteLabel};
use edleak_model::classify::{Confidence, Verdict};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// One recording that the page shows.
pub(super) struct Found<'a> {
    pub(super) analysis: &'a Analysis,
    pub(super) history: &'a History,
    pub(super) leaks: Vec<Finding<'a>>,
    pub(super) headline: Headline,
    pub(super) diff: Option<&'a Diff<'a>>,
}

/// Number of columns of a site's curve. For each site whose counters do not fit in the page, the page
/// contains only a curve of 40 columns.
const CURVE_COLUMNS: usize = 40;
/// Maximum size of the text that says why sites do not leak, in bytes for each recording. Readers of a page
/// rarely open this text, but without a limit the text could fill the page.
const MAX_WHY_BYTES: usize = 8 << 20;

/// Adds the columns of one recording to the payload, under names that begin with `prefix`. Returns the part
/// of the JSON header that describes this recording.
pub(super) fn write(
    payload: &mut Payload,
    names: &mut Names,
    prefix: &str,
    found: &Found<'_>,
    history: &History,
    rows: &[usize],
) -> Value {
    let Found { analysis, leaks: findings, diff, .. } = found;
    write_process(payload, prefix, history);
    let sites: Vec<&JudgedSite> = rows.iter().map(|&row| &analysis.sites[row]).collect();
    write_figures(payload, prefix, analysis, history, findings, rows);
    write_places(payload, names, prefix, &sites);
    write_survivors(payload, prefix, &sites);
    write_changes(payload, prefix, &sites, *diff);
    write_counters(payload, prefix, analysis, history, rows);
    let of_heap = analysis.sites.iter().filter(|site| site.domain() == Domain::Heap).count();
    let labels: Vec<&str> = sites
        .iter()
        .filter_map(|site| match &site.label {
            SiteLabel::Text(text) => Some(text.as_str()),
            SiteLabel::Number(_) => None,
        })
        .collect();
    json!({
        "sites": sites.len(),
        "instants": history.instants.len(),
        "labels": labels,
        "others_sites": history.others_sites,
        "unlisted_sites": of_heap - sites.len(),
        "other_sites": analysis.sites.len() - of_heap,
        "is_empty": analysis.sites.is_empty(),
        "peak_s": history.peak.at_s,
        "peak_bytes": history.peak.live_bytes,
        "judged_until_s": history.judged_until_s,
        "has_turnover": history.has_turnover,
        "has_resident": history.has_resident,
        "duration_s": analysis.header.duration_s,
        "gone": diff.map_or_else(Vec::new, |diff| {
            diff.gone.iter().map(|leak| json!({ "name": leak.name, "was": leak.rate_bytes_per_s })).collect()
        }),
    })
}

fn write_process(payload: &mut Payload, prefix: &str, history: &History) {
    let instants = &history.instants;
    payload.doubles(format!("{prefix}at_s"), instants.iter().map(|instant| instant.at_s));
    payload.numbers(format!("{prefix}missing"), instants.iter().map(|instant| instant.is_missing.into()));
    payload.numbers(format!("{prefix}resident"), instants.iter().map(|instant| instant.resident_bytes));
    payload.numbers(format!("{prefix}swap"), instants.iter().map(|instant| instant.swap_bytes));
    let counters = instants.iter().map(|instant| instant.counters).collect::<Vec<_>>();
    payload.bytes(format!("{prefix}process"), edleak_analysis::history::Packed::of(&counters).bytes());
    payload.bytes(format!("{prefix}others"), history.others.bytes());
}

fn write_figures(
    payload: &mut Payload,
    prefix: &str,
    analysis: &Analysis,
    history: &History,
    findings: &[Finding<'_>],
    rows: &[usize],
) {
    let sites = || rows.iter().map(|&row| &analysis.sites[row]);
    let place: HashMap<&SiteLabel, u64> =
        sites().enumerate().map(|(row, site)| (&site.label, row as u64)).collect();
    let mut number = |name: &str, value: &dyn Fn(&JudgedSite) -> u64| {
        payload.numbers(format!("{prefix}{name}"), sites().map(value));
    };
    number("label", &|site| match site.label {
        SiteLabel::Number(number) => number + 1,
        SiteLabel::Text(_) => 0,
    });
    number("kind", &|site| match site.kind {
        Kind::Caller => 0,
        Kind::Stack => 1,
        Kind::Other => 2,
        Kind::Injected => 3,
        Kind::Mapping => 4,
        Kind::Allocator => 5,
        Kind::Pool => 6,
    });
    number("verdict", &|site| match site.judgement.verdict {
        Verdict::Leak => 0,
        Verdict::Undecided => 1,
        Verdict::NoLeak => 2,
    });
    number("confidence", &|site| match site.judgement.confidence {
        None => 0,
        Some(Confidence::Suspect) => 1,
        Some(Confidence::Strict) => 2,
    });
    number("leak_bytes", &|site| site.judgement.leak_bytes);
    number("live_bytes", &|site| site.totals.live_bytes);
    let freed: HashSet<&SiteLabel> = findings
        .iter()
        .filter(|finding| finding.is_freed_at_end())
        .flat_map(Finding::sites)
        .map(|site| &site.label)
        .collect();
    number("flags", &|site| {
        u64::from(site.is_stack_cut)
            + 2 * u64::from(site.judged_with_stacks)
            + 4 * u64::from(freed.contains(&site.label))
    });
    // For each leaking site, the number of its leak in the list of leaks, from 1. All sites of one leak have
    // the same number.
    let finding_of: HashMap<&SiteLabel, u64> = (1..)
        .zip(findings)
        .flat_map(|(number, finding)| finding.sites().map(move |site| (&site.label, number)))
        .collect();
    number("finding", &|site| finding_of.get(&site.label).copied().unwrap_or(0));
    let parent = |site: &JudgedSite| site.parent.as_ref().and_then(|parent| place.get(parent).copied());
    payload.options(format!("{prefix}parent"), sites().map(parent));
    payload.options(format!("{prefix}live_count"), sites().map(|site| site.totals.live_count));
    payload.options(format!("{prefix}allocs"), sites().map(|site| site.totals.allocs));
    payload.options(format!("{prefix}frees"), sites().map(|site| site.totals.frees));
    payload.options(format!("{prefix}allocated_bytes"), sites().map(|site| site.totals.allocated_bytes));
    payload.options(format!("{prefix}freed_bytes"), sites().map(|site| site.totals.freed_bytes));
    // If a leak has only one site, the table of sites shows the rate of the leak at this site. For such a
    // leak, the table of sites and the list of leaks show the same rate.
    let mut rate_of: HashMap<&SiteLabel, f64> = HashMap::new();
    for finding in findings {
        let mut sites = finding.sites();
        if let (Some(site), None) = (sites.next(), sites.next()) {
            rate_of.insert(&site.label, finding.rate_bytes_per_s());
        }
    }
    let rate =
        |site: &JudgedSite| rate_of.get(&site.label).copied().unwrap_or(site.judgement.rate_bytes_per_s);
    payload.doubles(format!("{prefix}rate"), sites().map(rate));
    payload.doubles(format!("{prefix}began_s"), sites().map(|site| site.judgement.began_s));
    payload.doubles(format!("{prefix}leak_share"), sites().map(|site| site.leak_share.unwrap_or(0.0)));
    payload.doubles(
        format!("{prefix}record_longer_s"),
        sites().map(|site| site.judgement.record_longer_s.unwrap_or(0.0)),
    );

    let past = || rows.iter().map(|&row| &history.sites[row]);
    payload.numbers(format!("{prefix}peak_bytes"), past().map(|site| site.peak.live_bytes));
    payload.doubles(format!("{prefix}peak_s"), past().map(|site| site.peak.at_s));
    payload.numbers(format!("{prefix}bytes_at_peak"), past().map(|site| site.live_bytes_at_peak));
    payload.numbers(format!("{prefix}count_at_peak"), past().map(|site| site.live_count_at_peak));

    // The leaked bytes for the flame graph. As in the format `folded`, if a leaking caller has recorded
    // stacks, the leaked bytes count at these stacks and not at the caller.
    let mut leaked: HashMap<&SiteLabel, u64> = HashMap::new();
    for site in analysis.sites.iter().filter(|site| site.is_leak()) {
        for (part, bytes) in analysis.leaked_by_stack(site) {
            let sum = leaked.entry(&part.label).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    let leaked = |site: &JudgedSite| leaked.get(&site.label).copied().unwrap_or(0);
    payload.numbers(format!("{prefix}leaked_here"), sites().map(leaked));
}

fn write_places(payload: &mut Payload, names: &mut Names, prefix: &str, sites: &[&JudgedSite]) {
    let mut number =
        |name: &str, values: Vec<u64>| payload.numbers(format!("{prefix}{name}"), values.into_iter());
    number("name", sites.iter().map(|site| names.number(&site.name())).collect());
    number("class", sites.iter().map(|site| names.number(site.judgement.class.name())).collect());
    number("standing", sites.iter().map(|site| names.number(site.standing.as_str())).collect());
    let mut left = MAX_WHY_BYTES;
    let why = |site: &&JudgedSite| {
        let text = site.judgement.why.join("\n");
        let is_asked_for = site.judgement.verdict != Verdict::NoLeak;
        if !is_asked_for {
            match left.checked_sub(text.len()) {
                Some(rest) => left = rest,
                None => return 0,
            }
        }
        names.number(&text)
    };
    number("why", sites.iter().map(why).collect());
    fn place<'a>(site: &&'a JudgedSite) -> Option<(&'a str, u32)> {
        site.headline()?.place()
    }
    number("file", sites.iter().map(|site| names.number(place(site).map_or("", |(file, _)| file))).collect());
    number("line", sites.iter().map(|site| place(site).map_or(0, |(_, line)| line.into())).collect());
    let module = |site: &&JudgedSite| {
        let frame = site.headline();
        names.number(frame.and_then(|frame| frame.address.module.as_deref()).unwrap_or_default())
    };
    number("module", sites.iter().map(module).collect());
    let stacks: Vec<Vec<u64>> = sites.iter().map(|site| names.stack_of(site)).collect();
    number("frames", stacks.iter().map(|stack| stack.len() as u64).collect());
    number("stack", stacks.concat());
}

fn write_survivors(payload: &mut Payload, prefix: &str, sites: &[&JudgedSite]) {
    let survivors = || sites.iter().flat_map(|site| &site.survivors);
    payload.numbers(format!("{prefix}epochs"), sites.iter().map(|site| site.survivors.len() as u64));
    payload.doubles(format!("{prefix}epoch_from_s"), survivors().map(|epoch| epoch.from_s));
    payload.doubles(format!("{prefix}epoch_to_s"), survivors().map(|epoch| epoch.to_s));
    payload.numbers(format!("{prefix}epoch_bytes"), survivors().map(|epoch| epoch.bytes));
    payload.numbers(format!("{prefix}epoch_count"), survivors().map(|epoch| epoch.count));
}

/// Writes how each leak changed since the other recording: 0 not compared, 1 new, 2 faster, 3 unchanged, 4
/// slower.
fn write_changes(payload: &mut Payload, prefix: &str, sites: &[&JudgedSite], diff: Option<&Diff<'_>>) {
    let Some(diff) = diff else { return };
    let changes: HashMap<&SiteLabel, Change> =
        diff.leaks.iter().map(|(site, change)| (&site.label, *change)).collect();
    let of = |site: &&JudgedSite| match changes.get(&site.label) {
        None => (0, 0.0),
        Some(Change::New) => (1, 0.0),
        Some(Change::Faster(was)) => (2, *was),
        Some(Change::Same(was)) => (3, *was),
        Some(Change::Slower(was)) => (4, *was),
    };
    payload.numbers(format!("{prefix}change"), sites.iter().map(|site| of(site).0));
    payload.doubles(format!("{prefix}was"), sites.iter().map(|site| of(site).1));
}

fn write_counters(
    payload: &mut Payload,
    prefix: &str,
    analysis: &Analysis,
    history: &History,
    rows: &[usize],
) {
    let packed = || rows.iter().map(|&row| history.sites[row].packed.as_ref());
    payload.options(
        format!("{prefix}packed_bytes"),
        packed().map(|packed| packed.map(|packed| packed.bytes().len() as u64)),
    );
    let all: Vec<u8> = packed().flatten().flat_map(|packed| packed.bytes().iter().copied()).collect();
    payload.bytes(format!("{prefix}packed"), &all);
    let without = rows.iter().filter(|&&row| history.sites[row].packed.is_none());
    let curves: Vec<u8> =
        without.flat_map(|&row| coarse(&analysis.sites[row].levels.at(CURVE_COLUMNS))).collect();
    payload.bytes(format!("{prefix}curves"), &curves);
}

/// Converts a curve to one byte for each column of the chart; 255 stands for the highest value of the curve.
fn coarse(curve: &[f64]) -> Vec<u8> {
    let highest = curve.iter().copied().fold(0.0, f64::max);
    let byte = |column: usize| {
        let bytes = curve.get(column).copied().unwrap_or(0.0);
        // The rounded number is between 0 and 255, so the cast to u8 is exact.
        if highest > 0.0 { (255.0 * bytes / highest).round() as u8 } else { 0 }
    };
    (0..CURVE_COLUMNS).map(byte).collect()
}
