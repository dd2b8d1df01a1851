//! Tests the file of a trace: its name, a second recording into it, damage, and a full disk.

use super::assert_refused;
use edleak_tests::analyze::analyze;
use edleak_tests::programs::samples;
use edleak_tests::record::Recorder;
use edleak_tests::report::Report;
use edleak_tests::run::{Running, cannot_run, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::process::Command;

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

#[test]
fn a_trace_on_standard_output_is_refused() {
    let outcome = run(Command::new(&tools().record).args(["-o", "-", "true"]));
    assert_refused(&outcome, "-o -", &["standard output", "`./-`"]);
}

#[test]
fn the_default_output_is_trace_edl_here() {
    let dir = TempDir::new("default");
    let outcome = run(Command::new(&tools().record).arg("true").current_dir(dir.path()));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(dir.join("trace.edl").is_file());
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
