//! Measures how much memory a recording adds to the target, and how much free memory the target's allocator
//! keeps.

use edleak_tests::programs::programs;
use edleak_tests::record::Recorder;
use edleak_tests::run::{Outcome, run};
use std::process::Command;

fn number(outcome: &Outcome) -> u64 {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.stdout.trim().parse().expect("the program prints a number")
}

fn plain_and_recorded(args: &[&str]) -> (u64, u64) {
    let plain = number(&run(Command::new(programs().binary("memory")).args(args)));
    let recorded = number(&Recorder::new("memory").record(programs().binary("memory"), args).outcome);
    eprintln!("{args:?}: {plain} plain, {recorded} recorded");
    (plain, recorded)
}

/// Recording adds at most one fifth to the memory of a program with small allocations. The cost of the side
/// table is greatest for small allocations.
#[test]
fn a_heap_of_small_allocations_grows_by_a_fifth_at_most() {
    let (plain, recorded) = plain_and_recorded(&["heap"]);
    assert!(plain > 100_000, "two million allocations take more than {plain} KiB");
    assert!(recorded * 5 <= plain * 6, "{recorded} KiB recorded, {plain} KiB plain");
}

/// A page of the side table covers 32 KiB of heap. So with edleak, 64 MiB of heap may cause 2,048 more page
/// faults than without edleak: one for each page of the side table. If edleak reads a page of the side table
/// first and writes it later, the write must cause no second fault. The test permits 300 further faults for
/// pages of the session.
#[test]
fn each_page_of_the_side_table_causes_one_page_fault() {
    for bytes in ["512", "20000", "40000"] {
        let (plain, recorded) = plain_and_recorded(&["faults", bytes]);
        let added = recorded.saturating_sub(plain);
        assert!((1_000..2_048 + 300).contains(&added), "blocks of {bytes} bytes: {added} more page faults");
    }
}

/// The program has 1,000 threads, and each thread uses 5,000 sites. edleak may add less than 72 MiB to the
/// program's memory: 64 MiB of counters, and 8 MiB of other memory, whose size is fixed.
#[test]
fn counters_are_bounded_with_threads() {
    let (plain, recorded) = plain_and_recorded(&["threads"]);
    assert!(recorded.saturating_sub(plain) < (64 + 8) * 1024, "{recorded} KiB recorded, {plain} KiB plain");
}

/// Compares the free memory in edleak's report with the figures of glibc (`mallinfo2`). glibc also counts the
/// unused end of each arena as free, but the pages of this end are not resident.
#[test]
fn free_memory_is_told_by_arena_as_glibc_counts_it() {
    const REST: u64 = 192 * 1024;
    let recording = Recorder::new("free-arenas").record(programs().binary("free_arenas"), [""; 0]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let counted: u64 = recording.outcome.stdout.trim().parse().expect("the program prints a number");
    assert!(counted > 14_000_000, "four arenas with nearly 4 MB each: {counted}");
    let report = recording.all_sites();
    let free = &report.json["growth"]["free"];
    let bytes = |field: &str| free[field].as_u64().unwrap_or(0);
    let found = bytes("main_bytes") + bytes("other_bytes");
    assert!(found <= counted && found + REST >= counted, "{free}, glibc counts {counted}");
    assert_eq!(bytes("others"), 3, "{free}");
    assert!(bytes("other_bytes") > 2 * bytes("main_bytes"), "{free}");
}
