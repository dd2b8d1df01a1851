//! HTML: one page that any browser can open. The page shows the verdict first, then the evidence. The page
//! needs no server, makes no request, and is written without a build step.
//!
//! ```text
//!   data         Findings and History ──▶ payload (JSON header, binary columns) ──▶ deflate ──▶ base 64
//!                nothing is computed here; the least important counters are summed up until the page is
//!                small enough
//!   page         static parts, written here: headline, timeline, leaks with reasons and stacks, losses
//!   interaction  the script opens the payload and replaces the static parts; all of its views share two
//!                states: a range of time, and a selected site
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `html/payload.rs`, `trace_data.rs`, `names.rs` | the data |
//! | `html/headline.rs`, `chart.rs`, `leaks.rs`, `escape.rs` | the static parts |
//! | `html/page.css`, `html/*.js` | the style, and the script: one function, of the files in the order of `SCRIPT` |
//!
//! The policy in the page's head allows this script and this style, by their hashes, and nothing else. If a
//! name became markup by mistake, the browser would neither run it nor load anything for it.

mod chart;
mod escape;
mod headline;
mod leaks;
mod names;
mod payload;
mod trace_data;

use super::text::summary::{mapped_in_words, pools_in_words};
use super::{Exporter, Report};
use edleak_analysis::diff::Diff;
use edleak_analysis::finding::Finding;
use edleak_analysis::findings::Findings;
use edleak_analysis::frame::base_name;
use edleak_analysis::history::History;
use edleak_analysis::site::Domain;
use edleak_text::units;
use escape::text;
use headline::{Headline, headline, reported};
use names::Names;
use payload::Payload;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// The parts of the script, which is one function: the files share one scope, and no name leaves it.
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

/// Number of instants on a page: about as many as a screen has columns.
pub const INSTANTS: usize = 500;
/// Bytes of packed counters that a history keeps for a page; the page itself may keep less.
pub const PACKED_BYTES: usize = 48 << 20;
/// Maximum number of bytes of a page's data, in base 64. With script and static parts the page stays under 20
/// MB.
const MAX_DATA_BYTES: usize = 18_500_000;
/// Maximum number of rows on a page.
const MAX_ROWS: usize = 100_000;

/// The HTML exporter.
#[derive(Clone, Default, Debug)]
pub struct Html {
    /// The title of the page, in place of the program's name.
    pub title: Option<String>,
    /// Messages about traces that could not be read.
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
        // If there are two recordings, the page shows the second one.
        let shown = report.analyses.len() - 1;
        let headlines: Vec<Headline> = report
            .analyses
            .iter()
            .enumerate()
            .map(|(i, analysis)| headline(analysis, diff.as_ref().filter(|_| i == shown)))
            .collect();
        let title = self.title.clone().unwrap_or_else(|| title_of(&report.analyses[shown]));
        let data = data(report, &histories, &headlines, diff.as_ref())?;
        let script = script();
        page_head(&title, &script, out)?;
        page_start(&title, &recorded(&report.analyses[shown]), out)?;
        write!(out, "{}", self.failures())?;
        page_body(report, &headlines, histories[shown], out)?;
        write!(out, "<script type=\"application/octet-stream\" id=\"data\">{data}</script>")?;
        writeln!(out, "<script>{script}</script></body></html>")
    }
}

impl Html {
    /// If no recording could be read, the page gives the reasons and has no empty charts.
    fn page_of_failures(&self, out: &mut dyn Write) -> io::Result<()> {
        let title = self.title.as_deref().unwrap_or("No recording");
        page_head(title, "", out)?;
        page_start(title, "", out)?;
        writeln!(
            out,
            "<section id=\"headline\" class=\"undecided\" aria-label=\"Verdict\"><h2>No recording could be read</h2>\
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

fn script() -> String {
    format!("(()=>{{\"use strict\";\n{}}})();", SCRIPT.concat())
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

fn page_body(
    report: &Report<'_>,
    headlines: &[Headline],
    history: &History,
    out: &mut dyn Write,
) -> io::Result<()> {
    let shown = report.analyses.len() - 1;
    let (analysis, first) = (&report.analyses[shown], &headlines[shown]);
    let piece = |(piece, is_name): &(String, bool)| match is_name {
        true => format!("<bdi class=\"name\">{}</bdi>", text(piece)),
        false => text(piece),
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
            lines.iter().map(|line| format!("<li>{}</li>", text(line))).collect::<String>()
        ),
    };
    writeln!(
        out,
        "<section id=\"headline\" class=\"{}\" aria-label=\"Verdict\"><h2>{}</h2><dl>{answers}</dl>\
         <div id=\"missed\"><h3>What was missed?</h3>{missed}</div></section>",
        first.mark,
        text(&first.verdict)
    )?;
    writeln!(
        out,
        "<p id=\"notice\" class=\"note\" role=\"status\">This page shows more with JavaScript: every site, ranges of time, \
         and flame graphs. The verdict and the leaks are complete without it.</p>"
    )?;
    let leaks_of = |domain: Domain| -> Vec<Finding<'_>> {
        reported(analysis).into_iter().filter(|leak| leak.lead().domain() == domain).collect()
    };
    let [leaks, mapped, of_pools] = Domain::ALL.map(leaks_of);
    let empty = |what: &str| format!("<p class=\"empty\">{what} needs JavaScript.</p>");
    for (id, heading, content) in [
        ("timeline", "Memory over time", chart::timeline(history)),
        ("range", "Range", format!("<p class=\"empty\">{}</p>", text(&whole_range(analysis)))),
        ("leaks", "Leaks", leaks::table(&leaks)),
        ("sites", "Sites", empty("The table of all sites")),
        ("mapped", "Mapped memory", mapped_memory(analysis, &mapped)),
        ("pools", "Pools", pools(analysis, &of_pools)),
        ("scatter", "Size against growth", empty("The scatter")),
        ("flame", "Flame graph", empty("The flame graph")),
    ] {
        if content.is_empty() {
            continue;
        }
        writeln!(out, "<section id=\"{id}\" aria-labelledby=\"{id}-h\"><h2 id=\"{id}-h\">{heading}</h2>")?;
        if id == "sites" {
            writeln!(
                out,
                "<div class=\"tools\" hidden><label>Filter <input id=\"filter\" type=\"search\" autocomplete=\"off\" \
                 spellcheck=\"false\"></label></div>"
            )?;
        }
        writeln!(out, "<div class=\"body\">{content}</div></section>")?;
    }
    writeln!(
        out,
        "</main><footer><p>Written by edleak-analyze {}. Sizes are binary: 1 KiB is 1024 bytes. Live bytes are what the \
         program asked for and has not freed.</p></footer>",
        env!("CARGO_PKG_VERSION")
    )
}

/// The section of mapped memory: the totals, the leaks, and the memory that no recorded call mapped. Empty if
/// the trace has none of them.
fn mapped_memory(analysis: &Findings, leaks: &[Finding<'_>]) -> String {
    let Some(mapped) = &analysis.mapped else { return String::new() };
    if mapped.sites == 0 && mapped.unseen.is_none() {
        return String::new();
    }
    let unseen = mapped
        .unseen
        .as_ref()
        .map_or_else(String::new, |unseen| format!("<p>{}.</p>", text(&unseen.sentence())));
    let leaks = match leaks {
        [] => "<p class=\"empty\">No site that maps memory is reported as a leak.</p>".to_owned(),
        leaks => leaks::table(leaks),
    };
    format!(
        "<p>Calls of mmap and its kin, in bytes of address space: {}.</p>{unseen}{leaks}",
        text(&mapped_in_words(mapped))
    )
}

/// The section of pools: the totals and the leaks. Empty if the program has no pool of edleak.h.
fn pools(analysis: &Findings, leaks: &[Finding<'_>]) -> String {
    let Some(pools) = &analysis.pools else { return String::new() };
    let leaks = match leaks {
        [] => "<p class=\"empty\">No caller of a pool is reported as a leak.</p>".to_owned(),
        leaks => leaks::table(leaks),
    };
    format!(
        "<p>Objects that the program's own pools hand out, at the callers of the pools: {}.</p>{leaks}",
        text(&pools_in_words(pools))
    )
}

/// The program, the duration and the end of the recording.
fn recorded(analysis: &Findings) -> String {
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
        parts.push(header.command.join(" "));
    }
    parts.join(" · ")
}

fn whole_range(analysis: &Findings) -> String {
    format!("The whole record: 0 s to {}.", units::duration(analysis.header.duration_s))
}

fn title_of(analysis: &Findings) -> String {
    match analysis.header.command.first() {
        Some(_) if is_anonymous(analysis) => "anonymized program".into(),
        Some(program) if !program.is_empty() => base_name(program).to_owned(),
        _ => base_name(&analysis.source).to_owned(),
    }
}

/// Whether every word of the command line is a hash, as after `edleak-analyze anonymize`.
fn is_anonymous(analysis: &Findings) -> bool {
    let command = &analysis.header.command;
    let is_hash = |word: &String| {
        word.len() == 16 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    !command.is_empty() && command.iter().all(is_hash)
}

/// The data in base 64, with the counters of as many single sites as fit.
fn data(
    report: &Report<'_>,
    histories: &[&History],
    headlines: &[Headline],
    diff: Option<&Diff<'_>>,
) -> io::Result<String> {
    let made = |packed_bytes: Option<usize>| {
        let reduced = |(findings, history): (&Findings, &&History)| {
            let mut history = (*history).clone();
            history.sum_up_beyond(MAX_ROWS);
            if let Some(packed_bytes) = packed_bytes {
                history.keep(&findings.sites, packed_bytes / report.analyses.len());
            }
            history
        };
        let reduced: Vec<History> = report.analyses.iter().zip(histories).map(reduced).collect();
        payload(report, &reduced.iter().collect::<Vec<_>>(), headlines, diff)
    };
    let most = MAX_DATA_BYTES / 4 * 3;
    let mut bytes = made(None)?;
    if bytes.len() > most {
        // All other data stays on the page. The number of bytes is about proportional to the number of sites
        // with counters.
        let fixed = made(Some(0))?.len();
        let mut kept: usize = histories.iter().map(|history| history.packed_bytes()).sum();
        while bytes.len() > most && kept > 0 {
            let share = most.saturating_sub(fixed) as f64 / (bytes.len() - fixed).max(1) as f64;
            kept = (kept as f64 * 0.97 * share) as usize;
            bytes = made(Some(kept))?;
        }
    }
    Ok(escape::base64(&bytes))
}

fn payload(
    report: &Report<'_>,
    histories: &[&History],
    headlines: &[Headline],
    diff: Option<&Diff<'_>>,
) -> io::Result<Vec<u8>> {
    let (mut payload, mut names) = (Payload::default(), Names::default());
    let shown = report.analyses.len() - 1;
    let mut traces = Vec::new();
    for (i, (analysis, history)) in report.analyses.iter().zip(histories).enumerate() {
        // These rows are leaks of the heap; the leaks of other domains have sections of their own.
        let rows: Vec<usize> = (0..analysis.sites.len().min(MAX_ROWS).min(history.sites.len()))
            .filter(|&row| analysis.sites[row].domain() == Domain::Heap)
            .collect();
        let diff = diff.filter(|_| i == shown);
        let prefix = format!("{i}.");
        let mut trace = trace_data::write(&mut payload, &mut names, &prefix, analysis, history, diff, &rows);
        trace["source"] = json!(if is_anonymous(analysis) { "" } else { base_name(&analysis.source) });
        trace["recorded"] = json!(recorded(analysis));
        trace["title"] = json!(title_of(analysis));
        let headline = &headlines[i];
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
