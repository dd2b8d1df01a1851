//! Files from a debuginfod server, through the `debuginfod-find` program (Debian: package debuginfod).
//!
//! That program brings the transport, the cache and the time limits that users have configured already; an HTTP and TLS
//! client of our own would double the size of the analyzer. It is run only when it was asked for and `DEBUGINFOD_URLS`
//! is set: an analysis must not wait for a network that nobody expects it to use.

use super::outcome::Hex;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to ask the server for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Artifact {
    DebugInfo,
    Executable,
}

/// The program to ask with, where asking is allowed.
pub(crate) fn program(is_asked_for: bool) -> Option<PathBuf> {
    let is_configured = std::env::var_os("DEBUGINFOD_URLS").is_some_and(|urls| !urls.is_empty());
    (is_asked_for && is_configured).then(|| PathBuf::from("debuginfod-find"))
}

/// Fetches a file, or finds it in the program's cache. `None` covers every failure: the caller looks elsewhere anyway.
pub(crate) fn fetch(program: &Path, artifact: Artifact, build_id: &[u8]) -> Option<PathBuf> {
    if build_id.is_empty() {
        return None;
    }
    let kind = match artifact {
        Artifact::DebugInfo => "debuginfo",
        Artifact::Executable => "executable",
    };
    let output = Command::new(program)
        .arg(kind)
        .arg(Hex(build_id).to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
    (output.status.success() && !path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::{Artifact, fetch};
    use std::path::{Path, PathBuf};

    #[test]
    fn the_path_that_the_program_prints_is_the_answer() {
        assert_eq!(
            fetch(Path::new("echo"), Artifact::DebugInfo, &[0xab, 0x01]),
            Some(PathBuf::from("debuginfo ab01"))
        );
    }

    #[test]
    fn failure_is_no_answer() {
        assert_eq!(fetch(Path::new("false"), Artifact::Executable, &[1]), None);
        assert_eq!(fetch(Path::new("true"), Artifact::Executable, &[1]), None);
        assert_eq!(fetch(Path::new("/no/such/program"), Artifact::Executable, &[1]), None);
        assert_eq!(fetch(Path::new("echo"), Artifact::Executable, &[]), None);
    }
}
