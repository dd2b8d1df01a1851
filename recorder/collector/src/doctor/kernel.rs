//! Checks the kernel by trying each operation that a recording needs.
#![allow(unsafe_code)] // makes the system calls of a recording

use super::finding::Finding;
use crate::sys::process;
use crate::sys::shm::ControlPage;
use crate::sys::signals::Watch;
use edleak_session::layout::PAGE_BYTES;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::path::Path;

/// The oldest kernel version with which edleak works. Older kernels do not have MADV_WIPEONFORK, with which
/// the library in a child process finds out that the process was forked.
const OLDEST: (u32, u32) = (4, 14);

pub(super) fn examine() -> Vec<Finding> {
    let proc = proc();
    let mut findings = vec![kernel()];
    findings.extend(seccomp());
    findings.extend([wipe_on_fork(), process_descriptors(), proc]);
    findings.extend(memory_and_handshake());
    findings.push(ptrace_scope(fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok().as_deref()));
    findings
}

/// The remedy for a system call that the kernel refuses with `error`.
fn remedy(call: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => format!("use a newer kernel, or allow `{call}` in the sandbox"),
        Some(libc::EPERM | libc::EACCES) => {
            format!("allow `{call}` in the seccomp profile or security policy")
        }
        Some(libc::EMFILE) => "raise `ulimit -n`".into(),
        Some(libc::ENOMEM) => "raise `ulimit -v`, or free some memory".into(),
        _ => "see `dmesg`".into(),
    }
}

fn kernel() -> Finding {
    const SUBJECT: &str = "kernel";
    // SAFETY: `utsname` consists of plain bytes, for which zeros are valid.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `names` has room for the answer.
    unsafe { libc::uname(&mut names) };
    // SAFETY: the kernel ends the release name with NUL.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) }.to_string_lossy().into_owned();
    match version(&release) {
        Some(found) if found < OLDEST => Finding::bad(
            SUBJECT,
            format!("Linux {release} cannot tell a forked child from its parent"),
            "use Linux 4.14 or later",
        ),
        _ => Finding::good(SUBJECT, format!("Linux {release} (4.14 or later is needed)")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn seccomp() -> Option<Finding> {
    let status = process::read_own_status();
    let is_filtered = status.is_some_and(|status| status.seccomp_filters > 0);
    is_filtered.then(|| {
        Finding::note(
            "seccomp",
            "system calls are filtered here",
            "the probes below show whether that disturbs edleak",
        )
    })
}

fn wipe_on_fork() -> Finding {
    const SUBJECT: &str = "fork";
    const BYTES: usize = PAGE_BYTES;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses the address, so the new mapping covers no existing memory.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        let error = io::Error::last_os_error();
        return Finding::bad(SUBJECT, format!("no memory: {error}"), remedy("mmap", &error));
    }
    // SAFETY: `page` is the mapping that the call of mmap returned.
    let result = unsafe { libc::madvise(page, BYTES, libc::MADV_WIPEONFORK) };
    let error = io::Error::last_os_error();
    // SAFETY: `page` is the mapping that the call of mmap returned, and no reference to it exists.
    unsafe { libc::munmap(page, BYTES) };
    if result == 0 {
        Finding::good(SUBJECT, "a forked child can be told from its parent")
    } else {
        Finding::bad(
            SUBJECT,
            format!("a forked child cannot be told from its parent: {error}"),
            remedy("madvise(MADV_WIPEONFORK)", &error),
        )
    }
}

fn process_descriptors() -> Finding {
    const SUBJECT: &str = "pidfd";
    match Watch::of(std::process::id()) {
        Some(_) => Finding::good(SUBJECT, "the end of any process is noticed at once"),
        None => Finding::bad(
            SUBJECT,
            format!(
                "child processes and a bare LD_PRELOAD cannot be recorded: {}",
                io::Error::last_os_error()
            ),
            "use Linux 5.3 or later, or allow `pidfd_open` in the seccomp profile",
        ),
    }
}

fn proc() -> Finding {
    const SUBJECT: &str = "/proc";
    let failed = |path: &str, error: io::Error| {
        Finding::bad(
            SUBJECT,
            format!("`{path}` cannot be read: {error}"),
            "mount proc there: `mount -t proc proc /proc`",
        )
    };
    match (fs::read("/proc/self/maps"), fs::read_link("/proc/self/exe")) {
        (Err(error), _) => failed("/proc/self/maps", error),
        (_, Err(error)) => failed("/proc/self/exe", error),
        _ if !Path::new("/proc/sys").exists() => {
            Finding::note(SUBJECT, "it is mounted without `/proc/sys`, which edleak does not need", "")
        }
        _ => Finding::good(SUBJECT, "a recording can read all files that it needs there"),
    }
}

/// Checks that edleak-record can create shared memory, and that a child process can open this memory through
/// /proc, as a target does.
fn memory_and_handshake() -> Vec<Finding> {
    const MEMORY: &str = "memfd";
    const HANDSHAKE: &str = "handshake";
    let page = match ControlPage::create(false) {
        Ok(page) => page,
        Err(error) => {
            let what = format!("no memory can be shared with a target: {error}");
            return vec![Finding::bad(MEMORY, what, remedy("memfd_create", &error))];
        }
    };
    let address = page.address();
    // The address of a control page consists of a path, a `#` and a nonce.
    let path = address.split('#').next().unwrap_or_default();
    let path = CString::new(path).expect("a path without NUL");
    let handshake = match opens_in_a_child(&path) {
        Ok(()) => Finding::good(HANDSHAKE, "a target can open the memory that edleak-record shares"),
        Err(error) => Finding::bad(
            HANDSHAKE,
            format!("a child process cannot open `{}`: {error}", path.to_string_lossy()),
            "start edleak-record in the PID namespace and with the /proc of the target, as a user whose \
             processes may look at each other",
        ),
    };
    vec![Finding::good(MEMORY, "memory can be shared with a target"), handshake]
}

fn opens_in_a_child(path: &CStr) -> io::Result<()> {
    // SAFETY: this process has one thread here, and the child calls only async-signal-safe functions.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        // SAFETY: `path` is a NUL-terminated path.
        let opened = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        let code =
            if opened >= 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) };
        // SAFETY: the call ends the process without running any exit handler of the parent.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the call waits for this process's own child, and passes writable memory for its status.
    while unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok(()),
        code if libc::WIFEXITED(status) => Err(io::Error::from_raw_os_error(code)),
        _ => Err(io::Error::other("it was killed")),
    }
}

/// Reports whether the kernel restricts ptrace (Yama's ptrace scope). The restriction of ptrace matters only
/// for `--pid`, because only with `--pid` edleak-record traces a process that is not its child.
fn ptrace_scope(scope: Option<&str>) -> Finding {
    const SUBJECT: &str = "ptrace";
    match scope.map(str::trim) {
        None | Some("0") => Finding::good(SUBJECT, "not restricted"),
        Some(scope) => Finding::note(
            SUBJECT,
            format!("kernel.yama.ptrace_scope is {scope}; only `--pid` needs ptrace"),
            "for `--pid`, start edleak-record as root",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert!(version("4.9.0").is_some_and(|found| found < OLDEST));
        assert!(version("4.14.336").is_some_and(|found| found >= OLDEST));
        assert!(version("10.0").is_some_and(|found| found >= OLDEST));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn scope_of_ptrace_is_told_and_is_not_in_the_way() {
        assert_eq!(ptrace_scope(None).state, State::Good);
        assert_eq!(ptrace_scope(Some("0\n")).state, State::Good);
        let strict = ptrace_scope(Some("3\n"));
        assert_eq!(strict.state, State::Note);
        assert!(strict.what.contains("is 3;"), "{strict:?}");
    }

    #[test]
    fn child_that_cannot_open_a_file_says_why() {
        assert!(opens_in_a_child(c"/dev/null").is_ok());
        let error = opens_in_a_child(c"/nowhere/file").expect_err("there is no such file");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
