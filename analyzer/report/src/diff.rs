//! Two recordings beside each other: which leaks are new, gone, faster, slower, or the same.

use crate::text::{Style, WIDTH, fill, printable};
use edleak_analysis::analysis::{Analysis, JudgedSite};
use edleak_analysis::baseline::{Baseline, Change, KnownLeak};
use edleak_analysis::gate::{Outcome, too_little};
use edleak_text::units;
use serde_json::json;
use std::io::{self, Write};

/// What changed from one recording to another.
#[derive(Debug)]
pub struct Diff<'a> {
    /// Every leak of the second one, and how it compares.
    pub leaks: Vec<(&'a JudgedSite, Change)>,
    /// The leaks of the first one that the second one has not.
    pub gone: Vec<KnownLeak>,
    /// The recordings that say too little, and why: what they do not show may be there all the same.
    pub undecided: Vec<String>,
}

impl<'a> Diff<'a> {
    /// Compares; both have to be symbolized.
    pub fn of(before: &Analysis, after: &'a Analysis) -> Self {
        let leaks: Vec<&JudgedSite> = after.sites.iter().filter(|site| site.is_leak()).collect();
        let baseline = Baseline::of(before);
        let (changes, gone) = baseline.compare(&leaks);
        let gone = gone.into_iter().cloned().collect();
        let undecided = [before, after]
            .iter()
            .filter_map(|analysis| Some(format!("{}: {}", analysis.source, too_little(analysis)?)))
            .collect();
        Self { leaks: leaks.into_iter().zip(changes).collect(), gone, undecided }
    }

    /// What it means for the build: leaks if something became worse.
    pub fn outcome(&self) -> Outcome {
        match () {
            () if self.leaks.iter().any(|(_, change)| !change.is_known()) => Outcome::Leaks,
            () if !self.undecided.is_empty() => Outcome::Undecided,
            () => Outcome::Clean,
        }
    }

    /// A line per leak, the worst first.
    pub fn write_text(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let mut lines: Vec<(u8, String)> = self
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
            self.gone
                .iter()
                .map(|leak| (4, line("gone", &units::rate(leak.rate_bytes_per_s), "-", &leak.name))),
        );
        lines.sort_by_key(|(rank, _)| *rank);
        if !lines.is_empty() {
            writeln!(out, "{}", line("", "was", "is", "leak"))?;
        } else if self.undecided.is_empty() {
            return writeln!(out, "no leak in either recording");
        }
        lines.iter().try_for_each(|(_, line)| writeln!(out, "{}", style.clip_end(line, WIDTH)))?;
        let undecided = self.undecided.iter().map(|why| format!("undecided: {}", printable(why)));
        undecided.flat_map(|why| fill(&why, "", "  ", WIDTH)).try_for_each(|line| writeln!(out, "{line}"))
    }

    /// One object: `undecided`, and `leaks` with `change`, `was_bytes_per_s` and `is_bytes_per_s` each.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let now = self.leaks.iter().map(|(site, change)| {
            let (_, word, was) = word_of(*change);
            json!({
                "change": word,
                "id": site.label.to_string(),
                "name": site.name(),
                "was_bytes_per_s": was,
                "is_bytes_per_s": site.judgement.rate_bytes_per_s,
            })
        });
        let gone = self.gone.iter().map(|leak| {
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
            &json!({ "format_version": 1, "leaks": leaks, "undecided": self.undecided }),
        )?;
        writeln!(out)
    }
}

/// Rank, word, and the rate before.
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
