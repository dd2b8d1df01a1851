//! `edleak-record --pid` for a process whose malloc lies in its own executable.

use edleak_tests::ledger::assert_equal;
use edleak_tests::ledger_program::{
    LedgerProgram, ask, cycles_under_load_are_exact, recorder, report_of, stop,
};
use edleak_tests::programs::allocators;
use edleak_tests::run::run;
use edleak_tests::temp::TempDir;

/// The counters of each recording equal the ledger, and the blocks of one recording are freed after it.
fn jemalloc_of_the_program_is_exact(threads: u32) {
    let dir = TempDir::new("attach-jemalloc");
    let program = allocators().binary("ledger_jemalloc");
    let mut target = LedgerProgram::start_program(&program, threads);
    for cycle in 0..3 {
        let trace = dir.join(format!("{cycle}.edl"));
        target.tell("go");
        target.tell("pause");
        target.tell("reset");
        let recorder = ask(target.pid(), &trace, &[]);
        target.tell("tick");
        target.tell("go");
        std::thread::sleep(std::time::Duration::from_millis(20 * (cycle + 1)));
        target.tell("pause");
        let ledger = target.ledger();
        stop(recorder);
        let report = report_of(&trace);
        assert_equal(&report, &ledger);
        assert!(ledger.values().any(|counts| counts.allocs > 0), "{ledger:?}");
        assert_eq!(report.json["trace"]["attached"], true);
        target.tell("drain");
    }
}

#[test]
fn jemalloc_in_the_program_is_exact_with_one_thread() {
    jemalloc_of_the_program_is_exact(1);
}

#[test]
fn jemalloc_in_the_program_is_exact_with_eight_threads() {
    jemalloc_of_the_program_is_exact(8);
}

#[test]
fn jemalloc_in_the_program_is_exact_under_load() {
    let program = allocators().binary("ledger_jemalloc");
    cycles_under_load_are_exact(LedgerProgram::start_program(&program, 8), 6);
}

#[test]
fn killed_recorder_leaves_a_program_with_jemalloc_running() {
    let dir = TempDir::new("attach-jemalloc-killed");
    let program = allocators().binary("ledger_jemalloc");
    for step in ["inside", "half", "all"] {
        let mut target = LedgerProgram::start_program(&program, 4);
        target.tell("go");
        let killed = run(&mut recorder(target.pid(), &dir.join("killed.edl"), &["--die-at", step]));
        assert_eq!(killed.code, 128 + libc::SIGKILL, "{step}: {}", killed.stderr);
        target.tell("pause");
        target.tell("go");
        target.tell("drain");
        assert_eq!(target.tell("pause"), "", "{step}: the program answers");
    }
}
