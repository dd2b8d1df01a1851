//! Writes a comparison of two recordings as text and as JSON.

use crate::text::{Style, WIDTH, fill, printable};
use edleak_analysis::baseline::{Change, FORMAT_VERSION};
use edleak_analysis::diff::Diff;
use edleak_text::units;
use serde_json::json;
use std::io::{self, Write};

/// Writes one line for each leak, the worst leak first.
///
/// # Errors
/// `out` cannot be written to.
pub fn write_text(diff: &Diff<'_>, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let mut lines: Vec<(u8, String)> = diff
        .leaks
        .iter()
        .map(|(site, change)| {
            let is = site.judgement.rate_bytes_per_s;
            let (rank, word, was) = word_of(*change);
            let was = was.map_or_else(|| "-".into(), units::rate);
            (rank, line(word, &was, &units::rate(is), &site.name()))
        })
        .collect();
    lines.extend(
        diff.gone.iter().map(|leak| (4, line("gone", &units::rate(leak.rate_bytes_per_s), "-", &leak.name))),
    );
    lines.sort_by_key(|(rank, _)| *rank);
    if !lines.is_empty() {
        writeln!(out, "{}", line("", "was", "is", "leak"))?;
    } else if diff.undecided.is_empty() {
        return writeln!(out, "no leak in either recording");
    }
    lines.iter().try_for_each(|(_, line)| writeln!(out, "{}", style.clip_end(line, WIDTH)))?;
    let undecided = diff.undecided.iter().map(|why| format!("undecided: {}", printable(why)));
    undecided.flat_map(|why| fill(&why, "", "  ", WIDTH)).try_for_each(|line| writeln!(out, "{line}"))
}

/// Writes one JSON object with the fields `undecided` and `leaks`. Each leak in `leaks` has the fields
/// `change`, `was_bytes_per_s` and `is_bytes_per_s`.
///
/// # Errors
/// `out` cannot be written to.
pub fn write_json(diff: &Diff<'_>, out: &mut dyn Write) -> io::Result<()> {
    let now = diff.leaks.iter().map(|(site, change)| {
        let (_, word, was) = word_of(*change);
        json!({
            "change": word,
            "id": site.label.to_string(),
            "name": site.name(),
            "was_bytes_per_s": was,
            "is_bytes_per_s": site.judgement.rate_bytes_per_s,
        })
    });
    let gone = diff.gone.iter().map(|leak| {
        json!({
            "change": "gone",
            "name": leak.name,
            "was_bytes_per_s": leak.rate_bytes_per_s,
            "is_bytes_per_s": null,
        })
    });
    let leaks: Vec<_> = now.chain(gone).collect();
    serde_json::to_writer(
        &mut *out,
        &json!({ "format_version": FORMAT_VERSION, "leaks": leaks, "undecided": diff.undecided }),
    )?;
    writeln!(out)
}

/// For a change: its rank (the lowest rank is listed first), its name in the output, and the rate in the
/// first recording, if the leak existed there.
fn word_of(change: Change) -> (u8, &'static str, Option<f64>) {
    match change {
        Change::New => (0, "new", None),
        Change::Faster(was) => (1, "faster", Some(was)),
        Change::Same(was) => (2, "same", Some(was)),
        Change::Slower(was) => (3, "slower", Some(was)),
    }
}

fn line(word: &str, was: &str, is: &str, name: &str) -> String {
    format!("{word:<7} {was:>13} {is:>13}  {}", printable(name))
}
