//! One snapshot, as text in 80 columns or as JSON for a script.

use crate::args::SortArg;
use crate::snapshot::{Row, Snapshot};
use edleak_analysis::frame::base_name;
use edleak_collector::control::progress::Progress;
use edleak_model::classify::Verdict;
use edleak_report::text::{Style, printable};
use edleak_text::units;
use serde_json::{Value, json};

/// Number of rows that fit on a screen of 24 lines, below the heading.
const ROWS: usize = 20;
const WIDTH: usize = 80;
/// On a screen with fewer columns than this number, rows have no curves, because the names of the functions
/// need the space.
const NARROW: usize = 60;

/// The content of the first screen of the live view, as text.
pub(super) fn text(snapshot: &Snapshot, progress: &Progress, sort: SortArg) -> String {
    let style = Style::of_environment(false);
    let lost = match snapshot.lost_slices {
        0 => String::new(),
        lost => units::plural(lost, "lost slice", "lost slices"),
    };
    let mut lines = vec![title(snapshot, progress), figures(snapshot), lost, heading(sort, WIDTH)];
    lines.extend(snapshot.rows.iter().take(ROWS).map(|row| line(style, row, sort, WIDTH)));
    if snapshot.rows.len() > ROWS {
        lines.push(format!("{:>9}{} more sites", "", snapshot.rows.len() - ROWS));
    }
    lines.into_iter().map(|line| style.clip_end(line.trim_end(), WIDTH) + "\n").collect()
}

/// The first line of the screen: program, process, and duration of the recording.
pub(super) fn title(snapshot: &Snapshot, progress: &Progress) -> String {
    let time = units::duration(snapshot.duration_s);
    format!("edleak top: pid {}, {time}: {}", progress.pid, printable(&progress.command))
}

/// The figures of the process, in one line.
pub(super) fn figures(snapshot: &Snapshot) -> String {
    let leaks = match snapshot.leaks() {
        0 => "no leak so far".into(),
        leaks => units::plural(leaks as u64, "leak so far", "leaks so far"),
    };
    format!(
        "live {} ({}{}), resident {}, {}, {leaks}",
        units::bytes(snapshot.live_bytes as f64),
        if snapshot.growth_bytes_per_s >= 0.0 { "+" } else { "" },
        units::rate(snapshot.growth_bytes_per_s),
        units::bytes(snapshot.resident_bytes as f64),
        units::plural(snapshot.slices, "slice", "slices"),
    )
}

/// The heading above the rows.
pub(super) fn heading(sort: SortArg, width: usize) -> String {
    let figure = if sort == SortArg::Allocs { "allocated" } else { "live" };
    let curve = if width < NARROW { "" } else { "  curve       " };
    format!("{:<8} {figure:>9}  {:>10}{curve}  function", "so far", "rate")
}

/// One row of at most `width` columns. If the rows are sorted by allocations, the first figure is the number
/// of allocations; for any other order, the first figure is the live bytes. The row also shows file and line
/// if there is space for them after the function's name.
pub(super) fn line(style: Style, row: &Row, sort: SortArg, width: usize) -> String {
    let figure = match sort {
        SortArg::Allocs => units::count(row.allocs),
        SortArg::Growth | SortArg::Live => units::bytes(row.live_bytes as f64),
    };
    let curve = match width < NARROW {
        true => String::new(),
        false => format!("  {}", style.sparkline(&row.curve)),
    };
    let figures =
        format!("{:<8} {figure:>9}  {:>10}{curve}  ", row.word(), units::rate(row.rate_bytes_per_s));
    // Mark the row of a mapping with `mmap:`, because the live bytes of the process do not contain its mapped
    // memory.
    let tag = if row.domain == "mapping" { "mmap: " } else { "" };
    let place = match base_name(&row.file) {
        "" => String::new(),
        file => format!("  {}:{}", printable(file), row.line),
    };
    let room = width.saturating_sub(figures.chars().count());
    let place = if place.chars().count() <= room / 2 { place } else { String::new() };
    let function = style
        .clip_end(&(tag.to_owned() + &printable(&row.function)), room.saturating_sub(place.chars().count()));
    figures + &function + &place
}

/// One JSON object: `process`, and `sites` in the order of the screen.
pub(super) fn json(snapshot: &Snapshot, progress: &Progress) -> String {
    let site = |row: &Row| -> Value {
        json!({
            "id": row.label.to_string(),
            "verdict": match row.verdict {
                Verdict::Leak => "leak",
                Verdict::NoLeak => "no-leak",
                Verdict::Undecided => "undecided",
            },
            "confidence": match (row.verdict, row.is_strict) {
                (Verdict::Leak, true) => Some("strict"),
                (Verdict::Leak, false) => Some("suspect"),
                _ => None,
            },
            "class": row.class,
            "domain": row.domain,
            "function": row.function,
            "file": row.file,
            "line": row.line,
            "module": row.module,
            "live_bytes": row.live_bytes,
            "live_count": row.live_count,
            "allocs": row.allocs,
            "growth_bytes": row.growth_bytes.round() as i64,
            "rate_bytes_per_s": row.rate_bytes_per_s,
            "leak_bytes": row.leak_bytes,
            "why": row.why,
            "watch": row.spec,
            "stacks": row.stacks.iter().map(|stack| json!({
                "live_bytes": stack.live_bytes,
                "live_count": stack.live_count,
                "frames": stack.frames,
            })).collect::<Vec<_>>(),
        })
    };
    let document = json!({
        "format_version": 1,
        "process": {
            "pid": progress.pid,
            "command": progress.command,
            "trace": progress.trace.to_string_lossy(),
            "watched": progress.watched,
            "duration_s": snapshot.duration_s,
            "slices": snapshot.slices,
            "lost_slices": snapshot.lost_slices,
            "live_bytes": snapshot.live_bytes,
            "live_count": snapshot.live_count,
            "resident_bytes": snapshot.resident_bytes,
            "growth_bytes_per_s": snapshot.growth_bytes_per_s,
            "leaks": snapshot.leaks(),
        },
        "sites": snapshot.rows.iter().map(site).collect::<Vec<_>>(),
    });
    document.to_string() + "\n"
}
