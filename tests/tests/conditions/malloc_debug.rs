//! Tests glibc's library for malloc debugging, which a user preloads. glibc's library must see the program's
//! calls while edleak counts them.

use edleak_tests::programs::programs;
use edleak_tests::record::Recorder;
use edleak_tests::run::{Outcome, run};
use edleak_tests::temp::TempDir;
use std::path::Path;
use std::process::Command;

const DEBUG: &str = "libc_malloc_debug.so.0";

/// The operations and sizes in a log of `mtrace`, without the addresses, which differ between runs.
fn operations(protocol: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(protocol).expect("mtrace has written it");
    let operation = |line: &str| {
        let (_, call) = line.split_once("] ")?;
        let mut words = call.split(' ');
        let (sign, size) = (words.next()?, words.nth(1).unwrap_or(""));
        Some(format!("{sign}{size}"))
    };
    text.lines().filter_map(operation).collect()
}

/// Runs the program malloc_debug twice: without edleak, and recorded by edleak. Returns the outcome and the
/// log of each run.
fn both(dir: &TempDir, variables: &[(&str, &str)]) -> [(Outcome, Vec<String>); 2] {
    let program = programs().binary("malloc_debug");
    let run_one = |name: &str, mut command: Command| {
        let protocol = dir.join(name);
        command.env("MALLOC_TRACE", &protocol).env("LD_PRELOAD", DEBUG).envs(variables.iter().copied());
        let outcome = run(&mut command);
        (outcome, operations(&protocol))
    };
    let plain = run_one("plain.txt", Command::new(&program));
    let recorder = Recorder::new("malloc-debug");
    let recorded = run_one("recorded.txt", recorder.command(&dir.join("t.edl"), &program, [""; 0]));
    [plain, recorded]
}

#[test]
fn mtrace_writes_the_same_protocol_when_recorded() {
    let dir = TempDir::new("mtrace");
    let [(plain, expected), (recorded, protocol)] = both(&dir, &[]);
    assert_eq!((plain.code, recorded.code), (0, 0), "{recorded:?}");
    assert!(expected.len() >= 32, "{expected:?}");
    assert_eq!(protocol, expected);
    let report = edleak_tests::report::Report::of(&dir.join("t.edl"), &["--all", "--min-class", "constant"]);
    let counts = report.counts_of("site_a");
    assert_eq!((counts.allocs, counts.frees), (20, 11), "{}", report.describe());
}

#[test]
fn checked_blocks_have_the_same_usable_size_when_recorded() {
    let dir = TempDir::new("malloc-check");
    let [(unchecked, _), _] = both(&dir, &[]);
    let [(plain, _), (recorded, _)] = both(&dir, &[("MALLOC_CHECK_", "3")]);
    assert_ne!(plain.stdout, unchecked.stdout, "MALLOC_CHECK_ changes the usable sizes");
    assert_eq!(recorded.stdout, plain.stdout);
}
