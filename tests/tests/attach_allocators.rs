//! Tests `edleak-record --pid` for a process whose allocator is not libc's malloc, but another allocator in
//! the executable or in a library.

use edleak_tests::analyze::analyze;
use edleak_tests::fed::Fed;
use edleak_tests::ledger::{assert_equal, read_ledger};
use edleak_tests::ledger_program::{
    LedgerProgram, ask, cycles_under_load_are_exact, phases_are_exact, recorder, report_of, stop,
    wait_for_recording,
};
use edleak_tests::programs::{allocators, rust_allocator};
use edleak_tests::run::run;
use edleak_tests::temp::TempDir;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Records several phases of the program. After each recording, the program frees the blocks that it
/// allocated during this recording.
fn phases_of_the_program_are_exact(program: &Path, threads: u32) {
    phases_are_exact(LedgerProgram::start_program(program, threads), 3, |target, report| {
        if let Some(report) = report {
            assert!(report.sites.iter().any(|site| site.counts.allocs > 0), "{}", report.describe());
            assert_eq!(report.json["uncounted_functions"].as_array().map(Vec::len), Some(0));
            target.tell("drain");
        }
    });
}

fn program(name: &str) -> PathBuf {
    allocators().binary(name)
}

#[test]
fn jemalloc_in_the_program_is_exact_with_one_thread() {
    phases_of_the_program_are_exact(&program("ledger_jemalloc"), 1);
}

#[test]
fn jemalloc_in_the_program_is_exact_with_eight_threads() {
    phases_of_the_program_are_exact(&program("ledger_jemalloc"), 8);
}

#[test]
fn jemalloc_in_the_program_is_exact_under_load() {
    cycles_under_load_are_exact(LedgerProgram::start_program(&program("ledger_jemalloc"), 8), 6);
}

#[test]
fn tcmalloc_in_the_program_is_exact() {
    phases_of_the_program_are_exact(&program("ledger_tcmalloc"), 1);
    phases_of_the_program_are_exact(&program("ledger_tcmalloc"), 8);
}

/// tikv-jemallocator gives its functions a prefix, so the program has two allocators: jemalloc and libc's
/// malloc.
#[test]
fn jemalloc_of_a_rust_program_is_exact() {
    let program = rust_allocator("jemalloc", "release");
    phases_of_the_program_are_exact(&program, 1);
    phases_of_the_program_are_exact(&program, 8);
}

#[test]
fn jemalloc_of_a_rust_program_is_exact_under_load() {
    let program = rust_allocator("jemalloc", "release");
    cycles_under_load_are_exact(LedgerProgram::start_program(&program, 8), 6);
}

#[test]
#[ignore = "builds the allocator, about a minute (test attach_allocators, -- --ignored)"]
fn mimalloc_of_a_rust_program_is_exact() {
    let program = rust_allocator("mimalloc", "release");
    phases_of_the_program_are_exact(&program, 1);
    phases_of_the_program_are_exact(&program, 8);
    cycles_under_load_are_exact(LedgerProgram::start_program(&program, 8), 6);
}

#[test]
fn jemalloc_of_a_library_is_exact_beside_libc() {
    let dir = TempDir::new("attach-private");
    let mut target = Fed::start(&program("private_library"), &["400000", "wait"], "ready");
    let trace = dir.join("trace.edl");
    let recorder = ask(target.pid(), &trace, &[]);
    writeln!(target.input(), "go").expect("it reads");
    let ledger = read_ledger(&target.finish());
    let outcome = recorder.finish();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("not counted"), "{}", outcome.stderr);
    assert!(ledger.values().all(|counts| counts.allocs > 1000), "both allocators did their work: {ledger:?}");
    assert_equal(&report_of(&trace), &ledger);
}

/// Kills edleak-record at each step of an attach that writes jumps into two modules. The program must run on,
/// and the next recording must count correctly.
fn killed_recorder_leaves_the_program_running(name: &str, program: &Path) {
    let dir = TempDir::new("attach-killed");
    for step in ["inside", "code", "half", "all"] {
        let mut target = LedgerProgram::start_program(program, 4);
        target.tell("go");
        let killed = run(&mut recorder(target.pid(), &dir.join("killed.edl"), &["--die-at", step]));
        assert_eq!(killed.code, 128 + libc::SIGKILL, "{name} {step}: {}", killed.stderr);
        target.tell("pause");
        target.tell("go");
        target.tell("drain");
        assert_eq!(target.tell("pause"), "", "{name} {step}: the program answers");
        phases_are_exact(target, 1, |_, _| {});
    }
}

#[test]
fn killed_recorder_leaves_a_program_with_jemalloc_running() {
    killed_recorder_leaves_the_program_running("C++", &program("ledger_jemalloc"));
    killed_recorder_leaves_the_program_running("Rust", &rust_allocator("jemalloc", "release"));
}

#[test]
fn stripped_allocator_is_told_and_leaves_no_verdict() {
    let dir = TempDir::new("attach-stripped");
    let stripped = dir.join("stripped");
    let mut strip = Command::new("strip");
    let status = strip.arg(rust_allocator("jemalloc", "release")).arg("-o").arg(&stripped).status();
    assert!(status.expect("binutils are there").success());
    let mut target = LedgerProgram::start_program(&stripped, 1);
    let trace = dir.join("trace.edl");
    target.tell("go");
    let silent = ask(target.pid(), &trace, &[]);
    silent.signal(libc::SIGINT);
    let silent = silent.finish();
    assert_eq!(silent.code, 125, "{}", silent.stderr);
    assert!(silent.stderr.contains("has jemalloc in it, whose functions have no names"), "{}", silent.stderr);
    let recorder = ask(target.pid(), &trace, &[]);
    target.tell("libc");
    wait_for_recording(target.pid());
    target.tell("go");
    target.tell("pause");
    let outcome = stop(recorder);
    assert!(
        outcome.stderr.contains("has jemalloc in it, whose functions have no names"),
        "{}",
        outcome.stderr
    );
    assert_eq!(analyze([""; 0], &trace).code, 2, "nothing of the program was seen");
}
