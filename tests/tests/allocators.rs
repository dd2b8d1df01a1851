//! Tests programs whose allocator is linked into the program or into a library. Each program counts its own
//! allocations in a ledger. edleak must count every allocation once, at its caller. The trace and the ledger
//! must contain the same numbers of allocations and of bytes.

use edleak_tests::analyze::analyze;
use edleak_tests::ledger::{Ledger, assert_equal, read_ledger};
use edleak_tests::programs::{allocators, rust_allocator};
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::run::{cannot_run, run};
use std::path::Path;
use std::process::Command;

/// Records a program that prints a ledger of its own allocations, and compares the trace with this ledger.
fn assert_exact(name: &str, program: &Path, args: &[&str]) -> (Recording, Ledger) {
    let recording = Recorder::new(name).record(program, args);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    assert!(!recording.outcome.stderr.contains("not counted"), "{}", recording.outcome.stderr);
    let ledger = read_ledger(&recording.outcome.stdout);
    let report = recording.all_sites();
    assert_equal(&report, &ledger);
    for site in &report.sites {
        assert!(
            site.stack.iter().all(|frame| !frame.module.contains("libedleak")),
            "a site of our own: {site:?}"
        );
    }
    (recording, ledger)
}

/// Records a Rust program whose global allocator is `allocator`, once with 1 thread and once with 8 threads.
fn assert_exact_in_rust(allocator: &str, profile: &str) {
    let program = rust_allocator(allocator, profile);
    assert_exact(&format!("rust-{allocator}-1"), &program, &["1", "1000000"]);
    assert_exact(&format!("rust-{allocator}-8"), &program, &["8", "200000"]);
}

#[test]
fn jemalloc_in_a_cpp_program_is_exact() {
    let program = allocators().binary("exact_jemalloc");
    assert_exact("jemalloc-1", &program, &["1", "1000000", "1"]);
    assert_exact("jemalloc-8", &program, &["8", "1000000", "2"]);
}

#[test]
fn tcmalloc_in_a_cpp_program_is_exact() {
    let program = allocators().binary("exact_tcmalloc");
    assert_exact("tcmalloc-1", &program, &["1", "1000000", "1"]);
    assert_exact("tcmalloc-8", &program, &["8", "1000000", "2"]);
}

#[test]
fn flags_and_sizes_in_place_of_jemalloc_are_exact() {
    let (_, ledger) = assert_exact("extended", &allocators().binary("extended_jemalloc"), &["400000"]);
    assert!(ledger.values().all(|counts| counts.allocs > 1000), "every function did its work: {ledger:?}");
}

#[test]
fn a_library_with_a_private_jemalloc_is_exact_beside_libc() {
    let (_, ledger) = assert_exact("private", &allocators().binary("private_library"), &["400000"]);
    assert!(ledger.values().all(|counts| counts.allocs > 1000), "both allocators did their work: {ledger:?}");
}

#[test]
fn private_allocators_of_every_known_name_are_exact() {
    let program = allocators().binary("prefixes");
    let recorder = Recorder::new("prefixes").options(["--allocator", "my_*"]);
    let recording = recorder.record(program, ["20000"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    assert!(!recording.outcome.stderr.contains("not counted"), "{}", recording.outcome.stderr);
    let ledger = read_ledger(&recording.outcome.stdout);
    assert!(ledger.values().all(|counts| counts.allocs == 20_000), "{ledger:?}");
    assert_equal(&recording.all_sites(), &ledger);
}

#[test]
fn jemalloc_of_a_rust_program_is_exact() {
    assert_exact_in_rust("jemalloc", "release");
}

#[test]
#[ignore = "builds the allocator once more, about a minute (cargo test -p edleak-tests --test allocators -- \
            --ignored)"]
fn jemalloc_of_a_rust_program_with_lto_is_exact() {
    assert_exact_in_rust("jemalloc", "lto");
}

#[test]
#[ignore = "builds the allocator, about a minute (cargo test -p edleak-tests --test allocators -- --ignored)"]
fn mimalloc_of_a_rust_program_is_exact() {
    assert_exact_in_rust("mimalloc", "release");
}

#[test]
#[ignore = "builds the allocator once more, about a minute (cargo test -p edleak-tests --test allocators -- \
            --ignored)"]
fn mimalloc_of_a_rust_program_with_lto_is_exact() {
    assert_exact_in_rust("mimalloc", "lto");
}

#[test]
fn watched_stacks_reach_through_an_allocator_of_the_program() {
    let recording = Recorder::new("watched-jemalloc")
        .options(["--watch", "*"])
        .record(allocators().binary("exact_jemalloc"), ["2", "200000", "3"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    assert_equal(&recording.all_sites(), &read_ledger(&recording.outcome.stdout));
}

#[test]
fn a_stripped_allocator_is_told_and_leaves_no_verdict() {
    let dir = edleak_tests::temp::TempDir::new("stripped-allocator");
    let stripped = dir.path().join("stripped");
    let strip =
        Command::new("strip").arg(rust_allocator("jemalloc", "release")).arg("-o").arg(&stripped).status();
    assert!(strip.expect("binutils are there").success());
    let plain = run(Command::new(&stripped).args(["1", "300000"]));
    let recording = Recorder::new("stripped-allocator").record(&stripped, ["1", "300000"]);
    assert_eq!(recording.outcome.stdout, plain.stdout);
    let stderr = &recording.outcome.stderr;
    assert!(stderr.contains("has jemalloc in it, whose functions have no names"), "{stderr}");
    assert_eq!(analyze([""; 0], &recording.trace).code, 2, "nothing of the program was seen");
}

// The kernel forbids the process to change its own code, as it does for a systemd service with the setting
// MemoryDenyWriteExecute.
#[test]
fn a_system_that_forbids_new_code_is_told_and_leaves_the_program_alone() {
    let program = allocators().binary("hardened_jemalloc");
    let plain = run(&mut Command::new(&program));
    let recording = Recorder::new("hardened").record(&program, [""; 0]);
    assert_eq!(recording.outcome.stdout, plain.stdout, "{}", recording.outcome.stderr);
    let stderr = &recording.outcome.stderr;
    if plain.stdout.contains("allowed") {
        return cannot_run("this kernel has no such rule (PR_SET_MDWE, Linux 6.3)");
    }
    assert!(stderr.contains("does not allow a program to change its code"), "{stderr}");
    assert_ne!(recording.outcome.code, 0, "an empty recording is no success");
}

#[test]
fn uncounted_functions_of_a_shared_allocator_leave_no_verdict() {
    let program = allocators().binary("hardened_shared_jemalloc");
    let recording = Recorder::new("hardened-shared").record(&program, ["3"]);
    if recording.outcome.stdout.contains("allowed") {
        return cannot_run("this kernel has no such rule (PR_SET_MDWE, Linux 6.3)");
    }
    assert_eq!(recording.outcome.stdout, "done\n", "{}", recording.outcome.stderr);
    assert!(recording.outcome.stderr.contains("are not counted"), "{}", recording.outcome.stderr);
    let report = recording.leaks();
    let functions = &report.json["uncounted_functions"][0];
    assert!(functions["module"].as_str().is_some_and(|name| name.starts_with("libjemalloc")), "{functions}");
    assert!(functions["functions"].to_string().contains("\"mallocx\""), "{functions}");
    let too_little = report.json["summary"]["too_little"].as_str().unwrap_or_default();
    assert!(too_little.contains("of libjemalloc.so.2 are not counted"), "{too_little}");
    assert_eq!(report.code, 2, "the leak is in no counted allocation");
    let text = analyze([""; 0], &recording.trace).stdout;
    assert!(text.contains("not counted"), "{text}");

    // With the argument `again`, the kernel permits the program to change its code. So edleak can write its
    // detours (jumps at the entries of the allocator's functions), and must find the leak.
    let counted = Recorder::new("shared").record(&program, ["3", "again"]);
    assert!(!counted.outcome.stderr.contains("not counted"), "{}", counted.outcome.stderr);
    let report = counted.leaks();
    assert_eq!((report.code, report.leaks().count()), (1, 1), "{}", report.describe());
    assert_eq!(report.json["uncounted_functions"].as_array().map(Vec::len), Some(0));
}

#[test]
fn an_allocator_of_a_library_that_is_loaded_late_is_told() {
    let library = allocators().binary("liblate.so");
    let recording = Recorder::new("late").record(allocators().binary("late_library"), [library.as_os_str()]);
    assert_eq!(recording.outcome.stdout, "done\n", "{}", recording.outcome.stderr);
    let stderr = &recording.outcome.stderr;
    assert_eq!(stderr.matches("it was loaded while the program ran").count(), 1, "{stderr}");
}

#[test]
fn a_forked_child_counts_on_with_the_detours_of_its_parent() {
    let recording = Recorder::new("forked-jemalloc")
        .options(["--children"])
        .record(allocators().binary("forked_jemalloc"), ["2000"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    assert!(!recording.outcome.stderr.contains("not counted"), "{}", recording.outcome.stderr);
    let traces = recording.dir.path().read_dir().expect("the directory of the trace").flatten();
    let child = traces
        .map(|entry| entry.path())
        .find(|path| *path != recording.trace && path.extension().is_some_and(|e| e == "edl"));
    let report = edleak_tests::report::Report::of(&child.expect("a trace of the child"), &["--all"]);
    assert_eq!(report.counts_of("site_child").allocs, 2000);
    assert_eq!(report.counts_of("site_child").frees, 2000);
}

#[test]
fn memory_that_an_allocator_of_the_program_retains_is_not_called_a_leak_or_outside_malloc() {
    let recording = Recorder::new("retaining").record(allocators().binary("retaining_jemalloc"), ["4"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let report = recording.leaks();
    assert_eq!(report.json["growth"]["kind"], "retained", "{}", report.json["growth"]);
    assert_eq!(report.leaks().count(), 0, "{}", report.describe());
}
