//! GitHub annotations, one for each leak: `::error file=src/list.c,line=42,title=…::…`. GitHub shows each
//! annotation in the pull request, at the line of code that the annotation names.

use super::{Exporter, Report, pace, source_path, stack_text, why_of};
use edleak_analysis::finding::Finding;
use edleak_analysis::gate::too_little;
use edleak_text::units;
use std::io::{self, Write};

/// The exporter of GitHub annotations.
#[derive(Clone, Debug)]
pub struct Github {
    /// The root directory of the repository. GitHub expects paths relative to the root directory, so the
    /// exporter removes the root directory from the paths of source files.
    pub root: String,
}

impl Exporter for Github {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        for analysis in report.analyses {
            let findings = report.reported(analysis);
            for finding in &findings {
                let place = finding.headline().and_then(|frame| frame.place()).map_or_else(
                    String::new,
                    |(file, line)| {
                        format!("file={},line={},", property(source_path(file, &self.root)), line.max(1))
                    },
                );
                let title = format!("memory leak in {}", finding.name());
                writeln!(out, "::error {place}title={}::{}", property(&title), data(&message(finding)))?;
            }
            if let Some(why) = too_little(analysis).filter(|_| findings.is_empty()) {
                writeln!(out, "::warning title=edleak::{}", data(&format!("undecided: {why}")))?;
            }
        }
        Ok(())
    }
}

fn message(finding: &Finding<'_>) -> String {
    let text = format!(
        "{} growth, {}, {} leaked: {}",
        finding.lead().judgement.class.name(),
        pace(finding),
        units::bytes(finding.leak_bytes()),
        why_of(finding)
    );
    text + &stack_text(finding)
}

/// Replaces control characters in a text, because names may contain control characters. Encodes line breaks
/// as GitHub expects.
fn data(text: &str) -> String {
    let text = text.replace(|c: char| c.is_control() && c != '\n' && c != '\r', "?");
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_in_properties_are_escaped() {
        assert_eq!(property("a:b,c%\n"), "a%3Ab%2Cc%25%0A");
        assert_eq!(data("a:b,c%\n\u{1b}[m"), "a:b,c%25%0A?[m");
    }
}
