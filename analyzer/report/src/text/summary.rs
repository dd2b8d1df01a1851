//! The end of the text report: the result, the totals, the events that the recording missed, and advice for
//! the next step.

use super::super::{Report, by_iteration};
use super::style::{Ink, Style, WIDTH, fill, printable};
use edleak_analysis::analysis::{Analysis, Before, Summary};
use edleak_analysis::finding::{Finding, totals};
use edleak_analysis::gate::{MUCH_MISSING, Outcome, RuleUse, outcome, too_little};
use edleak_analysis::mapped::Mapped;
use edleak_analysis::per_mark::{MarkSeen, PerMark};
use edleak_analysis::pools::{NamedPools, Pools};
use edleak_analysis::site::Standing;
use edleak_model::classify::Confidence;
use edleak_model::growth_kind::GrowthKind;
use edleak_model::iterations::{LEAST_ITERATIONS, per_iteration};
use edleak_text::units::{self, plural};
use std::io::{self, Write};

/// Maximum number of hints about missing symbols in one report. After more than four hints, the user might
/// overlook the result.
const MAX_HINTS: usize = 4;

pub(super) fn write(
    style: Style,
    report: &Report<'_>,
    analysis: &Analysis,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out)?;
    let (ink, result) = result(analysis);
    let mut paragraph = |ink: Ink, label: &str, text: &str| -> io::Result<()> {
        let hang = " ".repeat(label.len());
        for (i, line) in fill(&printable(text), label, &hang, WIDTH).iter().enumerate() {
            match line.strip_prefix(label).filter(|_| i == 0) {
                Some(rest) => writeln!(out, "{}{rest}", style.paint(ink, label))?,
                None => writeln!(out, "{line}")?,
            }
        }
        Ok(())
    };
    paragraph(ink, "edleak: ", &result)?;
    paragraph(Ink::Faint, "seen:   ", &seen(&analysis.summary))?;
    paragraph(Ink::Faint, "missed: ", &missed(&analysis.summary))?;
    if let Some(marks) = marks(analysis) {
        paragraph(Ink::Faint, "marks:  ", &marks)?;
    }
    if let Some(mapped) = analysis.mapped.as_ref().filter(|mapped| mapped.sites > 0) {
        paragraph(Ink::Faint, "mapped: ", &mapped_in_words(mapped))?;
    }
    if let Some(pools) = &analysis.pools {
        paragraph(Ink::Faint, "pools:  ", &pools_in_words(pools))?;
    }
    if let Some(passed) = passed(analysis) {
        paragraph(Ink::Faint, "passed: ", &passed)?;
    }
    if let Some(hidden) = report.top.and_then(|top| hidden_by_top(report, analysis, top)) {
        paragraph(Ink::Faint, "hidden: ", &hidden)?;
    }
    if analysis.summary.missing_share > MUCH_MISSING {
        let note = format!(
            "slices are missing for {} of the record; straight lines replace them",
            units::percent(analysis.summary.missing_share)
        );
        paragraph(Ink::Faint, "note:   ", &note)?;
    }
    if let Some(before) = &analysis.header.before {
        paragraph(Ink::Faint, "note:   ", &ran_before(before, &analysis.summary))?;
    }
    for functions in &analysis.uncounted_functions {
        paragraph(Ink::Faint, "note:   ", &functions.sentence())?;
    }
    if analysis.summary.unrequested_children > 0 {
        paragraph(
            Ink::Faint,
            "note:   ",
            "its child processes were not recorded, so this report does not cover them (`edleak-record \
             --children` records each into a trace of its own)",
        )?;
    }
    let hints =
        analysis.outcomes.iter().filter(|outcome| outcome.needs_attention() && outcome.unresolved > 0);
    for hint in hints.take(MAX_HINTS) {
        paragraph(Ink::Faint, "note:   ", &hint.to_string())?;
    }
    Ok(())
}

/// The note that the recorded process had already run before the recording began.
fn ran_before(before: &Before, summary: &Summary) -> String {
    format!(
        "the process had run for {} and held {} of anonymous memory when the recording began; allocations \
         from before are unknown ({} of them freed since)",
        units::duration(before.age_s),
        units::bytes(before.resident_bytes as f64),
        units::count(summary.earlier_frees)
    )
}

/// Writes the suppression rules that matched no leak in any recording, and the rules whose budget was
/// exceeded.
pub(super) fn write_rules(style: Style, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    let unused = report.rules_that_are(RuleUse::Unused).map(|rule| (rule, "matched nothing"));
    let exceeded =
        report.rules_that_are(RuleUse::Exceeded).map(|rule| (rule, "hides nothing: its budget is exceeded"));
    for (rule, what) in unused.chain(exceeded) {
        let text = format!("suppression `{}` (line {}) {what}", printable(&rule.text), rule.line);
        for line in fill(&text, "note:   ", "        ", WIDTH) {
            writeln!(out, "{}", style.paint(Ink::Faint, &line))?;
        }
    }
    Ok(())
}

fn result(analysis: &Analysis) -> (Ink, String) {
    let header = &analysis.header;
    let over =
        format!("{} over {}", plural(header.slices, "slice", "slices"), units::duration(header.duration_s));
    match (outcome(analysis), too_little(analysis)) {
        (Outcome::Leaks, _) => {
            // Count the leaks in the same way as the list of leaks: several places that grow at the same
            // instants are one leak.
            let findings = analysis.with_standing(|standing| standing == Standing::Reported);
            let leaks = findings.len() as u64;
            let (rate, leaked) = totals(&findings);
            let among = among(&findings);
            if let Some(per_mark) = &analysis.per_mark {
                return (Ink::Alarm, leaks_per_iteration(per_mark, &findings, &among));
            }
            let total = format!("{} together, {} leaked", units::rate(rate), units::bytes(leaked));
            (Ink::Alarm, format!("{}{among} in {over}; {total}", plural(leaks, "leak", "leaks")))
        }
        (_, Some(why)) => (Ink::Warning, format!("undecided: {why}")),
        (_, None) => match &analysis.per_mark {
            Some(per_mark) => (Ink::Calm, format!("no leak in {}", per_mark.judged())),
            None => (Ink::Calm, format!("no leak in {over}{}", growth_beside_no_leak(analysis))),
        },
    }
}

/// The part of a sentence of the report that tells how many of the leaks are only suspects; it follows the
/// number of leaks.
pub(crate) fn among(findings: &[Finding<'_>]) -> String {
    let is_suspect =
        |finding: &&Finding<'_>| finding.lead().judgement.confidence == Some(Confidence::Suspect);
    match (findings.iter().filter(is_suspect).count(), findings.len()) {
        (0, _) => String::new(),
        (1, 1) => ", a suspect".into(),
        (suspects, leaks) if suspects == leaks => ", all suspects".into(),
        (suspects, _) => format!(" ({})", plural(suspects as u64, "suspect", "suspects")),
    }
}

/// A sentence that tells how much memory one iteration leaks, summed over all `leaks`.
pub(crate) fn leaks_per_iteration(per_mark: &PerMark, leaks: &[Finding<'_>], among: &str) -> String {
    let (bytes, allocations) = by_iteration(leaks).unwrap_or_default();
    let number = plural(leaks.len() as u64, "leak", "leaks");
    let together = if leaks.len() > 1 { " together" } else { "" };
    format!("{number}{among}: {}{together}, in {}", per_iteration(bytes, allocations), per_mark.judged())
}

/// A line with the names of the marks in a trace, and how often each mark was set. If the verdicts are
/// computed from time although the trace has enough marks, the line also tells the user how to get verdicts
/// from marks.
pub(crate) fn marks(analysis: &Analysis) -> Option<String> {
    const SHOWN: usize = 8;
    let first = analysis.marks.first()?;
    let one = |mark: &MarkSeen| format!("`{}` ({})", mark.name, plural(mark.count, "time", "times"));
    let shown: Vec<_> = analysis.marks.iter().take(SHOWN).map(one).collect();
    let more = match analysis.marks.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {}", plural(more as u64, "more", "more")),
    };
    let hint = match &analysis.per_mark {
        None if first.count > LEAST_ITERATIONS => {
            format!("; judge by iterations: --per-mark '{}'", first.name)
        }
        _ => String::new(),
    };
    Some(format!("{}{more}{hint}", shown.join(", ")))
}

/// If memory grows although no site leaks: a clause that tells the reason, as far as it is known.
fn growth_beside_no_leak(analysis: &Analysis) -> String {
    let growth = &analysis.growth;
    let by = format!("resident memory still grows {:.1} times", growth.times());
    match growth.kind {
        GrowthKind::Retained if growth.resident_goes_on => {
            let remedy = "try MALLOC_ARENA_MAX=2, or malloc_trim";
            format!("; {by}, because the allocator keeps what the program freed ({remedy})")
        }
        GrowthKind::Unclear if growth.resident_goes_on => format!("; {by}, and why is not known (see below)"),
        GrowthKind::Live => "; live memory grows, but no site of it like a leak".into(),
        _ => String::new(),
    }
}

pub(crate) fn seen(summary: &Summary) -> String {
    let size = |bytes: u64| units::bytes(bytes as f64);
    let mut text = format!("{}; {} live", plural(summary.sites, "site", "sites"), size(summary.live_bytes));
    // Only edleak's own traces have numbers of allocations and allocated bytes: slices of edLeak have only
    // live bytes, and series lines of other tools have no allocated bytes.
    if summary.allocs > 0 {
        text += &format!(" in {}", plural(summary.live_count, "allocation", "allocations"));
        text += &match summary.allocated_bytes {
            0 => format!(", of {}", units::count(summary.allocs)),
            bytes => format!(", of {} in {}", size(bytes), units::count(summary.allocs)),
        };
    }
    if summary.undecided > 0 {
        text += &format!("; {} undecided", plural(summary.undecided, "site", "sites"));
    }
    text
}

/// The totals of mapped memory, in one line.
pub(crate) fn mapped_in_words(mapped: &Mapped) -> String {
    let size = |bytes: u64| units::bytes(bytes as f64);
    let least = if mapped.lost_events > 0 { "at least " } else { "" };
    let mut text = format!(
        "{}; {least}{} live in {}",
        plural(mapped.sites, "site", "sites"),
        size(mapped.live_bytes),
        plural(mapped.live_count, "mapping", "mappings")
    );
    if let Some(resident) = mapped.resident_bytes {
        text += &format!(", {} of it resident", size(resident));
    }
    if mapped.allocator_bytes > 0 {
        text += &format!("; {} more by allocators for themselves", size(mapped.allocator_bytes));
    }
    if mapped.given_back.calls > 0 {
        let least = if mapped.lost_give_backs > 0 { "at least " } else { "" };
        text += &format!("; {least}{}", mapped.given_back);
    }
    if mapped.lost_give_backs > 0 {
        text += &format!("; {} of madvise lost", plural(mapped.lost_give_backs, "call", "calls"));
    }
    if mapped.lost_events > 0 {
        text += &format!("; {} lost", plural(mapped.lost_events, "call", "calls"));
    }
    text
}

/// The totals of all pools, in one line.
pub(crate) fn pools_in_words(pools: &Pools) -> String {
    const SHOWN: usize = 4;
    let size = |bytes: u64| units::bytes(bytes as f64);
    let mut text = format!(
        "{}; {} live in {} of {}, which the heap or mapped memory also counts",
        plural(pools.sites, "site", "sites"),
        size(pools.live_bytes),
        plural(pools.live_count, "object", "objects"),
        plural(pools.pools, "pool", "pools"),
    );
    let named = |of: &&NamedPools| !of.name.is_empty() && of.live_bytes > 0;
    let names = pools.names.iter().filter(named).take(SHOWN);
    let names: Vec<String> = names.map(|of| format!("{} in `{}`", size(of.live_bytes), of.name)).collect();
    if !names.is_empty() {
        text += &format!(" ({})", names.join(", "));
    }
    let losses = [
        (pools.lost_events, "lost event", "lost events"),
        (pools.lost_resets, "lost reset", "lost resets"),
        (pools.unknown_frees, "unknown free", "unknown frees"),
    ];
    for (number, one, many) in losses.into_iter().filter(|loss| loss.0 > 0) {
        text += &format!("; {}", plural(number, one, many));
    }
    text
}

pub(crate) fn missed(summary: &Summary) -> String {
    let parts = [
        (summary.unknown_frees, "unknown free", "unknown frees"),
        (summary.lost_slices, "lost slice", "lost slices"),
        (summary.untracked_allocs, "untracked allocation", "untracked allocations"),
        (summary.lost_module_events, "lost module event", "lost module events"),
        (summary.other_site_allocs, "allocation beyond the site table", "allocations beyond the site table"),
        (summary.lost_stacks, "lost stack", "lost stacks"),
        (summary.unrecorded_images, "unrecorded program", "unrecorded programs"),
        (summary.damaged_blocks, "damaged block", "damaged blocks"),
        (summary.damaged_bytes, "damaged byte", "damaged bytes"),
    ];
    let mut parts: Vec<String> = parts
        .into_iter()
        .filter(|part| part.0 > 0)
        .map(|(number, one, many)| plural(number, one, many))
        .collect();
    if summary.missing_share > MUCH_MISSING {
        parts.push(format!("{} of the record", units::percent(summary.missing_share)));
    }
    if summary.unresolved_addresses > 0 {
        parts.push(format!(
            "{} of {} without a function",
            units::count(summary.unresolved_addresses),
            plural(summary.reported_addresses, "address", "addresses")
        ));
    }
    if parts.is_empty() { "nothing".into() } else { parts.join(", ") }
}

/// The number of leaks that do not fail the gate, for each reason. `None`: no leak passes the gate.
pub(crate) fn passed(analysis: &Analysis) -> Option<String> {
    let count = |is: fn(Standing) -> bool| analysis.with_standing(is).len() as u64;
    let parts = [
        (count(|standing| standing == Standing::InBaseline), "in the baseline"),
        (count(|standing| matches!(standing, Standing::Suppressed(_))), "suppressed"),
        (count(|standing| standing == Standing::Tolerated), "within the budget"),
    ];
    let unlisted = (analysis.unlisted_leaks(), "below what --min-class or --strict asks for");
    let parts = parts.into_iter().chain([unlisted]);
    let parts: Vec<String> = parts
        .filter(|(number, _)| *number > 0)
        .map(|(number, why)| format!("{} {why}", plural(number, "leak", "leaks")))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn hidden_by_top(report: &Report<'_>, analysis: &Analysis, top: usize) -> Option<String> {
    let leaks =
        analysis.with_standing(|standing| matches!(standing, Standing::Reported | Standing::Tolerated)).len();
    let shown = analysis.sites.iter().filter(|site| site.standing == Standing::Shown).count();
    let leaks = leaks - report.findings(analysis).len();
    let sites = shown - report.shown(analysis).len();
    let parts = [(leaks, "leak", "leaks"), (sites, "site", "sites")];
    let parts = parts.into_iter().filter(|(number, ..)| *number > 0);
    let parts: Vec<String> = parts.map(|(number, one, many)| plural(number as u64, one, many)).collect();
    (!parts.is_empty()).then(|| format!("{} beyond --top {top}", parts.join(" and ")))
}
