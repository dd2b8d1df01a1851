//! Tests the recording of a program that executes other programs or has children.

use edleak_tests::analyze::analyze;
use edleak_tests::record::Recorder;
use edleak_tests::report::Report;
use edleak_tests::run::{DEADLINE, run, wait_for};
use edleak_tests::temp::TempDir;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

/// If a target executes several programs one after another, the trace shows the last program. The trace
/// contains no allocation of the earlier programs.
#[test]
fn after_exec_the_trace_is_that_of_the_new_image() {
    let recording = Recorder::new("exec").record("bash", ["-c", "exec python3 -c 'print(\"x\" * 10)'"]);
    assert_eq!((recording.outcome.code, &*recording.outcome.stdout), (0, "xxxxxxxxxx\n"));
    let report = recording.all_sites();
    let modules: Vec<_> = report.sites.iter().filter_map(|s| s.caller()).map(|f| f.module.as_str()).collect();
    assert!(modules.iter().any(|module| module.contains("python")), "{modules:?}");
    assert!(!modules.iter().any(|module| module.ends_with("/bash")), "{modules:?}");
}

/// If the target is a script, edleak records the interpreter of the script.
#[test]
fn a_script_is_recorded_as_its_interpreter() {
    let dir = TempDir::new("script");
    let script = dir.join("script");
    std::fs::write(&script, "#!/bin/bash\necho from $0 $1\nexit 6\n").expect("writable");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let recording = Recorder::new("script").record(&script, ["argument"]);
    assert_eq!(recording.outcome.code, 6, "{}", recording.outcome.stderr);
    assert_eq!(recording.outcome.stdout, format!("from {} argument\n", script.display()));
    assert!(recording.all_sites().summary("allocs") > 0);
}

/// If the target ends before its child, the recording ends together with the target.
#[test]
fn a_child_that_stays_does_not_hold_the_recorder() {
    let dir = TempDir::new("orphan");
    let release = dir.join("release");
    let done = dir.join("done");
    let script = format!(
        "(exec >/dev/null 2>&1; while [ ! -e {} ]; do sleep 0.02; done; touch {}) & exit 5",
        release.display(),
        done.display()
    );
    // Make the command before the measurement of time begins, because the first test that needs edleak-record
    // builds it.
    let mut command = Recorder::new("orphan").command(&dir.join("t.edl"), "bash", ["-c", &script]);
    let started = std::time::Instant::now();
    let outcome = run(&mut command);
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(started.elapsed() < DEADLINE / 2 + Duration::from_secs(1));
    std::fs::write(&release, "").expect("writable");
    wait_for("the child to end by itself", || done.exists());
}

/// The target executes a program without LD_PRELOAD, so edleak cannot record this program. Even if the
/// executed program runs for a long time, the verdict on the recording must be undecided.
#[test]
fn unrecorded_image_is_not_a_success() {
    let recording = Recorder::new("scrubbed").record("env", ["-i", "sleep", "2"]);
    assert_eq!(recording.outcome.code, 0);
    let said = "the process executed a program that is not recorded";
    assert!(recording.outcome.stderr.contains(said), "{}", recording.outcome.stderr);
    let analyzed = analyze([""; 0], &recording.trace);
    assert_eq!(analyzed.code, 2, "{analyzed:?}");
    assert!(analyzed.stdout.contains("undecided: the process executed a program"), "{}", analyzed.stdout);
}

/// A user may record a parent although its child does the work. So edleak-record must report both kinds of
/// unrecorded children: children that were forked, and children that executed another program.
#[test]
fn unrecorded_children_are_reported() {
    let told = |options: &[&str], script: &str| {
        let recording = Recorder::new("told").options(options).record("perl", ["-e", script]);
        let is_said = recording
            .outcome
            .stderr
            .contains("its child processes were not recorded; --children records them");
        // The report also names the unrecorded children, because another user may have only the trace.
        let noted =
            analyze([""; 0], &recording.trace).stdout.contains("its child processes were not recorded");
        assert_eq!(is_said, noted, "{options:?} {script}");
        is_said
    };
    let forked = "if (!fork) { my @all = map { 'x' x $_ } 1..100; exit } wait";
    assert!(told(&[], forked));
    assert!(told(&[], "system('true')"));
    assert!(!told(&["--children"], forked));
    assert!(!told(&[], "my @all = map { 'x' x $_ } 1..100"));
}

/// With `--children`, every child of a shell gets its own trace. The recording must not change the output or
/// the exit codes of the children.
#[test]
fn children_of_a_shell_are_recorded_on_request() {
    let script = "python3 -c 'print(1)'; jq -n 2; (exit 3); echo $?; exec perl -e 'print 4, $/; exit 5'";
    let plain = run(Command::new("bash").args(["-c", script]));
    let recording = Recorder::new("shell").options(["--children"]).record("bash", ["-c", script]);
    assert_eq!((recording.outcome.code, &recording.outcome.stdout), (plain.code, &plain.stdout));
    // The test recognizes each trace by its modules, not by its command line: `perl` was executed in a
    // process that was started as `bash`.
    let mut modules = Vec::new();
    for entry in std::fs::read_dir(recording.dir.path()).expect("it is ours") {
        let report = Report::of(&entry.expect("it is ours").path(), &["--all", "--min-class", "constant"]);
        modules.extend(report.sites.iter().filter_map(|site| Some(site.caller()?.module.clone())));
    }
    for program in ["python", "jq", "perl"] {
        let is_there = modules.iter().any(|module| module.contains(program));
        assert!(is_there, "no trace of {program}: {modules:?}");
    }
}
