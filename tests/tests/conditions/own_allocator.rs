//! A linked allocator with its own function names: edleak sees none of its allocations, and says so once.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::programs;
use edleak_tests::record::Recorder;

#[test]
fn a_program_with_a_private_allocator_is_not_called_recorded() {
    let recording = Recorder::new("private-malloc").record(programs().binary("private_malloc"), [""; 0]);
    let stderr = &recording.outcome.stderr;
    assert_eq!((recording.outcome.code, &*recording.outcome.stdout), (126, "ok\n"), "{stderr}");
    assert!(stderr.contains("allocates through its own `mi_malloc`, which edleak does not see"), "{stderr}");
    assert!(!stderr.contains("next: edleak-analyze") && !stderr.contains("nothing was recorded"), "{stderr}");
    assert_eq!(analyze([""; 0], &recording.trace).code, 2, "its trace is no clean bill of health");
}

#[test]
fn a_failing_program_with_a_private_allocator_keeps_its_exit_code() {
    let recording = Recorder::new("private-malloc").record(programs().binary("private_malloc"), ["5"]);
    assert_eq!(recording.outcome.code, 5, "{}", recording.outcome.stderr);
}
