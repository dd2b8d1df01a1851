//! Tests the command line of edleak-record.

mod exit;
mod processes;
mod refused;
mod trace_file;

use edleak_tests::run::Outcome;

/// Asserts that edleak-record printed one line with the reason, did not panic, and started nothing.
fn assert_refused(outcome: &Outcome, what: &str, expected: &[&str]) {
    assert!(outcome.code != 0 && outcome.code < 128, "{what}: exit code {}", outcome.code);
    assert_eq!(outcome.stdout, "", "{what}");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{what}: one line, not {}: {}", lines.len(), outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
    for text in expected {
        assert!(outcome.stderr.contains(text), "{what}: `{text}` is not in: {}", outcome.stderr);
    }
}
