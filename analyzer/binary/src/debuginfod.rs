//! Gets files from debuginfod servers with the program `debuginfod-find` (Debian: package debuginfod).
//!
//! edleak uses this program because it handles the network transfer, the cache and the time limits, and users
//! have already configured it. An HTTP and TLS client inside edleak would double the size of edleak-analyze.
//! edleak runs `debuginfod-find` only if the user gave `--debuginfod` and `DEBUGINFOD_URLS` is set. Without
//! `--debuginfod`, an analysis must not wait for the network.

use super::binary_file::BinaryFile;
use super::outcome::Hex;
use edleak_text::meter;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Number of seconds without progress after which `debuginfod-find` stops waiting for a file, if the user
/// sets no other time. The default of `debuginfod-find` is 90 seconds.
const TIMEOUT_S: &str = "30";

/// If a request to a debuginfod server takes longer than this time and then fails, edleak makes no
/// further requests: a trace may name hundreds of modules, and the user would wait as long for each
/// module.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);

/// The kind of file to fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Artifact {
    DebugInfo,
    Executable,
}

/// The servers of `DEBUGINFOD_URLS`, and the requests that failed so far.
#[derive(Debug)]
pub(crate) struct Servers {
    program: PathBuf,
    is_configured: bool,
    record: Mutex<Record>,
}

/// The failed requests to debuginfod servers. edleak reports all failures in one message at the end,
/// not one message for each module.
#[derive(Default, Debug)]
struct Record {
    has_no_program: bool,
    has_given_up: bool,
    unusable: usize,
    failed: usize,
    /// The reason why the first request failed.
    reason: String,
}

/// The reason why `debuginfod-find` returned no file.
enum Refusal {
    /// No server has a file with the build ID. edleak does not count this as a failure, because servers have
    /// the files of only some builds.
    Unknown,
    NoProgram,
    Failed(String),
    Unusable,
}

impl Servers {
    /// The servers in the environment variable `DEBUGINFOD_URLS`.
    pub(crate) fn of_environment() -> Servers {
        let is_configured = std::env::var_os("DEBUGINFOD_URLS").is_some_and(|urls| !urls.is_empty());
        Servers::new("debuginfod-find", is_configured)
    }

    fn new(program: impl Into<PathBuf>, is_configured: bool) -> Servers {
        Servers { program: program.into(), is_configured, record: Mutex::default() }
    }

    /// Fetches a file of the build `build_id` from a server, or from the cache of `debuginfod-find`. `None`:
    /// the request failed for any reason. If no server returned the file, the caller uses other files or
    /// reports the file as missing.
    pub(crate) fn fetch(&self, artifact: Artifact, build_id: &[u8]) -> Option<BinaryFile> {
        if build_id.is_empty() || !self.is_configured || self.record().has_given_up {
            return None;
        }
        let began = Instant::now();
        let refusal = match self.ask(artifact, build_id) {
            Ok(elf) => return Some(elf),
            Err(refusal) => refusal,
        };
        let mut record = self.record();
        match refusal {
            Refusal::Unknown => return None,
            Refusal::Unusable => record.unusable += 1,
            Refusal::NoProgram => (record.has_no_program, record.has_given_up) = (true, true),
            Refusal::Failed(reason) => {
                if record.failed == 0 {
                    record.reason = reason;
                }
                record.failed += 1;
            }
        }
        record.has_given_up |= began.elapsed() > GIVE_UP_AFTER;
        None
    }

    /// A message of one line that names the failed requests and tells the user what to do.
    pub(crate) fn complaint(&self) -> Option<String> {
        let record = self.record();
        if !self.is_configured {
            return Some(
                "no debuginfod server was asked: DEBUGINFOD_URLS is not set (set it, for example to \
                 https://debuginfod.debian.net)"
                    .to_owned(),
            );
        }
        if record.has_no_program {
            let program = self.program.display();
            return Some(format!(
                "no debuginfod server was asked: there is no `{program}` (install debuginfod)"
            ));
        }
        let mut complaints = Vec::new();
        if record.failed > 0 {
            complaints.push(format!("{} failed: {}", requests(record.failed), record.reason));
        }
        if record.unusable > 0 {
            complaints.push(format!(
                "{} brought a file of another build, or a damaged one",
                requests(record.unusable)
            ));
        }
        if record.has_given_up {
            complaints.push("the servers were not asked again".to_owned());
        }
        let all = complaints.join("; ");
        (!all.is_empty()).then(|| format!("debuginfod: {all} (check the servers in DEBUGINFOD_URLS)"))
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, artifact: Artifact, build_id: &[u8]) -> Result<BinaryFile, Refusal> {
        let kind = match artifact {
            Artifact::DebugInfo => "debuginfo",
            Artifact::Executable => "executable",
        };
        let mut command = Command::new(&self.program);
        command.arg(kind).arg(Hex(build_id).to_string()).stdin(Stdio::null()).env("LC_ALL", "C");
        if std::env::var_os("DEBUGINFOD_TIMEOUT").is_none() {
            command.env("DEBUGINFOD_TIMEOUT", TIMEOUT_S);
        }
        meter::wait_for(Some(format!("debuginfod, {kind} of build {}", Hex(build_id))));
        let output = command.output();
        meter::wait_for(None);
        let output = output.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Refusal::NoProgram,
            _ => Refusal::Failed(error.to_string()),
        })?;
        if !output.status.success() {
            return Err(refusal_of(&String::from_utf8_lossy(&output.stderr)));
        }
        let path = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
        let elf = BinaryFile::open(Path::new(OsStr::from_bytes(path))).map_err(|_| Refusal::Unusable)?;
        // If a download was interrupted, the end of the file is missing. The build ID is near the beginning
        // of a file, and the table of sections is at its end. So a file with a build ID but without a table
        // of sections is incomplete.
        let is_whole = elf.elf().is_ok_and(|elf| elf.has_sections());
        if is_whole && elf.build_id() == build_id { Ok(elf) } else { Err(Refusal::Unusable) }
    }
}

fn requests(count: usize) -> String {
    edleak_text::units::plural(count as u64, "request", "requests")
}

/// Reads the error message of `debuginfod-find`: `Server query failed: REASON`. If no server has the build
/// ID, the reason is `No such file or directory`.
fn refusal_of(stderr: &str) -> Refusal {
    let line = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    let reason = line.trim().trim_start_matches("Server query failed: ");
    if reason == "No such file or directory" {
        Refusal::Unknown
    } else {
        Refusal::Failed(reason.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::{Artifact, Servers};

    #[test]
    fn missing_debuginfod_find_is_reported_once() {
        let servers = Servers::new("/no/such/program", true);
        assert!(servers.fetch(Artifact::Executable, &[1]).is_none());
        let complaint = servers.complaint().expect("it is missing");
        assert!(complaint.contains("there is no `/no/such/program` (install"), "{complaint}");
    }

    #[test]
    fn failures_and_useless_answers_are_counted() {
        let servers = Servers::new("false", true);
        assert!(servers.fetch(Artifact::DebugInfo, &[0xab]).is_none());
        assert!(servers.fetch(Artifact::DebugInfo, &[0xac]).is_none());
        let complaint = servers.complaint().expect("both failed");
        assert!(complaint.starts_with("debuginfod: 2 requests failed: no reason given"), "{complaint}");
        // In place of `debuginfod-find`, the test runs `echo`, which prints a text that is not the path of a
        // file.
        let servers = Servers::new("echo", true);
        assert!(servers.fetch(Artifact::DebugInfo, &[0xab]).is_none());
        let complaint = servers.complaint().expect("it was no use");
        assert!(complaint.starts_with("debuginfod: 1 request brought"), "{complaint}");
    }

    #[test]
    fn no_request_without_a_server_or_a_build_id() {
        let unset = Servers::new("/no/such/program", false);
        assert!(unset.fetch(Artifact::Executable, &[1]).is_none());
        assert!(unset.complaint().is_some_and(|complaint| complaint.contains("DEBUGINFOD_URLS is not set")));
        let servers = Servers::new("/no/such/program", true);
        assert!(servers.fetch(Artifact::Executable, &[]).is_none());
        assert_eq!(servers.complaint(), None);
    }
}
