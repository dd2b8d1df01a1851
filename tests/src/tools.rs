//! Finds edleak-record, edleak-analyze and the preload library, and builds these files once if needed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The paths of the files under test.
#[derive(Debug)]
pub struct Tools {
    /// The path of `edleak-record`.
    pub record: PathBuf,
    /// The path of `edleak-analyze`.
    pub analyze: PathBuf,
    /// The path of `libedleak_preload.so`.
    pub preload: PathBuf,
}

/// The paths of the tested files. The first call builds these files, unless `EDLEAK_BIN_DIR` names a
/// directory that contains them.
pub fn tools() -> &'static Tools {
    // The error of a failed build is stored, so that all later tests fail without a second build.
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        let dir = match std::env::var_os("EDLEAK_BIN_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => build_release()?,
        };
        let tools = Tools {
            record: dir.join("edleak-record"),
            analyze: dir.join("edleak-analyze"),
            preload: dir.join("libedleak_preload.so"),
        };
        for file in [&tools.record, &tools.analyze, &tools.preload] {
            if !file.is_file() {
                return Err(format!("`{}` is not there (run `cargo build --release`)", file.display()));
            }
        }
        Ok(tools)
    });
    tools.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository")
}

/// The directory into which cargo builds: `CARGO_TARGET_DIR`, or else the build directory that contains this
/// test.
pub fn target_dir() -> PathBuf {
    // Treat an empty `CARGO_TARGET_DIR` as unset. With an empty path, the output of cargo would be in the
    // root of the repository.
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        return repository().join(dir);
    }
    let test = std::env::current_exe().expect("a running program has a path");
    // cargo marks its build directory with the file CACHEDIR.TAG. If the test is in no such directory,
    // because it was copied elsewhere, the result is the default build directory, `target`.
    let built_into = test.ancestors().skip(1).find(|dir| dir.join("CACHEDIR.TAG").is_file());
    built_into.map_or_else(|| repository().join("target"), Path::to_path_buf)
}

fn build_release() -> Result<PathBuf, String> {
    let target = target_dir();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet", "-p", "edleak-record", "-p", "edleak-analyze"])
        .args(["-p", "edleak-preload", "--target-dir"])
        .arg(&target)
        .current_dir(repository())
        .status()
        .expect("cargo must be there to run tests");
    if status.success() { Ok(target.join("release")) } else { Err("the release build failed".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_programs_go_under_the_directory_that_cargo_builds_into() {
        let target = target_dir();
        assert!(target.join("CACHEDIR.TAG").is_file(), "`{}`", target.display());
        assert_ne!(target, repository());
    }
}
