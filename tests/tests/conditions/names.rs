//! Tests trace names that are already in use, or that another process begins to use during the test: running
//! recordings with derived names, links of other users, standard output.

use super::{NOBODY, as_nobody, is_root, names_in, set_mode, share, share_tools};
use edleak_tests::programs::hosts;
use edleak_tests::record::Recorder;
use edleak_tests::report::Report;
use edleak_tests::run::{Outcome, Running, cannot_run, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::Command;

/// Starts a recording into `trace`. The recording runs until the test ends it.
fn start_recording(trace: &Path) -> Running {
    let mut command =
        Recorder::new("live").command(trace, "sh", ["-c", "printf 'rea%s\\n' dy; exec sleep 60"]);
    let mut running = Running::start(&mut command, b"");
    // The test waits for the text `ready`. edleak-record prints the command line of the script in a message,
    // so this command line must not contain `ready`.
    running.wait_for_text("ready");
    wait_for("a trace", || trace.metadata().is_ok_and(|file| file.len() > 0));
    running
}

fn end(running: Running) -> Outcome {
    running.signal(libc::SIGTERM);
    running.finish()
}

#[test]
fn a_live_recording_called_old_is_neither_moved_nor_deleted() {
    let dir = TempDir::new("live-old");
    let (trace, old) = (dir.join("t.edl"), dir.join("t.edl.old"));
    let live = start_recording(&old);
    let inode = old.metadata().expect("it is there").ino();
    let first = run(&mut Recorder::new("live").command(&trace, "true", [""; 0]));
    let second = run(&mut Recorder::new("live").command(&trace, "true", [""; 0]));
    assert_eq!(old.metadata().expect("it is still there").ino(), inode);
    end(live);
    assert_eq!(first.code, 0, "there is nothing to keep yet: {first:?}");
    assert_eq!(second.code, 125, "{second:?}");
    assert!(
        second.stderr.contains("another recording is writing") && second.stderr.contains("t.edl.old"),
        "{second:?}"
    );
    assert_eq!(Report::of(&old, &["--all"]).json["trace"]["complete"], true);
}

#[test]
fn a_trace_that_was_moved_away_is_not_called_by_its_name() {
    let dir = TempDir::new("moved");
    let (trace, elsewhere) = (dir.join("t.edl"), dir.join("elsewhere.edl"));
    let live = start_recording(&trace);
    std::fs::rename(&trace, &elsewhere).expect("it is ours");
    let outcome = end(live);
    assert!(outcome.stderr.contains("is not this trace: "), "{outcome:?}");
    assert!(!outcome.stderr.contains("next: edleak-analyze"), "{outcome:?}");
    assert_eq!(Report::of(&elsewhere, &["--all"]).json["trace"]["complete"], true);
}

/// While `edleak-analyze embed` prepares its output, a recording begins to write a trace with the name of
/// this output file. `embed` must not replace the trace of the recording. `embed` takes some time, because
/// the trace has many symbols.
#[test]
fn embedding_does_not_replace_a_recording_that_has_begun_meanwhile() {
    let dir = TempDir::new("embed-race");
    let (source, output) = (dir.join("source.edl"), dir.join("out.edl"));
    let recorded =
        run(&mut Recorder::new("embed-race").command(&source, hosts().binary("exceptions"), [""; 0]));
    assert_eq!(recorded.code, 0, "{recorded:?}");
    for round in 0..6 {
        let _ = std::fs::remove_file(&output);
        let mut embed = Command::new(&tools().analyze);
        let embedding = Running::start(embed.arg("embed").arg("-o").arg(&output).arg(&source), b"");
        let live = start_recording(&output);
        let embedded = embedding.finish();
        let ended = end(live);
        // If edleak-record and edleak-analyze both try to create the file out.edl, the program that comes
        // second fails with a message. If the recording succeeds, its trace is complete, in out.edl or in a
        // file with another name.
        assert!(
            ended.stderr.contains("next: edleak-analyze") || embedded.code == 0,
            "{round}: {ended:?} {embedded:?}"
        );
        assert!(!ended.stderr.contains("is not this trace: "), "{round}: {ended:?} {embedded:?}");
        let pid = Report::of(&output, &["--all"]).json["trace"]["command"].to_string();
        assert!(pid.contains("sleep") || ended.code == 125, "{round}: {pid} {ended:?}");
    }
}

#[test]
fn an_analysis_does_not_write_over_its_standard_input() {
    let recording = Recorder::new("stdin").record("true", [""; 0]);
    let before = std::fs::read(&recording.trace).expect("it is there");
    for command in [&["-o"][..], &["anonymize", "-o"]] {
        let mut analyze = Command::new(&tools().analyze);
        analyze.args(command).arg(&recording.trace).arg("-");
        let script = "exec \"$@\" < \"$0\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(&recording.trace).arg(analyze.get_program()).args(analyze.get_args());
        let refused = run(&mut shell);
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(refused.stderr.contains("would be overwritten"), "{refused:?}");
        assert!(std::fs::read(&recording.trace).expect("it is there") == before);
    }
}

/// A recording must not use the file that receives the program's output as its trace.
#[test]
fn the_log_that_standard_output_goes_to_is_not_moved_away() {
    let dir = TempDir::new("dev-stdout");
    let log = dir.join("log");
    for output in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", log.to_str().expect("UTF-8")] {
        std::fs::write(&log, "precious\n").expect("writable");
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" >> \"$0\""]).arg(&log).arg(&tools().record);
        let refused = run(command.args(["-o", output, "true"]));
        assert_eq!(refused.code, 125, "{output}: {refused:?}");
        assert!(refused.stderr.contains("(choose another file with -o)"), "{output}: {refused:?}");
        assert_eq!(std::fs::read_to_string(&log).expect("it is there"), "precious\n", "{output}");
        assert_eq!(names_in(dir.path()), ["log"], "{output}");
    }
}

/// A directory with the sticky bit, like /tmp. The directory contains a link that belongs to the user nobody
/// and leads to a file of the user who runs the test.
fn sticky(name: &str) -> Option<(TempDir, TempDir)> {
    if !is_root() {
        cannot_run("only root can give a link away");
        return None;
    }
    let (shared, home) = (TempDir::new(name), TempDir::new(&format!("{name}-home")));
    set_mode(shared.path(), 0o1777);
    let (link, precious) = (shared.join("t.edl"), home.join("precious"));
    std::fs::write(&precious, "precious").expect("writable");
    symlink(&precious, &link).expect("writable");
    std::os::unix::fs::lchown(&link, Some(NOBODY), Some(NOBODY)).expect("we are root");
    Some((shared, home))
}

fn assert_untouched(shared: &TempDir, home: &TempDir, refused: &Outcome) {
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("another user's link"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(home.join("precious")).expect("it is there"), "precious");
    assert_eq!(
        (names_in(home.path()), names_in(shared.path())),
        (vec!["precious".into()], vec!["t.edl".into()])
    );
}

#[test]
fn a_recording_does_not_follow_a_strangers_link_in_a_sticky_directory() {
    let Some((shared, home)) = sticky("sticky-record") else { return };
    let refused = run(&mut Recorder::new("sticky").command(&shared.join("t.edl"), "true", [""; 0]));
    assert_untouched(&shared, &home, &refused);
    // If another user's link leads to a missing file, edleak-record must not create the missing file.
    std::fs::rename(home.join("precious"), home.join("elsewhere")).expect("ours");
    let refused = run(&mut Recorder::new("sticky").command(&shared.join("t.edl"), "true", [""; 0]));
    assert!(refused.stderr.contains("another user's link"), "{refused:?}");
    assert_eq!(names_in(home.path()), ["elsewhere"]);
}

#[test]
fn embedding_does_not_follow_a_strangers_link_in_a_sticky_directory() {
    let Some((shared, home)) = sticky("sticky-embed") else { return };
    let recording = Recorder::new("sticky").record("true", [""; 0]);
    for verb in ["embed", "anonymize"] {
        let mut command = Command::new(&tools().analyze);
        let refused = run(command.arg(verb).arg("-o").arg(shared.join("t.edl")).arg(&recording.trace));
        assert_untouched(&shared, &home, &refused);
    }
}

/// A recording must not use an empty file of another user as its trace, because that user could read the
/// trace.
#[test]
fn a_strangers_file_in_a_sticky_directory_is_not_written() {
    if !is_root() {
        return cannot_run("only root can give a file away");
    }
    let shared = TempDir::new("sticky-file");
    set_mode(shared.path(), 0o1777);
    let trace = shared.join("t.edl");
    File::create(&trace).expect("writable");
    chown(&trace, Some(NOBODY), Some(NOBODY)).expect("we are root");
    let refused = run(&mut Recorder::new("sticky").command(&trace, "true", [""; 0]));
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.stderr.contains("belongs to another user"), "{refused:?}");
    assert_eq!(trace.metadata().expect("it is there").len(), 0);
}

/// If the trace name contains bytes that are not UTF-8, the names of the children's traces keep these bytes.
#[test]
fn names_of_childrens_traces_keep_every_byte() {
    let dir = TempDir::new("bytes");
    let name = std::ffi::OsStr::from_bytes(b"t\xff\xfe.edl");
    let script = "perl -e 'my @a = map { \"x\" x 100 } 1..100'; true";
    let recorder = Recorder::new("bytes").options(["--children"]);
    let recorded = run(&mut recorder.command(&dir.join(name), "sh", ["-c", script]));
    assert_eq!(recorded.code, 0, "{recorded:?}");
    let files: Vec<_> =
        std::fs::read_dir(dir.path()).expect("ours").map(|file| file.expect("ours").file_name()).collect();
    assert!(files.len() >= 2, "{files:?}");
    assert!(files.iter().all(|file| file.as_bytes().starts_with(b"t\xff\xfe.")), "{files:?}");
}

/// After `sudo -E`, XDG_RUNTIME_DIR names the directory of another user. edleak-record must not write into
/// the directory of another user.
#[test]
fn the_runtime_directory_of_another_user_stays_as_it_is() {
    if !is_root() {
        return cannot_run("only root may write there");
    }
    let (dir, runtime) = (TempDir::new("runtime"), TempDir::new("runtime-of-nobody"));
    chown(runtime.path(), Some(NOBODY), Some(NOBODY)).expect("we are root");
    set_mode(runtime.path(), 0o700);
    let mut command = Recorder::new("runtime").command(&dir.join("t.edl"), "true", [""; 0]);
    assert_eq!(run(command.env("XDG_RUNTIME_DIR", runtime.path())).code, 0);
    assert!(names_in(runtime.path()).is_empty(), "{:?}", names_in(runtime.path()));
    // If the owner of the run-time directory starts edleak-record, edleak-record must use the directory.
    let record = share_tools(&dir);
    let program = share(&dir, Path::new("/bin/sh"));
    let mut command = as_nobody();
    command.arg(record).args(["-q", "-o", "of-nobody.edl"]).arg(program).args(["-c", "ls $XDG_RUNTIME_DIR"]);
    let recorded = run(command.env("XDG_RUNTIME_DIR", runtime.path()).current_dir(dir.path()));
    assert!(recorded.stdout.contains("edleak"), "{recorded:?}");
}
