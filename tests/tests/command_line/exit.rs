//! Tests the exit code, the signals, the arguments and the end of a recording.

use super::assert_refused;
use edleak_tests::analyze::analyze;
use edleak_tests::record::Recorder;
use edleak_tests::report::Report;
use edleak_tests::run::{Running, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn the_exit_code_is_the_targets() {
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -SEGV $$", 139), ("kill -9 $$", 137)] {
        let recording = Recorder::new("codes").record("bash", ["-c", script]);
        assert_eq!(recording.outcome.code, code, "{script}: {}", recording.outcome.stderr);
        let report = recording.all_sites();
        assert_eq!(
            report.json["trace"]["complete"], true,
            "{script}: the final slice is taken after the death"
        );
    }
}

#[test]
fn signals_are_passed_on() {
    let script = "trap 'echo got HUP' HUP; trap 'echo got USR1' USR1; trap 'echo got TERM; exit 9' TERM; \
                  echo ready; while :; do sleep 0.05; done";
    let dir = TempDir::new("signals");
    let mut command = Recorder::new("signals").command(&dir.join("trace.edl"), "bash", ["-c", script]);
    let mut running = Running::start(&mut command, b"");
    running.wait_for_text("ready");
    for (signal, text) in [(libc::SIGHUP, "got HUP"), (libc::SIGUSR1, "got USR1")] {
        running.signal(signal);
        running.wait_for_text(text);
    }
    running.signal(libc::SIGTERM);
    let outcome = running.finish();
    assert_eq!((outcome.code, &*outcome.stdout), (9, "ready\ngot HUP\ngot USR1\ngot TERM\n"));
}

/// edleak-record reports a failed recording at once, even with -q, and does not repeat the message at the
/// end.
#[test]
fn failed_recording_is_reported_once_and_at_once() {
    let dir = TempDir::new("at-once");
    let (trace, go_on) = (dir.join("trace.edl"), dir.join("go-on"));
    let script = format!("while [ ! -e {} ]; do sleep 0.02; done", go_on.display());
    let mut command = Recorder::new("at-once").options(["-q"]).command(&trace, "bash", ["-c", &script]);
    let mut recording = Running::start(&mut command, b"");
    let slices = || Report::of(&trace, &[]).json["trace"]["slices"].as_u64();
    // Wait until the trace contains slices. An empty trace is not enough, because edleak-record creates the
    // empty file before the recording starts.
    wait_for("slices", || analyze(["verify"], &trace).code == 0 && slices() > Some(3));
    std::fs::write(&trace, b"").expect("it is ours");
    recording.wait_for_text("another process truncated it");
    std::fs::write(&go_on, "").expect("writable");
    let outcome = recording.finish();
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (0, 1), "{}", outcome.stderr);
}

/// At the end of `--duration`, the trace is complete, edleak-record exits with 0, and the target runs on.
#[test]
fn duration_ends_the_recording_and_not_the_target() {
    let dir = TempDir::new("duration");
    let trace = dir.join("trace.edl");
    // The target waits for the file `go-on`, and then writes the file `done`.
    let go_on = dir.join("go-on");
    let done = dir.join("done");
    let script = format!(
        "exec >/dev/null 2>&1; while [ ! -e {} ]; do sleep 0.02; done; echo yes > {}",
        go_on.display(),
        done.display()
    );
    let mut command =
        Recorder::new("duration").options(["--duration", "1s"]).command(&trace, "bash", ["-c", &script]);
    let outcome = run(&mut command);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(!done.exists(), "the target had not been asked to end");
    let report = Report::of(&trace, &["--all", "--min-class", "constant"]);
    assert_eq!(report.json["trace"]["complete"], true);
    let duration = report.json["trace"]["duration_s"].as_f64().expect("a number");
    assert!((0.9..3.0).contains(&duration), "{duration} s");
    std::fs::write(&go_on, "").expect("writable");
    wait_for("the target to end by itself", || done.exists());
}

#[test]
fn duration_then_terminate_ends_the_target() {
    let script = "trap 'echo terminated; exit 0' TERM; while :; do sleep 0.02; done";
    let recording = Recorder::new("terminate")
        .options(["--duration", "500ms", "--then-terminate"])
        .record("bash", ["-c", script]);
    assert_eq!((recording.outcome.code, &*recording.outcome.stdout), (0, "terminated\n"));
}

/// The program ignores SIGTERM. If the user interrupts edleak-record while it waits for the end of the
/// program, a message says that the program runs on.
#[test]
fn waiting_for_the_end_can_be_interrupted() {
    let dir = TempDir::new("unwilling");
    let asked = dir.join("asked");
    // The program ends by itself some time after SIGTERM, so that it does not run on forever if this test
    // fails.
    let script = format!(
        "exec >/dev/null 2>&1; trap 'n=300; echo > {}' TERM; n=2400; while ((n-- > 0)); \
         do read -t 0.05 <> <(:); done",
        asked.display()
    );
    let recorder = Recorder::new("unwilling").options(["--duration", "200ms", "--then-terminate"]);
    let recording = Running::start(&mut recorder.command(&dir.join("t.edl"), "bash", ["-c", &script]), b"");
    wait_for("SIGTERM", || asked.exists());
    let since = Instant::now();
    recording.signal(libc::SIGINT);
    let outcome = recording.finish();
    assert!(since.elapsed() < Duration::from_secs(8), "it took {:?}", since.elapsed());
    assert!(outcome.stderr.contains("was sent SIGTERM and runs on"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("; next: edleak-analyze"), "{}", outcome.stderr);
    assert_eq!(outcome.code, 0);
}

/// Options after the program's name belong to the program, not to edleak-record.
#[test]
fn arguments_reach_the_target_unchanged() {
    let outcome = run(Command::new(&tools().record)
        .args(["-o", "/dev/null/no", "--period"])
        .args(["50ms", "--", "printf", "%s|", "-o", "--period", "", "a b", "--"]));
    assert_ne!(outcome.code, 0, "an output that cannot be is an error: {}", outcome.stderr);
    let recording = Recorder::new("arguments").record("printf", ["%s|", "-o", "--period", "", "a b", "--"]);
    assert_eq!(recording.outcome.stdout, "-o|--period||a b|--|");
}

/// The messages quote the names of the program and of the trace. A user can copy the last line into a shell.
#[test]
fn names_with_any_bytes_are_quoted_for_a_shell() {
    let dir = TempDir::new("names");
    let name = OsStr::from_bytes(b"a\nb'\xff\x1b");
    let program = dir.path().join(name);
    std::fs::copy("/bin/true", &program).expect("writable");
    let recorder = Recorder::new("names").cwd(dir.path());
    let outcome = run(&mut recorder.command(Path::new("no\nsuch/t.edl"), "true", [""; 0]));
    assert_refused(&outcome, "no directory", &["no?such/t.edl"]);
    let trace = Path::new(OsStr::from_bytes(b"t\n\xff.edl"));
    let outcome = run(&mut recorder.command(trace, Path::new(".").join(name), [""; 0]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let said = r"recording $'./a\012b\'\377\033' (pid ";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(r") into $'t\012\377.edl'"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);
    let (_, next) = outcome.stderr.split_once("; next: edleak-analyze ").expect("the last line");
    let word = next.split_whitespace().next().expect("a name");
    let command = format!("'{}' verify {word}", tools().analyze.display());
    let verified = run(Command::new("bash").args(["-c", &command]).current_dir(dir.path()));
    assert_eq!(verified.code, 0, "{command}: {}", verified.stderr);
}

/// If a descriptor is closed at the start, it stays closed: the first file that the program opens gets the
/// number of this descriptor.
#[test]
fn closed_descriptors_stay_closed() {
    let dir = TempDir::new("closed");
    let script =
        "for fd in 0 1 2; do test -e /proc/$$/fd/$fd && echo open >> OUT || echo closed >> OUT; done";
    for closed in ["<&-", ">&-", "<&- 2>&-"] {
        let seen = |prefix: &str, name: &str| {
            let out = dir.join(name);
            let script = script.replace("OUT", out.to_str().expect("UTF-8"));
            let line = format!("exec {prefix} bash -c '{script}' {closed}");
            assert_eq!(run(Command::new("bash").args(["-c", &line])).code, 0, "{line}");
            let seen = std::fs::read_to_string(&out).expect("it was written");
            std::fs::remove_file(&out).expect("it is ours");
            seen
        };
        let trace = dir.join("trace.edl");
        let recorder = format!("{} -o {} --", tools().record.display(), trace.display());
        assert_eq!(seen(&recorder, "recorded"), seen("", "plain"), "{closed}");
        assert_eq!(Report::of(&trace, &["--all"]).json["trace"]["complete"], true, "{closed}");
    }
}

#[test]
fn watch_without_a_match_is_reported() {
    let recorder = Recorder::new("nowhere").options(["--watch", "no_such_function", "--watch", "main"]);
    let recording = recorder.record("/bin/true", [""; 0]);
    let stderr = &recording.outcome.stderr;
    assert!(stderr.contains("nothing to watch at `no_such_function`"), "{stderr}");
}
