//! Tests where traces and messages are written: links, devices, traces of running recordings, a stderr that
//! cannot be written. Also tests recordings of programs that execute other programs, have children, or change
//! their user.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::{hosts, samples};
use edleak_tests::record::Recorder;
use edleak_tests::report::Report;
use edleak_tests::run::{Outcome, Running, cannot_run, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

fn analyzer(arguments: &[&str], files: &[&Path]) -> Outcome {
    run(Command::new(&tools().analyze).args(arguments).args(files))
}

fn is_root() -> bool {
    // SAFETY: `geteuid` takes no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn traces_in(dir: &TempDir) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.path()).expect("it is ours");
    entries.map(|entry| entry.expect("it is ours").path()).collect()
}

/// If the output path is a link, the link still leads to the trace after the recording. A path that is no
/// regular file stays unchanged.
#[test]
fn output_that_is_not_a_regular_file_is_not_replaced() {
    let dir = TempDir::new("links");
    let (link, real, fifo) = (dir.join("link.edl"), dir.join("real.edl"), dir.join("fifo"));
    assert_eq!(run(Command::new("mkfifo").arg(&fifo)).code, 0);
    std::os::unix::fs::symlink("real.edl", &link).expect("writable");
    for round in 0..2 {
        let recorded = run(&mut Recorder::new("links").command(&link, "true", [""; 0]));
        assert_eq!(recorded.code, 0, "{round}: {recorded:?}");
        assert!(link.is_symlink() && real.metadata().is_ok_and(|file| file.len() > 0), "{round}");
    }
    assert!(dir.join("real.edl.old").exists(), "the first one is kept beside the second");
    std::fs::set_permissions(&real, Permissions::from_mode(0o640)).expect("it is ours");
    assert_eq!(analyzer(&["embed"], &[&link]).code, 0);
    assert!(link.is_symlink());
    assert_eq!(real.metadata().expect("it is there").mode() & 0o777, 0o640);

    let to_fifo = dir.join("to-fifo.edl");
    std::os::unix::fs::symlink(&fifo, &to_fifo).expect("writable");
    let output = to_fifo.to_str().expect("UTF-8");
    for refused in [
        run(&mut Recorder::new("links").command(&to_fifo, "true", [""; 0])),
        analyzer(&["embed", "-o", output], &[&real]),
        analyzer(&["anonymize", "-o", output], &[&real]),
        // A FIFO is used in place of a device, because a write to a FIFO damages nothing.
        analyzer(&["anonymize", "-o", fifo.to_str().expect("UTF-8")], &[&real]),
    ] {
        assert!(refused.code != 0 && refused.stderr.lines().count() == 1, "{refused:?}");
        assert!(refused.stderr.trim_end().ends_with(')'), "{refused:?}");
    }
    assert!(to_fifo.is_symlink() && fifo.metadata().is_ok_and(|fifo| fifo.file_type().is_fifo()));
}

/// edleak-analyze must never write to a file that it reads.
#[test]
fn no_input_is_overwritten() {
    let recording = Recorder::new("inputs").record("true", [""; 0]);
    let baseline = recording.dir.join("baseline.edl");
    std::fs::copy(&recording.trace, &baseline).expect("writable");
    let rules = recording.dir.join("rules");
    std::fs::write(&rules, "leak:f\n").expect("writable");
    for (option, input) in [("--baseline", &baseline), ("--suppressions", &rules)] {
        let before = std::fs::read(input).expect("it is there");
        let path = input.to_str().expect("UTF-8");
        let refused = analyzer(&[option, path, "-o", path], &[&recording.trace]);
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(refused.stderr.contains("would be overwritten"), "{refused:?}");
        assert!(std::fs::read(input).expect("it is there") == before);
    }
    let second_name = recording.dir.join("second-name.txt");
    std::fs::hard_link(&recording.trace, &second_name).expect("writable");
    let refused = analyzer(&["-o", second_name.to_str().expect("UTF-8")], &[&recording.trace]);
    assert!(refused.code == 3 && refused.stderr.contains("would be overwritten"), "{refused:?}");

    // `embed` must also keep a file beside the trace whose name is that of the trace with `.new` at its end.
    let beside = recording.dir.join("baseline.edl.new");
    std::fs::write(&beside, "precious").expect("writable");
    assert_eq!(analyzer(&["embed"], &[&baseline]).code, 0);
    assert_eq!(std::fs::read_to_string(&beside).expect("it is there"), "precious");
    assert_eq!(traces_in(&recording.dir).len(), 5, "nothing else is left");
}

/// `embed` refuses a trace whose recording still runs. If `embed` replaced the file of the trace, the
/// recording would write its next slices into the deleted file, and these slices would be lost.
#[test]
fn a_trace_under_way_is_not_replaced() {
    let dir = TempDir::new("live");
    let trace = dir.join("trace.edl");
    let mut command = Recorder::new("live").command(&trace, hosts().binary("outlives"), [""; 0]);
    let mut running = Running::start(&mut command, b"");
    running.wait_for_text("started");
    wait_for("a trace", || trace.metadata().is_ok_and(|file| file.len() > 0));
    let refused = analyzer(&["embed"], &[&trace]);
    assert!(refused.code == 3 && refused.stderr.contains("is still being recorded"), "{refused:?}");
    let elsewhere = dir.join("copy.edl");
    assert_eq!(analyzer(&["embed", "-o", elsewhere.to_str().expect("UTF-8")], &[&trace]).code, 0);
    let refused = analyzer(&["-o", trace.to_str().expect("UTF-8")], &[&elsewhere]);
    assert!(refused.code == 3 && refused.stderr.contains("is still being recorded"), "{refused:?}");
    assert_eq!(running.finish().code, 7);
    assert_eq!(Report::of(&trace, &["--all"]).json["trace"]["complete"], true);
    assert_eq!(analyzer(&["embed"], &[&trace]).code, 0);
}

/// The exit code of edleak-record is that of the program, even if stderr cannot be written.
#[test]
fn a_stderr_that_takes_nothing_changes_nothing() {
    let dir = TempDir::new("mute");
    let trace = dir.join("trace.edl");
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut command = Recorder::new("mute").command(&trace, "sh", ["-c", "exit 5"]);
    let status = command.stderr(full()).stdout(File::create(dir.join("out")).expect("writable")).status();
    assert_eq!(status.expect("it starts").code(), Some(5));
    assert_eq!(Report::of(&trace, &["--all"]).json["trace"]["complete"], true);
    let mut refused = Command::new(&tools().record);
    let status = refused.arg("-q").arg("/no/such/program").stderr(full()).status();
    assert_eq!(status.expect("it starts").code(), Some(127));
}

/// A stopped edleak-record process does not hide the other recordings, and no command waits for this process.
#[test]
fn a_stopped_recorder_is_named() {
    let dir = TempDir::new("stopped");
    let start = |name: &str| {
        let mut command =
            Recorder::new(name).command(&dir.join(name), samples().binary("leaker"), ["--seconds", "60"]);
        Running::start(command.env("XDG_RUNTIME_DIR", dir.path()), b"")
    };
    let (stopped, other) = (start("one.edl"), start("two.edl"));
    let list = || run(Command::new(&tools().record).arg("sessions").env("XDG_RUNTIME_DIR", dir.path()));
    wait_for("both recordings", || {
        let listed = list().stdout;
        listed.contains("one.edl") && listed.contains("two.edl")
    });
    stopped.signal(libc::SIGSTOP);
    let listed = list();
    other.signal(libc::SIGTERM);
    other.finish();
    let mut ask = Command::new(&tools().record);
    ask.args(["watch", "--session", &stopped.pid().to_string(), "main"]);
    let asked = run(ask.env("XDG_RUNTIME_DIR", dir.path()));
    stopped.signal(libc::SIGCONT);
    stopped.signal(libc::SIGTERM);
    stopped.finish();
    assert!(listed.stdout.contains("two.edl") && !listed.stdout.contains("one.edl"), "{listed:?}");
    assert!(listed.stderr.contains("does not answer (is it stopped?"), "{listed:?}");
    assert!(asked.stderr.contains("responds (see above)"), "{asked:?}");
}

/// Several programs start in one directory at the same time, with LD_PRELOAD but without edleak-record. Each
/// started program must have its own trace, and so must each program that a started program executes.
#[test]
fn bare_preloads_do_not_share_a_trace() {
    let dir = TempDir::new("bare-many");
    let sample = samples().binary("leaker");
    let start = |program: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", program]).current_dir(dir.path());
        command.env("LD_PRELOAD", &tools().preload).env("EDLEAK_SIZE", "nonsense");
        Running::start(&mut command, b"")
    };
    let direct = format!("exec {} --seconds 2", sample.display());
    for running in [start(&direct), start(&direct)] {
        assert_eq!(running.finish().code, 0);
    }
    // Each of the two shells executes the sample leaker, so there must be four traces.
    let complete = || {
        let traces = traces_in(&dir);
        let whole = |trace: &PathBuf| {
            analyze(["--format", "json", "--all"], trace).stdout.contains("\"complete\":true")
        };
        traces.len() == 4 && traces.iter().all(whole)
    };
    wait_for("four traces", complete);
    let leaks = traces_in(&dir).iter().filter(|trace| analyze([""; 0], trace).code == 1).count();
    assert_eq!(leaks, 2);
}

/// If a service executes itself again after a while, the trace from before this exec is kept.
#[test]
fn image_before_an_exec_keeps_its_trace() {
    let script =
        "my @kept; for (1..40) { push @kept, 'x' x 1000; select(undef, undef, undef, 0.04) } exec 'true'";
    let recording = Recorder::new("re-exec").record("perl", ["-e", script]);
    assert_eq!(recording.outcome.code, 0, "{recording:?}");
    let before = recording.dir.join("trace.exec1.edl");
    assert!(recording.outcome.stderr.contains("trace.exec1.edl is"), "{}", recording.outcome.stderr);
    let report = Report::of(&before, &["--all"]);
    assert!(
        report.json["trace"]["complete"] == true && report.summary("live_bytes") > 40_000,
        "{}",
        report.json
    );
    let end = report.json["trace"]["end"].as_str().unwrap_or_default();
    assert!(end.contains("went on as another program"), "{end}");
    assert!(recording.all_sites().summary("live_bytes") < 40_000);
}

/// While the target executes one program after another, no other recording may take the name of the target's
/// trace.
#[test]
fn no_recorder_takes_a_name_between_two_images() {
    let dir = TempDir::new("between");
    let (trace, go_on) = (dir.join("trace.edl"), dir.join("go-on"));
    let again = "sub pause { select undef, undef, undef, 0.01 } pause; \
                 exec $^X, '-e', $ARGV[0], $ARGV[0], $ARGV[1] - 1, $ARGV[2] if $ARGV[1]; \
                 pause until -e $ARGV[2]";
    let arguments = ["-e", again, again, "60", go_on.to_str().expect("UTF-8")];
    let mut recording = Running::start(&mut Recorder::new("between").command(&trace, "perl", arguments), b"");
    recording.wait_for_text("recording perl");
    for attempt in 0..60 {
        let other = run(&mut Recorder::new("between").command(&trace, "true", [""; 0]));
        assert!(other.stderr.contains("another recording"), "attempt {attempt}: {other:?}");
    }
    std::fs::write(&go_on, "").expect("writable");
    let outcome = recording.finish();
    assert!(outcome.code == 0 && outcome.stderr.contains("; next: edleak-analyze"), "{outcome:?}");
    assert!(!dir.join("trace.edl.old").exists());
}

/// edleak-record reserves the name of the trace at its start, before it writes anything.
#[test]
fn two_recorders_do_not_share_a_trace() {
    let dir = TempDir::new("two");
    let trace = dir.join("trace.edl");
    let mut command = Recorder::new("two").command(&trace, "sh", ["-c", "echo started; sleep 1"]);
    let mut running = Running::start(&mut command, b"");
    running.wait_for_text("started");
    let refused = run(&mut Recorder::new("two").command(&trace, "true", [""; 0]));
    assert!(refused.code != 0 && refused.stderr.contains("another recording is writing"), "{refused:?}");
    assert_eq!(running.finish().code, 0);
    // After the first recording has ended, the name of its trace is free again. The second recording keeps
    // the first trace as `.old`.
    assert_eq!(run(&mut Recorder::new("two").command(&trace, "true", [""; 0])).code, 0);
    let mut traces = traces_in(&dir);
    traces.sort();
    assert_eq!(traces, [trace, dir.join("trace.edl.old")]);
}

/// `--duration` limits the whole recording, even if the program executes itself again and again.
#[test]
fn an_exec_does_not_prolong_the_recording() {
    let again = "my @kept = map { 'x' x 1000 } 1..40; select(undef, undef, undef, 1.2); \
                 exec $^X, '-e', $ARGV[0], $ARGV[0], $ARGV[1] - 1 if $ARGV[1]";
    let recording =
        Recorder::new("duration").options(["--duration", "2s"]).record("perl", ["-e", again, again, "3"]);
    let traces = traces_in(&recording.dir);
    assert!(traces.len() <= 2, "{traces:?}: {recording:?}");
}

/// The kernel reuses PIDs, but a child's trace must not replace another trace. The report mentions each child
/// without a trace.
#[test]
fn every_child_has_a_trace_or_is_reported() {
    // The name of this trace is so long that edleak cannot add the PID of a child to it.
    let dir = TempDir::new("long-name");
    let trace = dir.join(format!("{}.edl", "x".repeat(250)));
    let leaker = "my @kept = map { 'x' x 1000 } 1..40";
    let mut command = Recorder::new("long-name").options(["--children"]).command(
        &trace,
        "perl",
        ["-e", &format!("my $child = fork; {leaker}; waitpid $child, 0 if $child")],
    );
    assert_eq!(run(&mut command).code, 0);
    assert_eq!(Report::of(&trace, &["--all"]).summary("unrecorded_images"), 1);

    let last_pid = "/proc/sys/kernel/ns_last_pid";
    let unshare = ["--pid", "--fork", "--mount-proc"];
    let can_choose = format!("echo 20 > {last_pid}");
    if run(Command::new("unshare").args(unshare).args(["sh", "-c", &can_choose])).code != 0 {
        return cannot_run("no right to choose the numbers of processes");
    }
    let dir = TempDir::new("numbers");
    let trace = dir.join("trace.edl");
    // The next child is started after the trace of the previous child is finished and no longer locked.
    let finished = "until [ -e $trace ] && flock -ns $trace true; do sleep 0.02; done";
    let script = format!(
        "for trace in trace.21.edl trace.21.2.edl trace.21.3.edl; do echo 20 > {last_pid}; \
         perl -e \"{leaker}\" & wait; {finished}; done"
    );
    let record = Recorder::new("numbers").options(["--children"]).command(&trace, "bash", ["-c", &script]);
    let mut inside = Command::new("unshare");
    inside.args(unshare).arg(record.get_program()).args(record.get_args()).current_dir(dir.path());
    let recorded = run(&mut inside);
    assert_eq!(recorded.code, 0, "{recorded:?}");
    let perls = traces_in(&dir).into_iter().filter(|trace| {
        let command = Report::of(trace, &["--all"]).json["trace"]["command"].to_string();
        command.contains("kept") && !command.contains("wait")
    });
    assert_eq!(perls.count(), 3, "{recorded:?}");
}

/// In its own PID namespace, a child has the process ID 1. Outside the namespace of the child, the process ID
/// 1 belongs to another process.
#[test]
fn a_child_in_another_namespace_is_recorded_as_itself() {
    let unshare = ["--pid", "--fork"];
    if run(Command::new("unshare").args(unshare).arg("true")).code != 0 {
        return cannot_run("no right to make namespaces");
    }
    let leaker = samples().binary("leaker").display().to_string();
    let arguments = unshare.iter().copied().chain([leaker.as_str(), "--seconds", "2"]);
    let recording = Recorder::new("namespace").options(["--children"]).record("unshare", arguments);
    assert_eq!(recording.outcome.code, 0, "{recording:?}");
    let traces = traces_in(&recording.dir);
    let leaking: Vec<_> = traces.iter().filter(|trace| analyze([""; 0], trace).code == 1).collect();
    let [child] = leaking.as_slice() else { panic!("{traces:?}: {recording:?}") };
    let report = Report::of(child, &[]);
    assert!(report.json["trace"]["command"].to_string().contains("leaker"), "{}", report.json["trace"]);
    assert_ne!(report.json["trace"]["pid"], 1);
}

/// A child with its own mount of /proc cannot find the collector, and cannot report that it is not recorded.
#[test]
fn child_behind_its_own_proc_is_reported() {
    let unshare = ["--pid", "--fork", "--mount-proc"];
    if run(Command::new("unshare").args(unshare).arg("true")).code != 0 {
        return cannot_run("no right to make namespaces");
    }
    let leaker = samples().binary("leaker").display().to_string();
    let arguments = unshare.iter().copied().chain([leaker.as_str(), "--seconds", "2"]);
    let recording = Recorder::new("own-proc").options(["--children"]).record("unshare", arguments);
    assert_eq!(recording.outcome.code, 0, "{recording:?}");
    assert!(recording.outcome.stderr.contains("(`leaker`) cannot reach edleak-record"), "{recording:?}");
    assert_eq!(recording.all_sites().summary("unrecorded_images"), 1);
    assert_eq!(analyze([""; 0], &recording.trace).code, 2);
}

/// The loader ignores LD_PRELOAD for a program with set-user-ID. So edleak must report that the memory of a
/// set-user-ID program is unknown, even if the user may not inspect the program.
#[test]
fn set_user_id_program_gets_no_verdict() {
    if !is_root() {
        return cannot_run("only root can make such a program");
    }
    let dir = TempDir::new("set-uid");
    let program = dir.join("sleeps");
    std::fs::copy("/bin/sleep", &program).expect("writable");
    std::fs::set_permissions(&program, Permissions::from_mode(0o4755)).expect("it is ours");
    let script = format!("exec {} 1.5", program.display());
    let (recorded, trace) = record_as_nobody(&dir, "bash", &script);
    assert_eq!(recorded.code, 0, "{recorded:?}");
    let analyzed = analyze([""; 0], &trace);
    assert_eq!(analyzed.code, 2, "{analyzed:?} {recorded:?}");
}

/// A sandbox, such as that of Chromium, makes its process non-dumpable and enters a user namespace. After
/// that, the process has all rights in its user namespace, but still runs the same program, so edleak must
/// not report an exec.
#[test]
fn user_namespace_of_a_child_is_not_taken_for_an_exec() {
    if !is_root() {
        return cannot_run("only root can become a user without rights");
    }
    // The script calls prctl(PR_SET_DUMPABLE, 0) and unshare(CLONE_NEWUSER).
    let script = "syscall(157, 4, 0, 0, 0, 0); exit 9 if syscall(272, 0x10000000); \
                  my @kept; for (1..40) { push @kept, 'x' x 1000; select(undef, undef, undef, 0.05) }";
    let dir = TempDir::new("sandbox");
    let (recorded, trace) = record_as_nobody(&dir, "perl", script);
    if recorded.code == 9 {
        return cannot_run("no right to make namespaces");
    }
    assert_eq!(recorded.code, 0, "{recorded:?}");
    assert!(!recorded.stderr.contains("not recorded"), "{recorded:?}");
    let report = Report::of(&trace, &["--all"]);
    assert_eq!(report.json["trace"]["end"], "the program exited with status 0", "{recorded:?}");
}

/// Records `PROGRAM -c SCRIPT` (`-e` for perl) as the user nobody. Copies edleak-record and its library into
/// `dir` first.
fn record_as_nobody(dir: &TempDir, program: &str, script: &str) -> (Outcome, PathBuf) {
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("it is ours");
    let binaries = [&tools().record, &tools().preload].map(|file| {
        let copy = dir.join(file.file_name().expect("a file").to_str().expect("UTF-8"));
        std::fs::copy(file, &copy).expect("writable");
        std::fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("it is ours");
        copy
    });
    let trace = dir.join("trace.edl");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binaries[0]);
    let option = if program == "perl" { "-e" } else { "-c" };
    command.arg("-o").arg(&trace).args([program, option, script]).current_dir(dir.path());
    (run(&mut command), trace)
}
