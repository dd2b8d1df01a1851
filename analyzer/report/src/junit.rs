//! JUnit XML: one test suite per recording.
//!
//! A leak is a failed test, and a leak that the gate lets pass is a skipped test. If a recording is too short
//! for a verdict or has too little data, the test suite has an error. For a recording without leaks, all
//! tests have passed.

use super::{Exporter, Report, pace, stack_text, why_of};
use crate::text::printable;
use edleak_analysis::analysis::Analysis;
use edleak_analysis::finding::Finding;
use edleak_analysis::gate::{Outcome, outcome, too_little};
use edleak_analysis::site::Standing;
use edleak_text::units;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use std::io::{self, Write};
use std::time::Duration;

/// The JUnit exporter.
#[derive(Clone, Copy, Debug)]
pub struct Junit;

impl Exporter for Junit {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        let mut suites = quick_junit::Report::new("edleak");
        suites.add_test_suites(report.analyses.iter().map(suite));
        suites.serialize(out).map_err(io::Error::other)
    }
}

/// One function for each reason for which the gate lets a leak pass; the function returns `true` if its
/// reason applies.
const PASSING: [fn(Standing) -> bool; 3] = [
    |standing| standing == Standing::InBaseline,
    |standing| matches!(standing, Standing::Suppressed(_)),
    |standing| standing == Standing::Tolerated,
];

fn suite(analysis: &Analysis) -> TestSuite {
    let class = match analysis.header.command.join(" ") {
        command if command.is_empty() => printable(&analysis.source),
        command => printable(&command),
    };
    let case = |name: &str, status: TestCaseStatus| {
        let mut case = TestCase::new(printable(name), status);
        case.set_classname(class.as_str());
        case
    };
    let mut suite = TestSuite::new(printable(&analysis.source));
    // If the input does not come from edleak, its duration may be too large for `Duration`. A test suite
    // whose duration is too large gets no time.
    if let Ok(duration) = Duration::try_from_secs_f64(analysis.header.duration_s) {
        suite.set_time(duration);
    }
    let undecided = too_little(analysis).filter(|_| outcome(analysis) == Outcome::Undecided);
    suite.add_test_case(case(
        "enough to judge",
        undecided.map_or_else(TestCaseStatus::success, |reason| {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_type("undecided").set_message(printable(&reason));
            status
        }),
    ));
    for finding in analysis.with_standing(|standing| standing == Standing::Reported) {
        let message = format!(
            "{} leak of {}: {} leaked. {}",
            finding.lead().judgement.class.name(),
            pace(&finding),
            units::bytes(finding.leak_bytes()),
            why_of(&finding)
        );
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        // quick_junit leaves out characters that XML cannot represent.
        status.set_type("leak").set_message(printable(&message)).set_description(stack_text(&finding));
        suite.add_test_case(case(&name_of(&finding), status));
    }
    for finding in PASSING.iter().flat_map(|&passes| analysis.with_standing(passes)) {
        let mut status = TestCaseStatus::skipped();
        status.set_message(finding.lead().standing.as_str());
        suite.add_test_case(case(&name_of(&finding), status));
    }
    suite
}

fn name_of(finding: &Finding<'_>) -> String {
    format!("no leak in {}", finding.name())
}
