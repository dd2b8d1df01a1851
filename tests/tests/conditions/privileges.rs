//! Tests the library in /etc/ld.so.preload: the loader then loads the library into every program, including
//! privileged programs and edleak-record. The test runs inside a mount namespace with a copy of /etc.

use super::{NOBODY, is_root, may_unshare, names_in, set_mode, share, share_tools};
use edleak_tests::run::{Outcome, cannot_run, run, wait_for};
use edleak_tests::temp::TempDir;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that every user may write to, with edleak's programs. Returns `None` if the test cannot create
/// the condition on this machine.
fn prepared(name: &str) -> Option<(TempDir, PathBuf)> {
    if !is_root() || !may_unshare(&["--mount"]) {
        cannot_run("only root can mount another /etc");
        return None;
    }
    let dir = TempDir::new(name);
    let record = share_tools(&dir);
    Some((dir, record))
}

/// Runs `script` in `dir` as nobody, with the library in /etc/ld.so.preload.
fn run_preloaded(dir: &TempDir, script: &str) -> Outcome {
    let library = dir.join("libedleak_preload.so");
    // The commands up to `mount` start before the changed copy of /etc is mounted, so the loader does not
    // load edleak's library into these commands.
    let prepare = "set -e; cp -a /etc \"$1/etc\"; echo \"$2\" > \"$1/etc/ld.so.preload\"; \
                   mount --bind \"$1/etc\" /etc; cd \"$1\"; \
                   exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c \"$3\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", prepare, "sh"]).arg(dir.path()).arg(&library).arg(script);
    // With an empty EDLEAK_SESSION, edleak does not record the commands that prepare the test.
    run(command.env("EDLEAK_SESSION", ""))
}

/// Copies a program and sets its set-user-ID bit, so that the copy always runs as root.
fn set_user_id(dir: &TempDir, program: &str) -> PathBuf {
    let copy = share(dir, Path::new(program));
    set_mode(&copy, 0o4755);
    copy
}

#[test]
fn a_program_with_the_rights_of_its_file_uses_nothing_of_the_environment() {
    let Some((dir, _)) = prepared("secure") else { return };
    let program = set_user_id(&dir, "/usr/bin/id");
    std::fs::write(dir.join("recorder"), "#!/bin/sh\nid -u >> ran\n").expect("writable");
    set_mode(&dir.join("recorder"), 0o755);
    let script = format!(
        "unset EDLEAK_SESSION; mkfifo pipe; (cat < pipe > opened; echo read >> opened) & \
         EDLEAK_RECORD=$PWD/recorder EDLEAK_OUTPUT=$PWD/of-root.edl {program}; \
         EDLEAK_SESSION=\"$PWD/pipe#0000000000000000\" {program}; echo -n end > pipe; wait",
        program = program.display()
    );
    let outcome = run_preloaded(&dir, &script);
    assert_eq!(outcome.stdout.matches("euid=0(root)").count(), 2, "the condition holds: {outcome:?}");
    // The shell, mkfifo and cat each start edleak-record as nobody. No process may start edleak-record as
    // root.
    let ran = std::fs::read_to_string(dir.join("ran")).unwrap_or_default();
    assert!(ran.lines().all(|user| user == NOBODY.to_string()), "{ran}");
    assert!(!names_in(dir.path()).contains(&"of-root.edl".to_owned()), "{:?}", names_in(dir.path()));
    let opened = std::fs::read_to_string(dir.join("opened")).expect("the reader has written it");
    assert_eq!(opened, "endread\n", "the session of the environment was not opened");
}

/// The names of the traces in the directory.
fn traces_in(dir: &TempDir) -> Vec<String> {
    names_in(dir.path()).into_iter().filter(|name| name.contains(".edl")).collect()
}

#[test]
fn a_recorder_in_ld_so_preload_does_not_record_itself() {
    let Some((dir, record)) = prepared("chain") else { return };
    // EDLEAK_RECORD is not set, so the library looks for edleak-record in its own directory.
    let script = format!("unset EDLEAK_SESSION; exec {} -q -o t.edl /bin/true", record.display());
    let outcome = run_preloaded(&dir, &script);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    // The shell was recorded into trace.edl until it executed edleak-record. The collector that wrote
    // trace.edl had the library preloaded, too, but was not recorded.
    wait_for("the recorders to end", || recorders_of(&record) == 0);
    let traces = traces_in(&dir);
    assert!(traces.contains(&"t.edl".to_owned()), "{traces:?}");
    assert!(traces.len() <= 2, "{traces:?}");
}

/// The number of processes that run the program `record`.
fn recorders_of(record: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").expect("Linux has it").flatten();
    let runs = |process: std::fs::DirEntry| {
        std::fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == record)
    };
    processes.map(runs).filter(|&runs| runs).count()
}
