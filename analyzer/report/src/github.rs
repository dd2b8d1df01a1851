//! GitHub annotations, one per leak: `::error file=src/list.c,line=42,title=…::…`. A pull request shows each
//! annotation beside its line.

use super::{Exporter, Report, source_path, stack_text, why};
use edleak_analysis::findings::Findings;
use edleak_analysis::gate::too_little;
use edleak_analysis::site::JudgedSite;
use edleak_text::units;
use std::io::{self, Write};

/// The exporter of annotations.
#[derive(Clone, Debug)]
pub struct Github {
    /// The root of the repository. The exporter prints paths below the root relative to it, as GitHub
    /// expects.
    pub root: String,
}

impl Exporter for Github {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        for analysis in report.analyses {
            for site in report.reported(analysis) {
                let place = site.headline().and_then(|frame| frame.place()).map_or_else(
                    String::new,
                    |(file, line)| {
                        format!("file={},line={},", property(source_path(file, &self.root)), line.max(1))
                    },
                );
                let title = format!("memory leak in {}", site.name());
                writeln!(
                    out,
                    "::error {place}title={}::{}",
                    property(&title),
                    data(&message(analysis, site))
                )?;
            }
            if let Some(why) = too_little(analysis).filter(|_| report.reported(analysis).next().is_none()) {
                writeln!(out, "::warning title=edleak::{}", data(&format!("undecided: {why}")))?;
            }
        }
        Ok(())
    }
}

fn message(analysis: &Findings, site: &JudgedSite) -> String {
    let judgement = &site.judgement;
    let text = format!(
        "{} growth, {}, {} leaked: {}",
        judgement.class.name(),
        units::rate(judgement.rate_bytes_per_s),
        units::bytes(judgement.leak_bytes as f64),
        why(site)
    );
    text + &stack_text(analysis, site)
}

/// Replaces control characters, which may occur in names, and encodes line breaks in GitHub's way.
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
