//! Tests an allocator that is linked into the program under its own function names. edleak counts the
//! allocations of this allocator. If the program is stripped, edleak cannot find the functions of the
//! allocator, and edleak-analyze must not exit with 0.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::programs;
use edleak_tests::record::Recorder;
use edleak_tests::temp::TempDir;
use std::process::Command;

#[test]
fn private_allocator_of_a_program_is_counted() {
    let recording = Recorder::new("private-malloc").record(programs().binary("private_malloc"), [""; 0]);
    let stderr = &recording.outcome.stderr;
    assert_eq!((recording.outcome.code, &*recording.outcome.stdout), (0, "ok\n"), "{stderr}");
    let counts = recording.all_sites().counts_of("main");
    assert_eq!((counts.allocs, counts.allocated_bytes, counts.frees), (500, 10_000_000, 0));
}

#[test]
fn private_allocator_without_names_does_not_pass() {
    let dir = TempDir::new("nameless-malloc");
    let stripped = dir.join("stripped");
    let strip =
        Command::new("strip").arg(programs().binary("private_malloc")).arg("-o").arg(&stripped).status();
    assert!(strip.expect("binutils are there").success());
    let recording = Recorder::new("nameless-malloc").record(&stripped, [""; 0]);
    assert_eq!(&*recording.outcome.stdout, "ok\n");
    // edleak sees that the allocator maps 1 MiB ten times, but does not see the calls of the allocator.
    let analysis = analyze([""; 0], &recording.trace);
    assert_ne!(analysis.code, 0, "{}", analysis.stdout);
}

#[test]
fn failing_program_with_a_private_allocator_keeps_its_exit_code() {
    let recording = Recorder::new("private-malloc").record(programs().binary("private_malloc"), ["5"]);
    assert_eq!(recording.outcome.code, 5, "{}", recording.outcome.stderr);
}
