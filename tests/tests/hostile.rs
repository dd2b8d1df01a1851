//! Tests hostile targets that attack the recording, and other users who try to open the trace or the shared
//! memory. The collector must not crash or hang, must not use more memory than usual, and must write only its
//! own trace.

#![allow(unsafe_code)] // calls geteuid(2)

use edleak_tests::analyze::analyze;
use edleak_tests::programs::{programs, samples};
use edleak_tests::record::Recorder;
use edleak_tests::run::{Running, cannot_run, run, wait_for};
use edleak_tests::temp::TempDir;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The maximum private memory of the collector in KiB. The normal memory of the collector is a tenth of this
/// maximum.
const MOST_KB: u32 = 400 << 10;

/// Records `scribble MODE` and asserts that the collector survives.
fn survive(mode: &str, options: &[&str]) {
    let dir = TempDir::new("hostile");
    let trace = dir.join("trace.edl");
    let recorder = Recorder::new("hostile").options(["--period", "20ms"]).options(options);
    let recording = recorder.command(&trace, programs().binary("scribble"), [mode, "2"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -d {MOST_KB}; exec \"$@\""), "sh"]);
    limited.arg(recording.get_program()).args(recording.get_args());
    let outcome = run(&mut limited);
    // The target walks its stack by unwind rules in the shared memory. If the target writes random data over
    // the unwind rules, the target may crash, but no other process.
    const SEGMENTATION_FAULT: i32 = 128 + libc::SIGSEGV;
    let is_own_doing = mode == "all" && outcome.code == SEGMENTATION_FAULT;
    let is_done = (outcome.code, &*outcome.stdout) == (0, "done\n");
    assert!(is_done || is_own_doing, "{mode} {options:?}: {outcome:?}");
    assert!(outcome.stderr.contains("next: edleak-analyze"), "{mode} {options:?}: {}", outcome.stderr);
    let files: Vec<_> = std::fs::read_dir(dir.path()).expect("it is there").collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let verified = analyze(["verify"], &trace);
    assert_eq!(verified.code, 0, "{mode} {options:?}: {}", verified.stdout);
    // The numbers in the report mean nothing, because the target has overwritten its counters. But
    // edleak-analyze must be able to write a report.
    let report = analyze(["--all"], &trace);
    assert!(report.code < 3, "{mode} {options:?}: {}", report.stderr);
}

#[test]
fn rubbish_in_the_session_does_not_crash_the_collector() {
    survive("all", &[]);
    survive("all", &["--no-watch"]);
}

#[test]
fn rubbish_in_the_header_does_not_crash_the_collector() {
    survive("header", &[]);
    survive("header", &["--watch", "*"]);
}

#[test]
fn the_memory_cannot_be_cut_off() {
    survive("shrink", &[]);
}

#[test]
fn sessions_that_are_claimed_for_fun_cost_little() {
    survive("claim", &[]);
}

/// The memory files of edleak that `pid` has open, as paths in /proc.
fn memory_files(pid: i32) -> Vec<PathBuf> {
    let is_ours = |path: &Path| {
        std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with("/memfd:edleak"))
    };
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it is our child");
    files.filter_map(|file| Some(file.ok()?.path())).filter(|path| is_ours(path)).collect()
}

#[test]
fn another_user_reaches_neither_session_nor_trace() {
    // SAFETY: `geteuid` takes no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return cannot_run("only root can become another user");
    }
    let dir = TempDir::new("another-user");
    let trace = dir.join("trace.edl");
    let recorder = Recorder::new("another-user").options(["--duration", "60s", "--then-terminate"]);
    let recording =
        Running::start(&mut recorder.command(&trace, samples().binary("leaker"), ["--seconds", "60"]), b"");
    wait_for("a trace and a session", || trace.is_file() && memory_files(recording.pid()).len() >= 2);
    let as_another = |script: &str, file: &Path| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script, "sh"])
            .arg(file);
        run(&mut command)
    };
    for file in memory_files(recording.pid()).iter().chain([&trace]) {
        for script in ["cat \"$1\"", "exec 3<>\"$1\""] {
            let outcome = as_another(script, file);
            assert_ne!(outcome.code, 0, "{script} {}", file.display());
            assert!(outcome.stderr.contains("ermission denied"), "{}", outcome.stderr);
        }
    }
    recording.signal(libc::SIGTERM);
    recording.finish();
}
