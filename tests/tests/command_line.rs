//! Tests the command line of edleak-record: exit codes, signals, files, refused programs, exec and children.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::{programs, samples};
use edleak_tests::record::Recorder;
use edleak_tests::report::Report;
use edleak_tests::run::{DEADLINE, Outcome, Running, cannot_run, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

// ---------------------------------------------------------------- exit codes, signals, files

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
fn kernel_without_pidfd_open_records_a_program_and_refuses_to_follow_children() {
    let dir = TempDir::new("no-pidfd");
    let on_old_kernel = |options: &[&str]| {
        let trace = dir.join("trace.edl");
        let recorded = Recorder::new("no-pidfd").options(options).command(&trace, "true", [""; 0]);
        let mut command = Command::new(programs().binary("no_pidfd"));
        command.arg(recorded.get_program()).args(recorded.get_args());
        run(&mut command)
    };
    let outcome = on_old_kernel(&[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let outcome = on_old_kernel(&["--children"]);
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("use Linux 5.3 or later"), "{}", outcome.stderr);
}

#[test]
fn signals_are_passed_on() {
    let script = "trap 'echo got HUP' HUP; trap 'echo got USR1' USR1; trap 'echo got TERM; exit 9' TERM; echo ready; \
                  while :; do sleep 0.05; done";
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

#[test]
fn an_existing_trace_is_kept_as_old() {
    let dir = TempDir::new("old");
    let trace = dir.join("trace.edl");
    let command = || Recorder::new("old").command(&trace, "true", [""; 0]);
    assert_eq!(run(&mut command()).code, 0);
    let first = std::fs::read(&trace).expect("the first trace");
    assert_eq!(run(&mut command()).code, 0);
    let kept = std::fs::read(dir.join("trace.edl.old")).expect("the first trace, kept");
    assert!(first == kept, "trace.edl.old is the first trace, unchanged");
}

/// Starts two recordings into one file. edleak-record refuses the second recording, and the trace of the
/// first recording is complete.
#[test]
fn two_recordings_do_not_share_a_trace() {
    let dir = TempDir::new("shared");
    let trace = dir.join("trace.edl");
    let recorder = Recorder::new("shared");
    let start =
        || Running::start(&mut recorder.command(&trace, samples().binary("leaker"), ["--seconds", "2"]), b"");
    let (one, other) = (start(), start());
    let outcomes = [one.finish(), other.finish()];
    let (done, refused): (Vec<_>, Vec<_>) =
        outcomes.iter().partition(|outcome| outcome.stderr.contains("next: edleak-analyze"));
    assert_eq!((done.len(), refused.len()), (1, 1), "{outcomes:?}");
    assert!(refused[0].stderr.contains("another recording is writing"), "{outcomes:?}");
    assert_eq!(analyze(["verify"], &trace).code, 0);
    assert!(Report::of(&trace, &["--all"]).summary("allocs") > 100);
}

/// If another process truncates the trace, the recording ends with a message that names the reason, and the
/// target runs on.
#[test]
fn a_trace_that_is_cut_off_is_an_error_and_not_a_crash() {
    let dir = TempDir::new("cut");
    let trace = dir.join("trace.edl");
    let mut command =
        Recorder::new("cut").command(&trace, samples().binary("leaker"), ["--seconds", "2", "--ledger"]);
    let recording = Running::start(&mut command, b"");
    let slices = || Report::of(&trace, &[]).json["trace"]["slices"].as_u64();
    // Wait until the trace contains slices. An empty trace is not enough, because edleak-record creates the
    // empty file before the recording starts.
    wait_for("slices", || analyze(["verify"], &trace).code == 0 && slices() > Some(3));
    std::fs::write(&trace, b"").expect("it is ours");
    let outcome = recording.finish();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("leak_malloc"), "the target came to its end: {}", outcome.stdout);
    assert!(outcome.stderr.contains("another process truncated it"), "{}", outcome.stderr);
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

/// If the system refuses a thread, a memory file or a process, one line of the message names the limit that
/// was reached.
#[test]
fn a_limit_that_is_met_is_named_once() {
    let dir = TempDir::new("limits");
    let record = tools().record.display().to_string();
    let limited = |limit: &str| {
        let script =
            format!("ulimit {limit}; exec {record} -o trace.edl bash -c 'read -t 0.3 <> <(:); exit 0'");
        run(Command::new("bash").args(["-c", &script]).current_dir(dir.path()))
    };
    // The test does not know how many descriptors are open at the start. So the test tries several limits for
    // open descriptors: at each limit, a different operation of edleak-record is the first that fails.
    let mut refused = 0;
    for descriptors in 6..=13 {
        let what = format!("{descriptors} descriptors");
        let outcome = limited(&format!("-n {descriptors}"));
        assert_eq!(outcome.stderr.matches("(raise `ulimit -n`)").count(), 1, "{what}: {}", outcome.stderr);
        if outcome.code != 0 {
            refused += 1;
            assert_refused(&outcome, &what, &[]);
            assert!(!dir.join("trace.edl").exists(), "{what}: nothing was recorded");
        }
        let _ = std::fs::remove_file(dir.join("trace.edl"));
    }
    assert!(refused > 0, "with so few it cannot record");
    // If edleak-record records nothing, it must keep the traces of earlier recordings.
    let old = dir.join("trace.edl.old");
    for (path, text) in [(&dir.join("trace.edl"), "good"), (&old, "precious")] {
        std::fs::write(path, text).expect("it is ours");
    }
    assert_refused(&limited("-n 9"), "9 descriptors", &["(raise `ulimit -n`)"]);
    assert_eq!(std::fs::read(dir.join("trace.edl")).expect("it is back"), b"good");
    assert_eq!(std::fs::read(&old).expect("it is kept"), b"precious");
    std::fs::remove_file(dir.join("trace.edl")).expect("it is ours");
    // If the limit of the file size is reached, edleak-record must print an error, and the signal SIGXFSZ
    // must not kill edleak-record.
    let outcome = limited("-f 0");
    assert_refused(&outcome, "-f 0", &["(raise `ulimit -f`"]);
    assert!(!dir.join("trace.edl").exists(), "nothing was recorded");
    // With a data limit of 1,000 KiB (`ulimit -d`), a process cannot get the memory for the stack of a
    // thread.
    let outcome = limited("-d 1000");
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

#[test]
fn misspelt_option_is_not_run_as_a_program() {
    let outcome = run(Command::new(&tools().record).args(["--childern", "true"]));
    assert_refused(&outcome, "a misspelt option", &["unknown option `--childern`"]);
    assert_eq!(outcome.code, 125);
}

#[test]
fn option_of_pid_without_pid_is_refused() {
    let dir = TempDir::new("without-pid");
    let marker = dir.join("was-started");
    for (option, value) in [("--copy-into", "/tmp"), ("--attach-timeout", "1s")] {
        let mut command = Command::new(&tools().record);
        command.args([option, value, "-o"]).arg(dir.join("t.edl")).arg("touch").arg(&marker);
        let outcome = run(&mut command);
        let said = format!("{option} has no effect without --pid (give --pid PID, or leave {option} out)");
        assert_refused(&outcome, option, &[&said]);
        assert!(outcome.code == 125 && !marker.exists() && !dir.join("t.edl").exists(), "{outcome:?}");
    }
}

#[test]
fn message_about_a_small_size_has_the_size_as_the_user_wrote_it() {
    for size in ["0", "3k", "0.1M"] {
        let outcome = run(Command::new(&tools().record).args(["--size", size, "true"]));
        assert_eq!(outcome.code, 125, "{outcome:?}");
        let said =
            format!("invalid value '{size}' for '--size <BYTES>': too small for a trace (use at least 256k)");
        assert!(outcome.stderr.contains(&said), "{}", outcome.stderr);
    }
}

/// Without /proc, or with the /proc of another PID namespace, edleak-record refuses the program before the
/// program starts.
#[test]
fn missing_and_foreign_proc_are_named_before_the_program_starts() {
    let dir = TempDir::new("no-proc");
    let marker = dir.join("was-started");
    let record = format!("{} -o {}", tools().record.display(), dir.join("t.edl").display());
    let run_in = |namespaces: &[&str], before: &str, what: &str| {
        let script = format!("{before}; exec {record} {what}");
        run(Command::new("unshare").args(namespaces).args(["sh", "-c", &script]))
    };
    if run(Command::new("unshare").args(["-mpf", "umount", "-l", "/proc"])).code != 0 {
        return cannot_run("no right to make namespaces");
    }
    let touch = format!("touch {}", marker.display());
    for (namespaces, before, what, said) in [
        (&["-m"][..], "umount -l /proc", &*touch, "/proc is not mounted"),
        (&["-m"], "umount -l /proc", "--pid 1", "/proc is not mounted"),
        (&["-pf"], "true", &touch, "/proc shows another PID namespace"),
    ] {
        let outcome = run_in(namespaces, before, what);
        assert_refused(&outcome, what, &[said, "(mount it here: `mount -t proc proc /proc`)\n"]);
        assert!(outcome.code == 125 && !marker.exists() && !dir.join("t.edl").exists(), "{outcome:?}");
    }
}

#[test]
fn duration_of_zero_is_named() {
    let outcome = run(Command::new(&tools().record).args(["--duration", "0", "true"]));
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("(use a duration greater than 0)"), "{}", outcome.stderr);
}

#[test]
fn a_trace_on_standard_output_is_refused() {
    let outcome = run(Command::new(&tools().record).args(["-o", "-", "true"]));
    assert_refused(&outcome, "-o -", &["standard output", "`./-`"]);
}

#[test]
fn watch_without_a_match_is_reported() {
    let recorder = Recorder::new("nowhere").options(["--watch", "no_such_function", "--watch", "main"]);
    let recording = recorder.record("/bin/true", [""; 0]);
    let stderr = &recording.outcome.stderr;
    assert!(stderr.contains("nothing to watch at `no_such_function`"), "{stderr}");
}

#[test]
fn the_default_output_is_trace_edl_here() {
    let dir = TempDir::new("default");
    let outcome = run(Command::new(&tools().record).arg("true").current_dir(dir.path()));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(dir.join("trace.edl").is_file());
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
        "exec >/dev/null 2>&1; trap 'n=300; echo > {}' TERM; n=2400; while ((n-- > 0)); do read -t 0.05 <> <(:); done",
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

// ---------------------------------------------------------------- bad use

/// Asserts that edleak-record printed one line with the reason, did not panic, and started nothing.
fn assert_refused(outcome: &Outcome, what: &str, expected: &[&str]) {
    assert!(outcome.code != 0 && outcome.code < 128, "{what}: exit code {}", outcome.code);
    assert_eq!(outcome.stdout, "", "{what}");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{what}: one line, not {}: {}", lines.len(), outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
    for text in expected {
        assert!(outcome.stderr.contains(text), "{what}: `{text}` is not in: {}", outcome.stderr);
    }
}

#[test]
fn unrecordable_programs_are_refused() {
    let dir = TempDir::new("refused");
    let record =
        |program: &Path| run(&mut Recorder::new("refused").command(&dir.join("t.edl"), program, [""; 0]));

    let missing = dir.join("there-is-no-such-program");
    assert_refused(&record(&missing), "a missing program", &["there-is-no-such-program"]);
    assert_refused(
        &record(Path::new("no-such-program-in-path")),
        "not in PATH",
        &["no-such-program-in-path"],
    );
    assert_refused(&record(dir.path()), "a directory", &[]);

    let text = dir.join("text");
    std::fs::write(&text, "no program\n").expect("writable");
    assert_refused(&record(&text), "a file that is not executable", &["text"]);

    let source = dir.join("main.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").expect("writable");
    let compile = |name: &str, flags: &[&str]| {
        let binary = dir.join(name);
        let outcome = run(Command::new("gcc").arg(&source).arg("-o").arg(&binary).args(flags));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        binary
    };
    assert_refused(&record(&compile("static", &["-static"])), "a static program", &["static"]);
    assert_refused(&record(&compile("static-pie", &["-static-pie"])), "a static PIE", &["static"]);

    // A program with the set-user-ID or the set-group-ID bit runs with the rights of the owner of its file,
    // here the user nobody. Only root can make nobody the owner, so without root the test skips these
    // programs.
    for (name, mode) in [("setuid", 0o4755), ("setgid", 0o2755)] {
        let binary = compile(name, &[]);
        if std::os::unix::fs::chown(&binary, Some(65534), Some(65534)).is_ok() {
            std::fs::set_permissions(&binary, PermissionsExt::from_mode(mode)).expect("it is ours");
            assert_refused(&record(&binary), name, &[name]);
        }
    }

    // A program for another processor: its header names AArch64.
    let foreign = compile("foreign", &[]);
    let mut bytes = std::fs::read(&foreign).expect("just built");
    bytes[18] = 183;
    std::fs::write(&foreign, bytes).expect("it is ours");
    assert_refused(&record(&foreign), "a foreign program", &["foreign"]);
    // A 32-bit program.
    let narrow = compile("narrow", &[]);
    let mut bytes = std::fs::read(&narrow).expect("just built");
    (bytes[4], bytes[18]) = (1, 3);
    std::fs::write(&narrow, bytes).expect("it is ours");
    assert_refused(&record(&narrow), "a 32-bit program", &["narrow"]);
    assert!(!dir.join("t.edl").exists(), "nothing was recorded");
}

#[test]
fn an_output_that_cannot_be_written_is_refused_and_nothing_is_lost() {
    let dir = TempDir::new("output");
    let marker = dir.join("was-started");
    let script = format!("touch {}", marker.display());
    for output in [dir.join("no/such/directory/t.edl"), "/proc/t.edl".into(), dir.path().to_path_buf()] {
        let outcome = run(&mut Recorder::new("output").command(&output, "bash", ["-c", &script]));
        assert_refused(&outcome, &output.display().to_string(), &[&*output.display().to_string()]);
        assert!(!marker.exists(), "the target was started though the trace cannot be written");
    }
}

#[test]
fn bad_options_are_refused() {
    for options in
        [&["--period", "0s", "true"][..], &["--period", "soon", "true"], &["--no-such-option", "true"], &[]]
    {
        let outcome = run(Command::new(&tools().record).args(options).current_dir(std::env::temp_dir()));
        assert!(outcome.code != 0 && outcome.code < 128, "{options:?}: {outcome:?}");
        assert!(
            !outcome.stderr.is_empty() && !outcome.stderr.contains("panicked"),
            "{options:?}: {outcome:?}"
        );
    }
}

#[test]
fn file_that_is_not_a_trace_gets_one_line() {
    let dir = TempDir::new("no-trace");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).expect("writable");
        path
    };
    for path in [
        dir.join("there-is-no-such.edl"),
        file("empty.edl", b""),
        file("text.edl", b"this is no trace\n"),
        file("short.edl", &[0x7f]),
        file("zeros.edl", &[0; 100_000]),
        file("elf.edl", &std::fs::read(&tools().preload).expect("built")),
        file("braces.edl", b"{}"),
        dir.path().to_path_buf(),
    ] {
        let outcome = analyze([""; 0], &path);
        let name = path.display().to_string();
        assert_refused(&outcome, &name, &[&name]);
        assert_eq!(outcome.code, 3, "{name}: {outcome:?}");
    }
}

/// Truncates a trace at any byte, or changes any of its bytes. edleak-analyze must read the valid part of the
/// trace, or refuse the trace. edleak-analyze must not panic, and must not report growth that did not happen.
#[test]
fn damaged_traces_are_read_as_far_as_they_are_sound() {
    let recorder = Recorder::new("damage").options(["--period", "5ms"]);
    let recording = recorder.record(samples().binary("leaker"), ["--seconds", "3", "--period", "2"]);
    let bytes = std::fs::read(&recording.trace).expect("just recorded");
    let whole = recording.all_sites().summary("allocated_bytes");
    let dir = TempDir::new("damaged");
    let damaged = dir.join("damaged.edl");
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(&damaged, bytes).expect("writable");
        let outcome = analyze(["--all", "--format", "json"], &damaged);
        assert!((0..=3).contains(&outcome.code), "{what}: {outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{what}: {outcome:?}");
        if outcome.code == 3 {
            assert_eq!(outcome.stderr.lines().count(), 1, "{what}: {}", outcome.stderr);
            return false;
        }
        let json: serde_json::Value = serde_json::from_str(&outcome.stdout)
            .unwrap_or_else(|error| panic!("{what}: no JSON: {error}: {outcome:?}"));
        let bytes = json["summary"]["allocated_bytes"].as_u64().expect("a number");
        assert!(bytes <= whole, "{what}: {bytes} bytes allocated, of {whole}");
        true
    };
    let used = bytes.iter().rposition(|&byte| byte != 0).expect("a trace is not all zeros") + 1;
    // The first page (4096 bytes) describes the file, so a shorter file is no trace. If a trace is cut
    // anywhere after its first page, edleak-analyze must still be able to read it.
    const FIRST_PAGE: usize = 4096;
    assert!(used > 2 * FIRST_PAGE, "a trace of {used} bytes is too short to be cut in pieces");
    for at in (0..FIRST_PAGE).step_by(256) {
        check(&bytes[..at], &format!("cut at {at}"));
    }
    for i in 0..60 {
        let at = FIRST_PAGE + (used - FIRST_PAGE) * i / 60;
        assert!(check(&bytes[..at], &format!("cut at {at}")), "cut at {at} of {used}: nothing can be read");
    }
    for i in 0..100 {
        let mut flipped = bytes.clone();
        let at = i * used / 100 + i % 7;
        flipped[at.min(used - 1)] ^= 1 << (i % 8);
        check(&flipped, &format!("bit {} of byte {at} flipped", i % 8));
    }
}

/// If a trace is too short for a verdict, the verdict is `undecided`, and never that the program has no leak.
#[test]
fn too_short_is_undecided() {
    let recording = Recorder::new("short").record("true", [""; 0]);
    assert_eq!(analyze([""; 0], &recording.trace).code, 2);
}

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

/// If the disk is full, the recording ends with a message. The slices that were already written are kept, and
/// the target runs on.
#[test]
fn a_full_disk_ends_the_recording_and_not_the_target() {
    let dir = TempDir::new("full");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(dir.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return cannot_run("no right to mount a small file system");
    }
    // A file of 200 KiB leaves only a little free space on the disk.
    std::fs::write(dir.join("filler"), vec![1; 200 << 10]).expect("there is room for it");
    let trace = dir.join("trace.edl");
    let mut command = Recorder::new("full").options(["--period", "2ms"]).command(
        &trace,
        samples().binary("leaker"),
        ["--seconds", "3", "--period", "1", "--ledger"],
    );
    let outcome = run(&mut command);
    let analyzed = analyze(["--all"], &trace);
    let unmounted = Command::new("umount").arg(dir.path()).output();
    assert!(unmounted.is_ok_and(|output| output.status.success()), "our own file system can be unmounted");
    // For lack of space, edleak-record either refuses to start or ends the recording in the middle. If it
    // refuses or ends, edleak-record must print the reason, and SIGBUS must not kill it.
    assert!(outcome.stderr.contains("space") || outcome.stderr.contains("full"), "{}", outcome.stderr);
    if outcome.code == 0 {
        assert!(outcome.stdout.contains("leak_malloc"), "the target came to its end: {}", outcome.stdout);
        assert!((0..=2).contains(&analyzed.code), "what fitted can be read: {analyzed:?}");
        assert!(analyzed.stdout.contains("the disk was full"), "and says how it ended: {}", analyzed.stdout);
    } else {
        assert_refused(&outcome, "a full disk", &[]);
    }
}

#[test]
fn embed_on_a_full_disk_names_one_remedy_that_embed_has() {
    let recording = Recorder::new("embed-full").record(samples().binary("leaker"), ["--seconds", "1"]);
    let dir = TempDir::new("embed-full");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"]).arg(dir.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return cannot_run("no right to mount a small file system");
    }
    let copy = dir.join("copy.edl");
    let outcome = run(Command::new(&tools().analyze).arg("embed").arg(&recording.trace).arg("-o").arg(&copy));
    let unmounted = Command::new("umount").arg(dir.path()).output();
    assert!(unmounted.is_ok_and(|output| output.status.success()), "our own file system can be unmounted");
    let said = format!(
        "edleak-analyze: cannot write `{}`: the disk or the quota is full \
         (free some space, or give another file with `-o`)\n",
        copy.display()
    );
    assert_eq!(outcome.stderr, said);
    assert_eq!(outcome.code, 3);
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
