//! What a recording is started into and has not chosen: ignored signals, a session of its own, PID and mount namespaces, a /proc that
//! hides, sticky directories, rights from a file. Each test makes the condition itself, and is skipped where it may not.
#![allow(unsafe_code)] // what happens between fork and exec

mod descendants;
mod hidden;
mod malloc_debug;
mod names;
mod namespaces;
mod own_allocator;
mod privileges;
mod signals;

use edleak_tests::run::run;
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user who is nobody.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    // SAFETY: `geteuid` has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// Whether `unshare` may do this; otherwise the test that asks is skipped.
fn may_unshare(options: &[&str]) -> bool {
    let may = run(Command::new("unshare").args(options).arg("true")).code == 0;
    if !may {
        eprintln!("skipped: no right to `unshare {}`", options.join(" "));
    }
    may
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// Copies a file that others may read and execute into `dir`.
fn share(dir: &TempDir, file: &Path) -> PathBuf {
    let copy = dir.join(file.file_name().expect("a file has a name"));
    edleak_tests::run::copy_program(file, &copy);
    set_mode(&copy, 0o755);
    copy
}

/// edleak-record and its library where every user may read them, and a directory where every user may write.
fn share_tools(dir: &TempDir) -> PathBuf {
    set_mode(dir.path(), 0o777);
    share(dir, &tools().preload);
    share(dir, &tools().record)
}

/// `command` as the user who is nobody.
fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("it is there");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("it is there").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
