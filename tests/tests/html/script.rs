//! Checks the types of the page's script with the TypeScript compiler. The types are in comments of the
//! script, so there is no build step.

use edleak_tests::tools::{repository, target_dir};
use std::process::Command;

#[test]
fn the_script_has_no_type_errors() {
    let compiler = target_dir().join("npm/node_modules/typescript/bin/tsc");
    assert!(compiler.is_file(), "`{}` is not there (tests/setup.sh installs it)", compiler.display());
    let scripts = repository().join("analyzer/report/src/html");
    let entries = std::fs::read_dir(&scripts).expect("the directory is part of the repository");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a directory that was opened can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "js"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "only {} scripts were found", files.len());
    let options =
        ["--noEmit", "--allowJs", "--checkJs", "--strict", "--noUnusedLocals", "--target", "es2022"];
    let checked = Command::new("node")
        .arg(compiler)
        .args(options)
        .args(["--lib", "es2023,dom,dom.iterable"])
        .args(&files)
        .current_dir(&scripts)
        .output()
        .expect("node must be there (tests/setup.sh installs it)");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
