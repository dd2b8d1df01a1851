//! Compiles the programs of `tests/programs` while the tests run.
#![allow(dead_code)] // each test file uses only a part of these functions

pub(crate) mod captured;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory for the compiled programs of the test `name`. If the directory contains older files, the
/// function removes them.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("cargo's directory for tests can be written");
    path
}

/// The path of a source file in `tests/programs`.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

/// Reports that a test cannot run, because a tool or a permission is missing on this machine. In continuous
/// integration (CI), every test must run, so in CI the function fails the test.
pub(crate) fn cannot_run(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must run every test: {why}");
    eprintln!("not run: {why}");
}

/// Runs a tool until the tool ends, and returns the output; `None`: the tool is not installed.
pub(crate) fn try_run(command: &mut Command) -> Option<Vec<u8>> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            cannot_run(&format!("{} is not installed", command.get_program().display()));
            return None;
        }
        Err(error) => panic!("{command:?}: {error}"),
    };
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// Runs a tool that is installed on every machine on which edleak can be built.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    try_run(command).unwrap_or_else(|| panic!("{} is needed", command.get_program().display()))
}

/// The path of a file that this process has mapped and whose name begins with `name`.
pub(crate) fn loaded_library(name: &str) -> PathBuf {
    let map = std::fs::read_to_string("/proc/self/maps").expect("a process can read its own map");
    let paths = map.lines().filter_map(|line| line.split_whitespace().nth(5));
    let found = paths.map(Path::new).find(|path| {
        path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(name))
    });
    found.unwrap_or_else(|| panic!("no {name} in {map}")).to_owned()
}
