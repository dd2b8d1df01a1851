//! Tests that the report tells what edleak could not count. tests/programs/losses.c makes edleak lose calls.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::programs;
use edleak_tests::record::{Recorder, Recording};

fn recorded(kind: &str, options: &[&str]) -> Recording {
    let recording = Recorder::new(kind)
        .options(["--period", "20ms"])
        .options(options)
        .record(programs().binary("losses"), [kind]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    recording
}

fn text(recording: &Recording) -> String {
    let text = analyze([] as [&str; 0], &recording.trace).stdout;
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn calls_of_mmap_beyond_the_ring_are_told() {
    let recording = recorded("mappings", &[]);
    let lost = recording.all_sites().json["mapped"]["lost_events"].as_u64().expect("a number");
    // The program makes 140,000 calls, and the ring of a stopped collector has room for 65,536.
    assert!((74_000..76_000).contains(&lost), "{lost}");
    assert!(text(&recording).contains("at least"), "{}", text(&recording));
}

#[test]
fn stacks_beyond_the_table_are_told_and_their_allocations_counted() {
    let recording = recorded("stacks", &["--watch", "descend"]);
    let text = text(&recording);
    assert!(text.contains("7,232 lost stacks"), "40,000 - 32,768: {text}");
    // The allocations of the program, and the buffer of its standard output.
    assert!(text.contains("in 40,001"), "{text}");
}

/// The system refuses memory for the side table, so the library cannot count the allocations in some leaves.
#[test]
fn allocations_without_memory_for_the_table_are_told_and_undecided() {
    let recording = recorded("allocations", &[]);
    assert_eq!(recording.outcome.stdout, "1\n", "the program got its memory");
    let report = recording.all_sites();
    let untracked = report.summary("untracked_allocs");
    assert!((50..150).contains(&untracked), "{untracked}");
    assert_eq!(report.code, 2, "{}", report.describe());
    assert!(text(&recording).contains("allocations could not be counted"), "{}", text(&recording));
}
