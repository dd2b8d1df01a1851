//! The top of the page: the verdict, and answers to the user's first questions. The questions are: is the
//! heap the cause, which site leaks, how fast, when does the leak matter, and which events did the recording
//! miss?

use crate::pace;
use crate::text::summary;
use edleak_analysis::analysis::Analysis;
use edleak_analysis::diff::Diff;
use edleak_analysis::finding::{Finding, totals};
use edleak_analysis::gate::{Outcome, outcome, too_little};
use edleak_analysis::outlook::Outlook;
use edleak_analysis::site::Standing;
use edleak_model::growth_kind::GrowthKind;
use edleak_text::units::{self, plural};

/// A piece of text; the flag tells whether the piece is a name, which the page shows in another style.
pub(super) type Piece = (String, bool);

/// The headline of a recording.
pub(super) struct Headline {
    /// The word that selects the symbol beside the verdict on the page: `leak`, `undecided`, `passed` (all
    /// leaks pass the gate) or `clean`.
    pub mark: &'static str,
    /// The verdict on the recording, in one sentence.
    pub verdict: String,
    /// Questions and answers. Each answer is a list of pieces of text.
    pub answers: Vec<(&'static str, Vec<Piece>)>,
    /// For each kind of event that the recording missed, one line. If the recording missed no event, `missed`
    /// is empty.
    pub missed: Vec<String>,
}

/// The leaks that fail the gate, as findings.
pub(super) fn reported(analysis: &Analysis) -> Vec<Finding<'_>> {
    analysis.with_standing(|standing| standing == Standing::Reported)
}

pub(super) fn headline(analysis: &Analysis, leaks: &[Finding<'_>], diff: Option<&Diff<'_>>) -> Headline {
    let number = leaks.len() as u64;
    let (rate, leaked) = totals(leaks);
    let (mark, verdict) = match (outcome(analysis), too_little(analysis)) {
        (Outcome::Leaks, _) if analysis.per_mark.is_some() => ("leak", by_iteration(analysis, leaks)),
        (Outcome::Leaks, _) => (
            "leak",
            format!("{}{}: {}", plural(number, "leak", "leaks"), summary::among(leaks), rates(rate, number)),
        ),
        (_, Some(why)) => ("undecided", format!("Undecided: {why}")),
        (_, None) => match &analysis.per_mark {
            Some(per_mark) => ("clean", format!("No leak in {}", per_mark.judged())),
            None => match summary::passed(analysis) {
                Some(passed) => ("passed", format!("No leak fails the gate: {passed}")),
                None => ("clean", "No leak".to_owned()),
            },
        },
    };
    let mut answers = vec![("Is it the heap?", plain(is_it_the_heap(analysis, mark == "clean")))];
    if let Some(worst) = leaks.first() {
        answers.push(("Who leaks?", who(worst)));
        let amount = format!(
            "{}; {} leaked in {}",
            rates(rate, number),
            units::bytes(leaked),
            units::duration(analysis.header.duration_s)
        );
        if analysis.per_mark.is_some() {
            answers.push(("How fast?", plain(by_iteration(analysis, leaks))));
        } else {
            answers.push(("How fast?", plain(amount)));
            answers.push(("When does it matter?", plain(when(analysis, rate))));
        }
    }
    if let Some(diff) = diff {
        answers.insert(0, ("What changed?", what_changed(diff)));
    }
    if let Some(marks) = summary::marks(analysis) {
        answers.push(("What was marked?", plain(marks)));
    }
    answers.push(("What was seen?", plain(summary::seen(&analysis.summary))));
    if let Some(passed) = summary::passed(analysis) {
        answers.push(("What passed?", plain(passed)));
    }
    Headline { mark, verdict, answers, missed: missed(analysis) }
}

fn by_iteration(analysis: &Analysis, leaks: &[Finding<'_>]) -> String {
    let by = |per_mark| summary::leaks_per_iteration(per_mark, leaks, &summary::among(leaks));
    analysis.per_mark.as_ref().map_or_else(String::new, by)
}

fn rates(rate: f64, number: u64) -> String {
    let together = if number > 1 { " together" } else { "" };
    format!("{}{together}", units::rate(rate))
}

/// Answers the question whether the heap is the cause of the growth. If `is_clean` is `true`, no site leaks.
fn is_it_the_heap(analysis: &Analysis, is_clean: bool) -> String {
    let answer = match analysis.growth.kind {
        GrowthKind::Live => "Yes",
        GrowthKind::Retained | GrowthKind::Outside => "No",
        GrowthKind::Unclear => "Perhaps",
        GrowthKind::None => "Nothing to explain",
        GrowthKind::Unknown => {
            return "The input does not say what the process held, or is too short to tell.".into();
        }
    };
    let but = match analysis.growth.kind {
        GrowthKind::Live if is_clean => ", but no site of it grows like a leak",
        _ => "",
    };
    format!("{answer}: {}{but}.", analysis.growth.sentence().unwrap_or_default())
}

fn plain(text: String) -> Vec<Piece> {
    vec![(text, false)]
}

fn who(worst: &Finding<'_>) -> Vec<Piece> {
    let mut pieces = vec![(worst.name(), true)];
    if let Some((file, line)) = worst.headline().and_then(|frame| frame.place()) {
        let line = if line == 0 { String::new() } else { format!(":{line}") };
        pieces.extend([(" at ".into(), false), (format!("{file}{line}"), true)]);
    }
    if worst.together.is_some() {
        pieces.push((format!(", at {} places in step,", worst.parts.len()), false));
    }
    pieces.push((format!(" leaks most: {}", pace(worst)), false));
    pieces
}

fn when(analysis: &Analysis, rate: f64) -> String {
    match Outlook::of(analysis, rate) {
        Some(outlook) => format!(
            "At this rate the process holds {} in {}; it held {} at the end.",
            units::bytes(outlook.reaches_bytes as f64),
            units::duration(outlook.in_s),
            units::bytes(outlook.holds_bytes as f64)
        ),
        None => "Not within ten years at this rate.".into(),
    }
}

/// Tells how many leaks are new, faster, unchanged, slower and gone since the other recording, and names the
/// leaks that need attention.
fn what_changed(diff: &Diff<'_>) -> Vec<Piece> {
    use edleak_analysis::baseline::Change;
    const NAMED: usize = 3;
    let count = |is: fn(&Change) -> bool| diff.leaks.iter().filter(|(_, change)| is(change)).count() as u64;
    let parts = [
        (count(|change| matches!(change, Change::New)), "new"),
        (count(|change| matches!(change, Change::Faster(_))), "faster"),
        (count(|change| matches!(change, Change::Same(_))), "the same"),
        (count(|change| matches!(change, Change::Slower(_))), "slower"),
        (diff.gone.len() as u64, "gone"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{} {word}", units::count(number)))
        .collect();
    if parts.is_empty() {
        return plain("No leak in either recording.".into());
    }
    let mut pieces = plain(format!("Leaks: {}.", parts.join(", ")));
    let names = |is: fn(&Change) -> bool| {
        diff.leaks.iter().filter(|(_, change)| is(change)).map(|(site, _)| site.name()).collect::<Vec<_>>()
    };
    for (word, names) in [
        ("New", names(|change| matches!(change, Change::New))),
        ("Faster", names(|change| matches!(change, Change::Faster(_)))),
        ("Gone", diff.gone.iter().map(|leak| leak.name.clone()).collect()),
    ] {
        for (i, name) in names.iter().take(NAMED).enumerate() {
            let before = if i == 0 { format!(" {word}: ") } else { ", ".into() };
            pieces.extend([(before, false), (name.clone(), true)]);
        }
        match names.len() {
            0 => {}
            all if all > NAMED => pieces.push((format!(" and {} more.", all - NAMED), false)),
            _ => pieces.push((".".into(), false)),
        }
    }
    pieces
}

fn missed(analysis: &Analysis) -> Vec<String> {
    let mut lines = Vec::new();
    if analysis.sites.is_empty() {
        lines.push("the recording holds no allocation site (was the program recorded at all?)".to_owned());
    }
    let missed = summary::missed(&analysis.summary);
    if missed != "nothing" {
        lines.push(missed);
    }
    if !analysis.header.complete {
        lines.push("the recording was cut short, still runs, or is damaged".to_owned());
    }
    if analysis.summary.unrequested_children > 0 {
        lines.push("child processes were not recorded (`edleak-record --children` records them)".to_owned());
    }
    let hints =
        analysis.outcomes.iter().filter(|outcome| outcome.needs_attention() && outcome.unresolved > 0);
    lines.extend(hints.take(4).map(ToString::to_string));
    lines
}
