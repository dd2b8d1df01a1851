//! `edleak-record --pid` for a process whose malloc lies in its own executable.

use edleak_tests::ledger_program::{LedgerProgram, cycles_under_load_are_exact, phases_are_exact, recorder};
use edleak_tests::programs::allocators;
use edleak_tests::run::run;
use edleak_tests::temp::TempDir;

/// After each recording, the program frees the blocks of this recording.
fn jemalloc_of_the_program_is_exact(threads: u32) {
    let program = allocators().binary("ledger_jemalloc");
    phases_are_exact(LedgerProgram::start_program(&program, threads), 3, |target, report| {
        if let Some(report) = report {
            assert!(report.sites.iter().any(|site| site.counts.allocs > 0), "{}", report.describe());
            target.tell("drain");
        }
    });
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
