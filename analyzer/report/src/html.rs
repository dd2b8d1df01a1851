//! HTML: one page that any browser can open. The page shows first the verdict and then the data from which
//! the verdict was computed. The page needs no server and makes no request.
//!
//! ```text
//!   data         Analysis and History ──▶ payload (JSON header, binary columns) ──▶ deflate ──▶ base 64
//!                no verdict is computed here; if the page would be too large, the counters of the least
//!                important sites are replaced by one sum
//!   page         static parts, written in Rust: headline, timeline, leaks with reasons and stacks, losses
//!   interaction  the script decodes the payload and replaces the static parts; all views of the script
//!                share two states: the selected range of time, and the selected site
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `html/payload.rs`, `trace_data.rs`, `names.rs` | the data |
//! | `html/headline.rs`, `chart.rs`, `leaks.rs`, `escape.rs` | the static parts |
//! | `html/page.css`, `html/*.js` | the style, and the script: one function, of the files in the order of `SCRIPT` |
//!
//! The security policy in the head of the page contains the hashes of this script and this style, and forbids
//! every other script and style. So even if a bug wrote a function's name into the page as markup, the
//! browser would run no script in the name, and would load nothing.

mod chart;
mod escape;
mod headline;
mod leaks;
mod names;
mod payload;
mod trace_data;

use super::text::summary::{mapped_in_words, pools_in_words};
use super::{Exporter, Report};
use edleak_analysis::analysis::Analysis;
use edleak_analysis::diff::Diff;
use edleak_analysis::finding::Finding;
use edleak_analysis::frame::base_name;
use edleak_analysis::history::History;
use edleak_analysis::site::Domain;
use edleak_text::{meter, units};
use escape::text;
use headline::{headline, reported};
use names::Names;
use payload::Payload;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use trace_data::Found;

/// The files of the script, in the order in which they are joined. The joined script is one function, so all
/// files share one scope, and no name is visible outside the script.
const SCRIPT: [&str; 13] = [
    include_str!("html/format.js"),
    include_str!("html/dom.js"),
    include_str!("html/pattern.js"),
    include_str!("html/data.js"),
    include_str!("html/range.js"),
    include_str!("html/axis.js"),
    include_str!("html/timeline.js"),
    include_str!("html/site.js"),
    include_str!("html/sites.js"),
    include_str!("html/scatter.js"),
    include_str!("html/stacks.js"),
    include_str!("html/flame.js"),
    include_str!("html/main.js"),
];
const STYLE: &str = include_str!("html/page.css");

/// Number of instants (points in time) for which an HTML report contains the counters of the sites. A chart
/// has one column for each instant, and a screen has room for about 500 columns.
pub const INSTANTS: usize = 500;
/// Maximum size of the packed counters that edleak keeps in memory to make a page, in bytes. If the page has
/// no room for all packed counters, it contains only a part of them.
pub const PACKED_BYTES: usize = 48 << 20;
/// Maximum size of a page's data in base 64, in bytes. If the data has at most `MAX_DATA_BYTES` bytes, the
/// whole page with its script and static parts is smaller than 20 MB.
const MAX_DATA_BYTES: usize = 18_500_000;
/// Maximum number of rows in the tables of a page.
const MAX_ROWS: usize = 100_000;

/// The HTML exporter.
#[derive(Clone, Default, Debug)]
pub struct Html {
    /// The title of the page. `None`: the title is the name of the program.
    pub title: Option<String>,
    /// One message for each trace that could not be read.
    pub failures: Vec<String>,
}

impl Exporter for Html {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        if report.analyses.is_empty() {
            return self.page_of_failures(out);
        }
        let nothing = History::default();
        let histories: Vec<&History> =
            report.analyses.iter().map(|analysis| analysis.history.as_deref().unwrap_or(&nothing)).collect();
        let diff = match report.analyses {
            [before, after] => Some(Diff::of(before, after)),
            _ => None,
        };
        // If the report has several recordings, the page shows the last one first.
        let shown = report.analyses.len() - 1;
        let found: Vec<Found<'_>> = report
            .analyses
            .iter()
            .zip(&histories)
            .enumerate()
            .map(|(i, (analysis, history))| {
                let leaks = reported(analysis);
                let diff = diff.as_ref().filter(|_| i == shown);
                let headline = headline(analysis, &leaks, diff);
                Found { analysis, history, leaks, headline, diff }
            })
            .collect();
        let title = self.title().map_or_else(|| title_of(&report.analyses[shown]), str::to_owned);
        let data = data(&found)?;
        let script = script();
        page_head(&title, &script, out)?;
        page_start(&title, &recorded(&report.analyses[shown]), out)?;
        write!(out, "{}", self.failures())?;
        page_body(&found, out)?;
        write!(out, "<script type=\"application/octet-stream\" id=\"data\">{data}</script>")?;
        writeln!(out, "<script>{script}</script></body></html>")
    }
}

impl Html {
    /// The title that the user gave with `--title`. An empty title counts as no title.
    fn title(&self) -> Option<&str> {
        self.title.as_deref().filter(|title| !title.trim().is_empty())
    }

    /// Writes a page if no recording could be read. In place of charts, the page gives the reason why each
    /// recording could not be read.
    fn page_of_failures(&self, out: &mut dyn Write) -> io::Result<()> {
        let title = self.title().unwrap_or("No recording");
        page_head(title, "", out)?;
        page_start(title, "", out)?;
        writeln!(
            out,
            "<section id=\"headline\" class=\"undecided\" aria-label=\"Verdict\"><h2>No recording could be \
             read</h2>\
             {}</section></main></body></html>",
            self.failures()
        )
    }

    fn failures(&self) -> String {
        if self.failures.is_empty() {
            return String::new();
        }
        let lines: String =
            self.failures.iter().map(|failure| format!("<li>{}</li>", text(failure))).collect();
        format!("<ul class=\"failures\">{lines}</ul>")
    }
}

/// The script of the page: all its files, joined to one function. Comments and indentation of the script are
/// removed, so that the page stays small.
fn script() -> String {
    let mut script = String::from("(()=>{\"use strict\";\n");
    let mut is_comment = false;
    for line in SCRIPT.iter().flat_map(|file| file.lines()).map(str::trim) {
        if line.starts_with("/**") && !line.contains("*/") {
            is_comment = true;
        }
        let is_whole_comment = line.starts_with("//") || line.starts_with("/**") && line.ends_with("*/");
        if !is_comment && !is_whole_comment && !line.is_empty() {
            script += line;
            script.push('\n');
        }
        is_comment &= !line.ends_with("*/");
    }
    script + "})();"
}

fn page_head(title: &str, script: &str, out: &mut dyn Write) -> io::Result<()> {
    let hash = |source: &str| format!("'sha256-{}'", escape::base64(&Sha256::digest(source.as_bytes())));
    writeln!(
        out,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         script-src {}; style-src {}; base-uri 'none'; form-action 'none'\">\
         <meta name=\"referrer\" content=\"no-referrer\"><meta name=\"color-scheme\" content=\"light dark\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"generator\" content=\"edleak-analyze {}\"><link rel=\"icon\" href=\"data:,\">\
         <title>{} – edleak</title><style>{STYLE}</style></head>",
        hash(script),
        hash(STYLE),
        env!("CARGO_PKG_VERSION"),
        text(title)
    )
}

fn page_start(title: &str, meta: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "<body><a class=\"skip\" href=\"#sites\">Skip to the sites</a>\
         <header><p class=\"brand\">edleak</p><h1><bdi>{}</bdi></h1><p class=\"meta\">{}</p></header><main>",
        text(title),
        text(meta)
    )
}

fn page_body(found: &[Found<'_>], out: &mut dyn Write) -> io::Result<()> {
    let shown = found.len() - 1;
    let Found { analysis, history, headline: first, .. } = &found[shown];
    let piece = |(piece, is_name): &(String, bool)| match is_name {
        true => format!("<bdi class=\"name\">{}</bdi>", text(piece)),
        false => escape::sentence(piece),
    };
    let answer = |pieces: &Vec<(String, bool)>| pieces.iter().map(piece).collect::<String>();
    let answers: String = first
        .answers
        .iter()
        .map(|(question, pieces)| format!("<dt>{question}</dt><dd>{}</dd>", answer(pieces)))
        .collect();
    let missed = match first.missed.as_slice() {
        [] => "<p>Nothing.</p>".to_owned(),
        lines => format!(
            "<ul>{}</ul>",
            lines.iter().map(|line| format!("<li>{}</li>", escape::sentence(line))).collect::<String>()
        ),
    };
    writeln!(
        out,
        "<section id=\"headline\" class=\"{}\" aria-label=\"Verdict\"><h2>{}</h2><dl>{answers}</dl>\
         <div id=\"missed\"><h3>What was missed?</h3>{missed}</div></section>",
        first.mark,
        escape::sentence(&first.verdict)
    )?;
    let is_empty = analysis.sites.is_empty();
    let hidden = |is_hidden: bool| if is_hidden { " hidden" } else { "" };
    writeln!(
        out,
        "<p id=\"notice\" class=\"note\" role=\"status\">This page shows more with JavaScript: every site, \
         ranges of time, and flame graphs. The verdict and the leaks are complete without it.</p>\
         <p id=\"nothing\" class=\"empty\"{}>The recording holds no allocation, so there is nothing to \
         draw.</p>\
         <div id=\"evidence\"{}>",
        hidden(!is_empty),
        hidden(is_empty)
    )?;
    // The page contains one list of leaks for each recording. The script shows only the list of the recording
    // that the user selects.
    let leaks = found.iter().map(|found| leaks::table(&found.leaks)).collect();
    by_recording("leaks", "Leaks", leaks, out)?;
    let mapped = found.iter().map(|found| mapped_memory(found.analysis, &found.leaks)).collect();
    by_recording("mapped", "Mapped memory", mapped, out)?;
    let pools = found.iter().map(|found| pools(found.analysis, &found.leaks)).collect();
    by_recording("pools", "Pools", pools, out)?;
    for (id, heading, content) in [
        ("timeline", "Memory over time", chart::timeline(history)),
        ("range", "Range", format!("<p class=\"empty\">{}</p>", text(&whole_range(analysis)))),
        ("sites", "Sites", String::new()),
        ("scatter", "Size against growth", String::new()),
        ("flame", "Flame graph", String::new()),
    ] {
        // A section without static content stays hidden until the script fills this section.
        let hidden = hidden(content.is_empty());
        writeln!(
            out,
            "<section id=\"{id}\" aria-labelledby=\"{id}-h\"{hidden}><h2 id=\"{id}-h\">{heading}</h2>"
        )?;
        if id == "sites" {
            writeln!(
                out,
                "<div class=\"tools\"><label>Filter <input id=\"filter\" type=\"search\" \
                 autocomplete=\"off\" spellcheck=\"false\"></label></div>"
            )?;
        }
        writeln!(out, "<div class=\"body\">{content}</div></section>")?;
    }
    writeln!(
        out,
        "</div></main><footer><p>Written by edleak-analyze {}. Sizes are binary: 1 KiB is 1024 bytes. Live \
         bytes are what the program asked for and has not freed.</p></footer>",
        env!("CARGO_PKG_VERSION")
    )
}

/// Writes a section of the page; `parts` has one part for each recording. If the part of every recording is
/// empty, the function writes no section.
fn by_recording(id: &str, heading: &str, parts: Vec<String>, out: &mut dyn Write) -> io::Result<()> {
    if parts.iter().all(String::is_empty) {
        return Ok(());
    }
    let shown = parts.len() - 1;
    let hidden = |is_hidden: bool| if is_hidden { " hidden" } else { "" };
    writeln!(
        out,
        "<section id=\"{id}\" aria-labelledby=\"{id}-h\"{}><h2 id=\"{id}-h\">{heading}</h2>",
        hidden(parts[shown].is_empty())
    )?;
    for (i, part) in parts.iter().enumerate() {
        writeln!(out, "<div class=\"body\" data-recording=\"{i}\"{}>{part}</div>", hidden(i != shown))?;
    }
    writeln!(out, "</section>")
}

/// The section about mapped memory: the totals, the number of leaks, and the memory that no recorded call
/// mapped. If the trace has neither a site of mapped memory nor much memory that no recorded call mapped, the
/// section is empty.
fn mapped_memory(analysis: &Analysis, leaks: &[Finding<'_>]) -> String {
    let Some(mapped) = &analysis.mapped else { return String::new() };
    if mapped.sites == 0 && mapped.unseen.is_none() {
        return String::new();
    }
    let unseen = mapped
        .unseen
        .as_ref()
        .map_or_else(String::new, |unseen| format!("<p>{}.</p>", text(&unseen.sentence())));
    let leaks = listed_above(leaks, Domain::Mapping, "mapped memory");
    format!(
        "<p>Calls of mmap and its kin, in bytes of address space: {}. {leaks}</p>{unseen}",
        text(&mapped_in_words(mapped))
    )
}

/// The section about pools: the totals and the number of leaks. The section is empty if the program has no
/// pool of edleak.h.
fn pools(analysis: &Analysis, leaks: &[Finding<'_>]) -> String {
    let Some(pools) = &analysis.pools else { return String::new() };
    let leaks = listed_above(leaks, Domain::Pool, "pools");
    format!(
        "<p>Objects that the program's own pools hand out, at the callers of the pools: {}. {leaks}</p>",
        text(&pools_in_words(pools))
    )
}

/// A sentence with the number of leaks that the list of leaks has in one domain.
fn listed_above(leaks: &[Finding<'_>], domain: Domain, of: &str) -> String {
    match leaks.iter().filter(|leak| leak.lead().domain() == domain).count() as u64 {
        0 => format!("No leak of {of} is reported."),
        leaks => format!("The list of leaks has {} of {of}.", units::plural(leaks, "leak", "leaks")),
    }
}

/// The program, the duration of the recording, and the reason why the recording ended.
fn recorded(analysis: &Analysis) -> String {
    let header = &analysis.header;
    let mut parts = vec![format!(
        "{} in {}",
        units::duration(header.duration_s),
        units::plural(header.slices, "slice", "slices")
    )];
    if header.period_s > 0.0 {
        parts.push(format!("one every {}", units::duration(header.period_s)));
    }
    if header.pid != 0 {
        parts.push(format!("pid {}", header.pid));
    }
    parts.extend(header.end.clone());
    if is_anonymous(analysis) {
        parts.push("the trace is anonymized: names and arguments are hashes and are not shown".into());
    } else if header.command.len() > 1 {
        parts.push(header.command.join(" ").replace(['\n', '\t'], " "));
    }
    parts.join(" · ")
}

fn whole_range(analysis: &Analysis) -> String {
    format!("The whole record: 0 s to {}.", units::duration(analysis.header.duration_s))
}

fn title_of(analysis: &Analysis) -> String {
    match analysis.header.command.first() {
        Some(_) if is_anonymous(analysis) => "anonymized program".into(),
        Some(program) if !program.is_empty() => base_name(program).to_owned(),
        _ => base_name(&analysis.source).to_owned(),
    }
}

/// Whether `edleak-analyze anonymize` has replaced every word of the command line by a hash.
fn is_anonymous(analysis: &Analysis) -> bool {
    let command = &analysis.header.command;
    let is_hash = |word: &String| {
        word.len() == 16 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    !command.is_empty() && command.iter().all(is_hash)
}

/// The data of the page in base 64. If the page has no room for the counters of all sites, the data has the
/// counters of some sites only.
fn data(found: &[Found<'_>]) -> io::Result<String> {
    let recordings = found.len();
    let made = |packed_bytes: usize| {
        let reduced = |found: &Found<'_>| {
            let mut history = found.history.clone();
            history.sum_up_beyond(MAX_ROWS);
            if packed_bytes < usize::MAX {
                history.keep(&found.analysis.sites, packed_bytes / recordings);
            }
            history
        };
        let reduced: Vec<History> = found.iter().map(reduced).collect();
        payload(found, &reduced)
    };
    let most = MAX_DATA_BYTES / 4 * 3;
    let all: usize = found.iter().map(|found| found.history.packed_bytes()).sum();
    if all <= most / 2 {
        let bytes = made(usize::MAX)?;
        if bytes.len() <= most {
            return Ok(escape::base64(&bytes));
        }
    }
    // To find out how many bytes of counters fit in the page, first make the data without counters, which
    // always stays in the page. Then compute from a sample by which ratio deflate shrinks the counters.
    meter::begin(3);
    let fixed = made(0)?.len();
    meter::advance(1);
    let room = most.saturating_sub(fixed) as f64;
    let mut kept = all.min((0.97 * room / packed_share(found)) as usize);
    loop {
        let bytes = made(kept)?;
        meter::advance(1);
        if bytes.len() <= most || kept == 0 {
            return Ok(escape::base64(&bytes));
        }
        let share = room / (bytes.len() - fixed).max(1) as f64;
        kept = (kept as f64 * 0.97 * share.min(1.0)) as usize;
    }
}

/// The ratio of the counters' deflated size to their size, computed from a sample of the sites.
fn packed_share(found: &[Found<'_>]) -> f64 {
    const SAMPLED: usize = 1000;
    let sites: Vec<&[u8]> = found
        .iter()
        .flat_map(|found| &found.history.sites)
        .filter_map(|site| Some(site.packed.as_ref()?.bytes()))
        .collect();
    let sample = sites.iter().step_by((sites.len() / SAMPLED).max(1)).copied().collect::<Vec<_>>().concat();
    let deflated = payload::deflated(&[&sample]).map_or(sample.len(), |bytes| bytes.len());
    deflated.max(1) as f64 / sample.len().max(1) as f64
}

fn payload(found: &[Found<'_>], histories: &[History]) -> io::Result<Vec<u8>> {
    let (mut payload, mut names) = (Payload::default(), Names::default());
    let mut traces = Vec::new();
    for (i, (found, history)) in found.iter().zip(histories).enumerate() {
        let Found { analysis, headline, .. } = found;
        // The table of sites has only sites of the heap. The page has other sections for mapped memory and
        // for pools.
        let rows: Vec<usize> = (0..analysis.sites.len().min(MAX_ROWS).min(history.sites.len()))
            .filter(|&row| analysis.sites[row].domain() == Domain::Heap)
            .collect();
        let prefix = format!("{i}.");
        let mut trace = trace_data::write(&mut payload, &mut names, &prefix, found, history, &rows);
        trace["source"] = json!(if is_anonymous(analysis) { "" } else { base_name(&analysis.source) });
        trace["recorded"] = json!(recorded(analysis));
        trace["title"] = json!(title_of(analysis));
        trace["headline"] = json!({
            "mark": headline.mark,
            "verdict": headline.verdict,
            "answers": headline.answers,
            "missed": headline.missed,
        });
        traces.push(trace);
    }
    names.write(&mut payload);
    let mut header = Map::new();
    header.insert("version".into(), json!(1));
    header.insert("traces".into(), Value::Array(traces));
    header.insert("names".into(), json!(names.into_texts()));
    payload.deflate(header)
}
