//! Tests edleak-record in unusual environments, for example with ignored signals, in its own terminal
//! session, in PID and mount namespaces, with a /proc that hides processes, in sticky directories, and with
//! privileges from a file. Each test creates its environment, and is skipped if the user may not create this
//! environment.
#![allow(unsafe_code)] // runs code between fork and exec

mod descendants;
mod hidden;
mod malloc_debug;
mod names;
mod namespaces;
mod own_allocator;
mod privileges;
mod signals;

use edleak_tests::run::{cannot_run, run};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user ID of nobody.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    // SAFETY: `geteuid` takes no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Whether this user may run `unshare` with `options`. If not, `may_unshare` reports that the test is
/// skipped.
fn may_unshare(options: &[&str]) -> bool {
    let may = run(Command::new("unshare").args(options).arg("true")).code == 0;
    if !may {
        cannot_run(&format!("no right to `unshare {}`", options.join(" ")));
    }
    may
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// Copies a file into `dir`. Other users may read and execute the copied file.
fn share(dir: &TempDir, file: &Path) -> PathBuf {
    let copy = dir.join(file.file_name().expect("a file has a name"));
    edleak_tests::run::copy_program(file, &copy);
    set_mode(&copy, 0o755);
    copy
}

/// Copies edleak-record and its library into a directory that every user may read and write.
fn share_tools(dir: &TempDir) -> PathBuf {
    set_mode(dir.path(), 0o777);
    share(dir, &tools().preload);
    share(dir, &tools().record)
}

/// A command that runs its arguments as the user nobody.
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
