//! The programs that edleak-bench runs: the release build of edleak, and helper programs that it compiles
//! from `benches/programs`.

use anyhow::{Context, Result, bail};
use edleak_tests::tools::repository;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The paths of edleak's programs.
pub(crate) struct Tools {
    /// The path of `edleak-record`; the preload is in the same directory.
    pub(crate) record: PathBuf,
    /// The path of `edleak-analyze`.
    pub(crate) analyze: PathBuf,
}

impl Tools {
    /// Builds edleak-record and edleak-analyze with the release profile. If `EDLEAK_BIN_DIR` is set, the
    /// bench builds nothing and uses the programs in the directory `EDLEAK_BIN_DIR`.
    pub(crate) fn build() -> Result<Tools> {
        let dir = match std::env::var_os("EDLEAK_BIN_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => {
                cargo(&["build", "--release", "-p", "edleak-record", "-p", "edleak-analyze"])
                    .arg("-p")
                    .arg("edleak-preload")
                    .run()?;
                target_dir()?.join("release")
            }
        };
        let tools = Tools { record: dir.join("edleak-record"), analyze: dir.join("edleak-analyze") };
        for file in [&tools.record, &tools.analyze, &dir.join("libedleak_preload.so")] {
            if !file.is_file() {
                bail!("`{}` is not there (unset EDLEAK_BIN_DIR to have it built)", file.display());
            }
        }
        Ok(tools)
    }
}

/// The directory in which cargo puts its output.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let me = std::env::current_exe().context("a running program has a path")?;
    // TARGET/release/edleak-bench
    Ok(me.ancestors().nth(2).context("this program is not where cargo puts programs")?.to_path_buf())
}

/// A cargo command that uses the workspace and the target directory of edleak-bench.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).arg("--quiet").current_dir(repository());
    if let Ok(target) = target_dir() {
        command.arg("--target-dir").arg(target);
    }
    command
}

/// The path of a helper program's source file.
pub(crate) fn source(name: &str) -> PathBuf {
    repository().join("benches/programs").join(name)
}

/// Compiles one source file; the extension of the file's name (`.c`, `.cpp`, `.rs`) decides which compiler
/// is used.
pub(crate) fn compile(source: &Path, output: &Path, flags: &[&str]) -> Result<()> {
    let compiler = match source.extension().and_then(OsStr::to_str) {
        Some("rs") => "rustc",
        Some("cpp") => "c++",
        _ => "cc",
    };
    let mut command = Command::new(compiler);
    // Libraries must follow the source file, because the linker needs libraries after the objects that use
    // them.
    command.arg(source).arg("-o").arg(output).args(flags);
    command.run().with_context(|| format!("cannot compile `{}`", source.display()))
}

/// The path of an installed program.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The path of an installed shared library.
pub(crate) fn library(name: &str) -> Option<PathBuf> {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file())
}

/// Runs commands to their end.
pub(crate) trait Run {
    /// Runs the command; an error contains its stderr.
    fn run(&mut self) -> Result<()>;
    /// Runs the command and returns its output.
    fn read(&mut self) -> Result<String>;
}

impl Run for Command {
    fn run(&mut self) -> Result<()> {
        self.read().map(drop)
    }

    fn read(&mut self) -> Result<String> {
        let name = self.get_program().to_string_lossy().into_owned();
        let done = self
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("cannot start `{name}`"))?;
        if !done.status.success() {
            bail!("`{name}` failed ({}): {}", done.status, String::from_utf8_lossy(&done.stderr));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_helper_program_compiles() {
        let dir = edleak_tests::temp::TempDir::new("helpers");
        for entry in std::fs::read_dir(source("")).expect("the directory of the programs") {
            let source = entry.expect("readable").path();
            let flags: &[&str] = match source.extension().and_then(OsStr::to_str) {
                Some("rs") => &[],
                // Only the syntax of a C or C++ program is checked, so the test needs no libraries and takes
                // less time.
                _ => &["-fsyntax-only"],
            };
            compile(&source, &dir.join("program"), flags).unwrap_or_else(|error| panic!("{error:?}"));
        }
    }
}
