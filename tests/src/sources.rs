//! The source files of the repository, for tests that read them.

use crate::tools::repository;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every file of the repository whose name matches one of `patterns`, as a path relative to the root of the
/// repository.
pub fn files(patterns: &[&str]) -> Vec<PathBuf> {
    let root = repository();
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .args(patterns)
        .current_dir(root)
        .output()
        .expect("git must be there to list the files");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).expect("paths in UTF-8");
    text.lines().map(PathBuf::from).filter(|path| root.join(path).is_file()).collect()
}

/// Every Rust file of the repository.
pub fn rust_files() -> Vec<PathBuf> {
    let files = files(&["*.rs"]);
    assert!(files.len() > 20, "only {} Rust files found", files.len());
    files
}

/// The content of a file. `path` is relative to the root of the repository.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(repository().join(path))
        .unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
}

/// The code of a file, without comments and without the tests at the end of the file.
pub fn code_of(path: &Path) -> String {
    let text = read(path);
    let text = text.replace("#[cfg(all(test, not(edleak_loom)))]", "#[cfg(test)]");
    let before_tests = text.split("#[cfg(test)]\nmod ").next().expect("split gives at least one part");
    before_tests.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}
