//! Checks the user's setup: limits, libraries that are preloaded already, directories to which edleak writes.
#![allow(unsafe_code)] // calls libc for limits and free space

use super::finding::Finding;
use crate::control::socket::ControlSocket;
use crate::recording::output;
use crate::start::library::{self, Embedded, Origin};
use edleak_binary::file_bytes::FileBytes;
use edleak_format::MIN_CAPACITY_BYTES;
use edleak_session::ENV_SESSION;
use edleak_text::units;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Number of bytes of address space that a target needs at least: for the tables of the library, and for a
/// heap.
const ADDRESS_BYTES: u64 = 256 << 20;
/// Number of file descriptors that a recording needs: the descriptors for the shared memory of eight recorded
/// programs, and the descriptors that every process has.
const DESCRIPTORS: u64 = 32;
/// The default maximum size of a trace.
const TRACE_BYTES: u64 = edleak_format::DEFAULT_CAPACITY_BYTES;

pub(super) fn examine(embedded: Option<Embedded>) -> Vec<Finding> {
    let mut findings = vec![library(embedded)];
    findings.extend(preloaded());
    findings.extend(limits());
    findings.extend(overcommit(fs::read_to_string("/proc/sys/vm/overcommit_memory").ok().as_deref()));
    findings.push(trace());
    findings.push(requests());
    findings
}

fn library(embedded: Option<Embedded>) -> Finding {
    const SUBJECT: &str = "library";
    match library::find(embedded) {
        Err(error) => Finding::of_error(SUBJECT, &error),
        Ok((path, origin)) => {
            let origin = match origin {
                Origin::Variable => "EDLEAK_PRELOAD names it",
                Origin::Beside => "it lies beside edleak-record",
                Origin::Unpacked => "unpacked from edleak-record",
            };
            Finding::good(SUBJECT, format!("`{}` ({origin})", path.display()))
        }
    }
}

/// Reports the libraries that the environment or the system already preloads.
fn preloaded() -> Vec<Finding> {
    const SUBJECT: &str = "preload";
    let mut findings = Vec::new();
    if std::env::var_os(ENV_SESSION).is_some() {
        let remedy = format!("`unset {ENV_SESSION} LD_PRELOAD`, or use a shell that is not recorded");
        findings.push(Finding::bad(SUBJECT, "this process is itself being recorded", remedy));
    }
    let environment = std::env::var_os("LD_PRELOAD").unwrap_or_default();
    let system = fs::read("/etc/ld.so.preload").unwrap_or_default();
    let system: Vec<u8> = system
        .split(|&byte| byte == b'\n')
        .flat_map(|line| [line.split(|&byte| byte == b'#').next().unwrap_or_default(), b" "].concat())
        .collect();
    for (origin, list) in [("LD_PRELOAD", environment.as_bytes()), ("/etc/ld.so.preload", system.as_slice())]
    {
        let names = list.split(|byte| b" \t:".contains(byte)).filter(|name| !name.is_empty());
        findings.extend(names.map(|name| preload(origin, &PathBuf::from(OsStr::from_bytes(name)))));
    }
    if findings.is_empty() {
        findings.push(Finding::good(SUBJECT, "no other library is preloaded"));
    }
    findings
}

fn preload(origin: &str, library: &Path) -> Finding {
    const SUBJECT: &str = "preload";
    let shown = library.display();
    let is_path = library.as_os_str().as_bytes().contains(&b'/');
    let remedy = "nothing needs to be done; edleak's library is loaded before it";
    if !is_path {
        return Finding::note(
            SUBJECT,
            format!("{origin} has `{shown}`, which the loader searches for"),
            remedy,
        );
    }
    match FileBytes::open(library) {
        Err(error) => Finding::note(
            SUBJECT,
            format!(
                "{origin} has `{shown}`, which cannot be read ({error}): the loader reports this in every \
                 program"
            ),
            format!("remove it from {origin}"),
        ),
        Ok(bytes) => {
            // If a library defines or calls malloc, the names of its dynamic symbols contain `malloc`.
            let has_malloc = bytes.windows(8).any(|window| window == b"\0malloc\0");
            let what = if has_malloc { ", which uses or replaces malloc" } else { "" };
            Finding::note(SUBJECT, format!("{origin} has `{shown}`{what}"), remedy)
        }
    }
}

fn limits() -> Vec<Finding> {
    const SUBJECT: &str = "limits";
    let bounds = [
        (libc::RLIMIT_NOFILE, "-n", DESCRIPTORS, "descriptors"),
        (
            libc::RLIMIT_AS,
            "-v",
            ADDRESS_BYTES,
            "bytes of address space, of which edleak needs 120 MiB in the target",
        ),
        (
            libc::RLIMIT_FSIZE,
            "-f",
            TRACE_BYTES,
            "bytes a file, and a trace may grow to 64 MiB unless --size says less",
        ),
    ];
    let low: Vec<_> = bounds
        .into_iter()
        .filter_map(|(resource, option, least, what)| {
            let limit = soft_limit(resource)?;
            (limit < least).then(|| {
                Finding::bad(SUBJECT, format!("at most {limit} {what}"), format!("raise `ulimit {option}`"))
            })
        })
        .collect();
    if low.is_empty() { vec![Finding::good(SUBJECT, "high enough")] } else { low }
}

/// The soft limit of this process for a resource; `None`: there is no limit.
fn soft_limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for one limit.
    let known = unsafe { libc::getrlimit(resource, &mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Reports strict overcommit accounting: in this mode, the kernel also counts memory that a process has
/// reserved but not touched.
fn overcommit(mode: Option<&str>) -> Option<Finding> {
    (mode?.trim() == "2").then(|| {
        Finding::note(
            "memory",
            "vm.overcommit_memory is 2, so the 120 MiB that edleak reserves in a target count as used",
            "set vm.overcommit_memory to 0 if the target cannot get memory",
        )
    })
}

fn trace() -> Finding {
    const SUBJECT: &str = "trace";
    let path = PathBuf::from(format!(".edleak-doctor-{}.edl", std::process::id()));
    match output::reserve(&path, MIN_CAPACITY_BYTES) {
        Err(error) => {
            let remedy = "change to another directory, or name a trace with -o";
            Finding::bad(SUBJECT, error.message(), remedy)
        }
        Ok((writer, reserved)) => {
            drop(writer);
            reserved.give_back();
            let _ = fs::remove_file(&path);
            match free_bytes(Path::new(".")) {
                Some(free) if free < TRACE_BYTES => Finding::note(
                    SUBJECT,
                    format!(
                        "{} are free here, and a trace may grow to {}",
                        units::bytes(free as f64),
                        units::bytes(TRACE_BYTES as f64)
                    ),
                    "give --size, or -o with another directory",
                ),
                _ => Finding::good(SUBJECT, "it can be written to this directory"),
            }
        }
    }
}

fn free_bytes(directory: &Path) -> Option<u64> {
    let path = CString::new(directory.as_os_str().as_bytes()).ok()?;
    // SAFETY: `statvfs` consists of plain numbers, for which zeros are valid.
    let mut space: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated, and `space` has room for the answer.
    let known = unsafe { libc::statvfs(path.as_ptr(), &mut space) } == 0;
    known.then(|| space.f_bavail.saturating_mul(space.f_frsize))
}

/// Checks the directory of the control socket. A recording works without the socket, but then other programs
/// cannot ask for the progress of the recording.
fn requests() -> Finding {
    const SUBJECT: &str = "requests";
    match ControlSocket::open() {
        Ok(_) => Finding::good(SUBJECT, "a running recording can be reached"),
        Err(error) => Finding::note(
            SUBJECT,
            format!("a running recording cannot be reached by `sessions` and `watch`: {error}"),
            "set XDG_RUNTIME_DIR to a directory of yours",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn strict_accounting_is_noted() {
        assert_eq!(overcommit(Some("0\n")), None);
        assert_eq!(overcommit(None), None);
        assert_eq!(overcommit(Some("2\n")).map(|finding| finding.state), Some(State::Note));
    }

    #[test]
    fn preloaded_library_that_is_missing_is_noted_with_its_remedy() {
        let finding = preload("LD_PRELOAD", Path::new("/nowhere/x.so"));
        assert_eq!((finding.state, finding.remedy.as_str()), (State::Note, "remove it from LD_PRELOAD"));
    }
}
