//! Tests child processes that edleak does not record. The trace of the program that starts an unrecorded
//! child must report the child.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::hosts;
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::run::{cannot_run, run};
use edleak_tests::temp::TempDir;
use std::process::Command;

/// Records a shell script that runs long enough for a verdict.
fn record(script: &str, options: &[&str]) -> Recording {
    let static_child = hosts().binaries();
    let recorder = Recorder::new("descendants").options(["--period", "20ms"]).options(options);
    recorder.env("PROGRAMS", static_child.to_str().expect("UTF-8")).record("bash", ["-c", script])
}

/// Returns two numbers from the trace of the first process: how many executed programs were not recorded, and
/// how many children the user did not ask to record.
fn told(recording: &Recording) -> (u64, u64) {
    let report = recording.all_sites();
    (report.summary("unrecorded_images"), report.summary("unasked_children"))
}

/// A shell command that runs a process without the library for half a second.
const WITHOUT_LIBRARY: &str = "env -u LD_PRELOAD sleep 0.5";

#[test]
fn child_without_the_library_is_reported() {
    let recording = record(&format!("sleep 0.3; {WITHOUT_LIBRARY}; sleep 0.3; true"), &["--children"]);
    assert!(told(&recording).0 >= 1, "{:?} {}", told(&recording), recording.outcome.stderr);
    assert_eq!(analyze([""; 0], &recording.trace).code, 2);
}

#[test]
fn child_without_an_environment_is_reported() {
    let recording = record("sleep 0.3; env -i sleep 0.5; sleep 0.3; true", &["--children"]);
    assert!(told(&recording).0 >= 1, "{:?} {}", told(&recording), recording.outcome.stderr);
}

#[test]
fn recorded_child_that_execs_without_the_library_is_reported() {
    let script = "perl -e 'my @kept = map { \"x\" x 100 } 1..1000; select undef, undef, undef, 0.3; \
                  delete $ENV{LD_PRELOAD}; exec \"sleep\", \"0.4\"'; sleep 0.3; true";
    let recording = record(script, &["--children"]);
    assert!(told(&recording).0 >= 1, "{:?} {}", told(&recording), recording.outcome.stderr);
}

#[test]
fn recorded_children_are_not_reported_as_lost() {
    let recording =
        record("sleep 0.3; perl -e 'my @a = (1) x 1000'; (sleep 0.1); sleep 0.3; true", &["--children"]);
    assert_eq!(told(&recording), (0, 0), "{}", recording.outcome.stderr);
}

#[test]
fn reparented_daemon_is_reported() {
    // The shell's child ends soon after it has started the daemon, and the shell never waits for the daemon.
    let script = "(env -u LD_PRELOAD setsid sleep 5 & echo $! > /dev/null); sleep 0.5; true";
    for (options, index) in [(&[][..], 1), (&["--children"], 0)] {
        let recording = record(script, options);
        let told = [told(&recording).0, told(&recording).1];
        assert!(told[index] >= 1, "{options:?} {told:?} {}", recording.outcome.stderr);
    }
}

#[test]
fn short_unrecorded_child_is_reported() {
    // The child executes /bin/true before it allocates. /bin/true does not load the library, because its
    // environment is empty.
    let script = "import os, time; time.sleep(0.3); pid = os.posix_spawn('/bin/true', ['true'], {}); \
                  os.waitpid(pid, 0); time.sleep(0.3)";
    let recording = Recorder::new("spawn").options(["--period", "20ms"]).record("python3", ["-c", script]);
    assert!(told(&recording).1 >= 1, "{:?} {}", told(&recording), recording.outcome.stderr);
    assert!(recording.outcome.stderr.contains("--children records them"), "{}", recording.outcome.stderr);
}

#[test]
fn a_program_without_children_tells_of_none() {
    let recording = Recorder::new("alone").record("perl", ["-e", "select undef, undef, undef, 0.6"]);
    assert_eq!(told(&recording), (0, 0), "{}", recording.outcome.stderr);
}

/// If a child executes a program just before the end of the recording, edleak must not report the child as
/// unrecorded.
#[test]
fn child_that_execs_as_the_duration_ends_is_not_reported() {
    let script = "while :; do perl -e 'my @a = (1) x 100'; done";
    let recording = record(script, &["--children", "--duration", "1s", "--then-terminate"]);
    assert_eq!(told(&recording), (0, 0), "{}", recording.outcome.stderr);
}

/// The collector keeps the trace of a new child in memory for 20 ms, or until the child ends. When the
/// collector then writes the child's trace to the disk, it finds that the disk is full. The trace of the
/// first process got its space on the disk before the disk was full, and must report that the child has no
/// trace.
#[test]
fn a_child_whose_trace_finds_the_disk_full_is_told_and_leaves_no_file() {
    for child in ["perl -e 'my @a = map { q(x) x $_ } 1..300; select undef, undef, undef, 0.3'", "(exit 3)"] {
        let dir = TempDir::new("full-child");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            return cannot_run("no right to mount a small file system");
        }
        let filler = dir.join("filler");
        let fill = format!("while printf %4096s >> {}; do :; done 2> /dev/null", filler.display());
        // The first process (the shell) must run on until the collector has tried to write the child's trace.
        // If the first process ended earlier, its own trace would shrink and leave room for the trace of the
        // child.
        let work = "for ((i = 0; i < 300000; i++)); do :; done";
        let script = format!("{fill}; {child}; {work}; exit 7");
        let trace = dir.join("trace.edl");
        let recorder = Recorder::new("full-child").options(["--children"]);
        let outcome = run(&mut recorder.command(&trace, "bash", ["-c", &script]));
        let analyzed = analyze(["--all"], &trace);
        let files = std::fs::read_dir(dir.path()).expect("it is ours").flatten();
        let mut files: Vec<_> = files.map(|file| file.file_name()).collect();
        files.sort();
        let unmounted = Command::new("umount").arg(dir.path()).output();
        assert!(
            unmounted.is_ok_and(|output| output.status.success()),
            "our own file system can be unmounted"
        );
        assert_eq!(outcome.code, 7, "the program is left alone: {}", outcome.stderr);
        assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
        assert_eq!(files, ["filler", "trace.edl"], "{child}: {}", outcome.stderr);
        assert_eq!(analyzed.code, 2, "{}", analyzed.stdout);
        assert!(analyzed.stdout.contains("1 unrecorded program"), "{}", analyzed.stdout);
    }
}
