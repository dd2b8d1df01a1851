//! JUnit XML: one test suite per recording.
//!
//! A leak is a failed test, and a leak that the gate lets pass is a skipped test. A recording that shows too
//! little is an error. A clean recording is a passed test.

use super::{Exporter, Report, pace, stack_text, why_of};
use edleak_analysis::finding::Finding;
use edleak_analysis::findings::Findings;
use edleak_analysis::gate::{Outcome, outcome, too_little};
use edleak_analysis::site::Standing;
use edleak_text::units;
use std::io::{self, Write};

/// The JUnit exporter.
#[derive(Clone, Copy, Debug)]
pub struct Junit;

impl Exporter for Junit {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
        writeln!(out, "<testsuites name=\"edleak\">")?;
        report.analyses.iter().try_for_each(|analysis| suite(analysis, out))?;
        writeln!(out, "</testsuites>")
    }
}

/// The decisions of the gate for leaks that fail nothing.
const PASSING: [fn(Standing) -> bool; 3] = [
    |standing| standing == Standing::InBaseline,
    |standing| matches!(standing, Standing::Suppressed(_)),
    |standing| standing == Standing::Tolerated,
];

fn suite(analysis: &Findings, out: &mut dyn Write) -> io::Result<()> {
    let failed = analysis.with_standing(|standing| standing == Standing::Reported);
    let skipped: Vec<Finding<'_>> =
        PASSING.iter().flat_map(|&passes| analysis.with_standing(passes)).collect();
    let undecided = too_little(analysis).filter(|_| outcome(analysis) == Outcome::Undecided);
    let class = if analysis.header.command.is_empty() {
        analysis.source.clone()
    } else {
        analysis.header.command.join(" ")
    };
    writeln!(
        out,
        r#"  <testsuite name="{}" tests="{}" failures="{}" errors="{}" skipped="{}" time="{:.3}">"#,
        escape(&analysis.source),
        1 + failed.len() + skipped.len(),
        failed.len(),
        u8::from(undecided.is_some()),
        skipped.len(),
        analysis.header.duration_s,
    )?;
    write!(out, r#"    <testcase classname="{}" name="enough to judge""#, escape(&class))?;
    match undecided {
        None => writeln!(out, "/>")?,
        Some(reason) => {
            writeln!(out, "><error type=\"undecided\" message=\"{}\"/></testcase>", escape(&reason))?
        }
    }
    for finding in &failed {
        let message = format!(
            "{} leak of {}: {} leaked. {}",
            finding.lead().judgement.class.name(),
            pace(finding),
            units::bytes(finding.leak_bytes()),
            why_of(finding)
        );
        let (class, name) = (escape(&class), escape(&format!("no leak in {}", finding.name())));
        writeln!(out, r#"    <testcase classname="{class}" name="{name}">"#)?;
        writeln!(
            out,
            "      <failure type=\"leak\" message=\"{}\">{}</failure>",
            escape(&message),
            escape(&stack_text(finding))
        )?;
        writeln!(out, "    </testcase>")?;
    }
    for finding in &skipped {
        let (class, name) = (escape(&class), escape(&format!("no leak in {}", finding.name())));
        let reason = finding.lead().standing.as_str();
        writeln!(
            out,
            r#"    <testcase classname="{class}" name="{name}"><skipped message="{reason}"/></testcase>"#
        )?;
    }
    writeln!(out, "  </testsuite>")
}

/// Escapes a text. XML 1.0 cannot represent most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_templates_survive_xml() {
        assert_eq!(escape("std::vector<int>::push \"&\u{1}"), "std::vector&lt;int&gt;::push &quot;&amp;?");
    }
}
