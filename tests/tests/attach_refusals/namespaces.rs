//! Tests processes that see other files than edleak-record does: such a process cannot open the library by
//! its path.

use super::{is_root, refused, refused_and_answers};
use edleak_tests::fed::Fed;
use edleak_tests::ledger_program::{LedgerProgram, next_recording_is_exact};
use edleak_tests::programs::programs;
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::path::Path;
use std::process::Command;

/// Records a process that edleak-record refuses without `--copy-into`. With `--copy-into`, the counters must
/// equal the ledger of the process.
fn is_exact_with_a_copy(mut target: LedgerProgram, directory: &str) {
    target.tell("go");
    refused(
        target.pid(),
        &["it cannot open `", "it has other files (copy the library", "`--copy-into /tmp`)"],
    );
    let dir = TempDir::new("attach-copy");
    next_recording_is_exact(&mut target, &dir.join("trace.edl"), &["--copy-into", directory]);
    assert_eq!(target.tell("drain"), "", "it answers");
}

/// The process has a mount namespace in which the directory of the library is empty.
#[test]
fn process_that_cannot_open_the_library_gets_a_copy_on_request() {
    if !is_root() {
        return;
    }
    let library = tools().preload.canonicalize().expect("it is there");
    let hidden = library.parent().expect("a file lies in a directory").display().to_string();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs tmpfs \"$0\" && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, &hidden]).arg(programs().binary("idle_ledger")).arg("4");
    is_exact_with_a_copy(LedgerProgram::start(command), &hidden);
    assert!(library.is_file(), "the mount is only in the namespace");
}

/// The process has its own root directory and its own process IDs, as in a container. edleak-record runs
/// outside of the process's container, and uses the process ID that is valid outside.
#[test]
fn process_of_a_container_is_recorded_by_its_number_on_the_host() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new("attach-container");
    let script = "
        root=$0/root; mkdir -p $root; mount -t tmpfs tmpfs $root; cd $root
        mkdir usr proc tmp program host; mount --bind /usr usr; mount --bind \"$1\" program; \
                  mount -t proc proc proc
        for name in lib lib64 bin; do
            if [ -L /$name ]; then ln -s usr/$name $name; else mkdir $name; mount --bind /$name $name; fi
        done
        pivot_root . host; umount -l /host
        exec /program/idle_ledger 4";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", script]).arg(dir.path());
    command.arg(programs().binaries());
    let target = LedgerProgram::start_in_namespace(command);
    let status = std::fs::read_to_string(format!("/proc/{}/status", target.pid())).expect("it runs");
    assert!(status.contains("\tidle_ledger\n"), "{status}");
    assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
    is_exact_with_a_copy(target, "/tmp");
}

/// The kernel would not let a process with its own user namespace open the shared memory of a recording. So
/// edleak-record must refuse the process before it loads the library into it.
#[test]
fn process_with_its_own_user_namespace_is_refused() {
    if !is_root() {
        return;
    }
    let program = programs().binary("attach_answer").display().to_string();
    let program = Fed::start(Path::new("unshare"), &["--user", "--map-root-user", &program], "ready");
    refused_and_answers(
        program,
        &["it has its own user namespace", "(start edleak-record inside that namespace"],
    );
}
