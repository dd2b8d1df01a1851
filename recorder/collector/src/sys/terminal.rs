//! Gives the target the role of the leader of a terminal session. The kernel tells only the session leader
//! that the terminal has hung up. If edleak-record is a session leader, the target would be the session
//! leader if the user had started it without edleak. So edleak-record makes the target the leader of a new
//! session.
//!
//! When edleak-record gives up the terminal, every other process of the session loses the terminal and may
//! get SIGHUP. So if there are other processes in the session, edleak-record keeps the terminal and passes
//! SIGHUP on to the target.
#![allow(unsafe_code)] // calls setsid and ioctl

use crate::sys::process;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// The terminal session that the target will lead.
#[derive(Debug)]
pub(crate) struct Leadership {
    /// The terminal that edleak-record gave up, so that the target can have the terminal.
    terminal: Option<File>,
}

impl Leadership {
    /// Gives up the terminal if this process leads a session and no other process is in the session. When a
    /// process gives up its terminal, the kernel sends SIGHUP to it, so the caller must have blocked SIGHUP.
    pub(crate) fn give_up() -> Option<Leadership> {
        if !leads_session() || !is_alone() {
            return None;
        }
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
            .open("/dev/tty")
            .ok();
        let given_up = terminal.filter(|terminal| {
            // SAFETY: the call passes an open descriptor and no memory.
            unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) == 0 }
        });
        if given_up.is_some() {
            take_hangup();
        }
        Some(Leadership { terminal: given_up })
    }

    /// Makes this process the leader of a new session with the terminal. The forked child calls this
    /// function, which is async-signal-safe. `false`: the terminal has hung up before this call, so the
    /// program must get a SIGHUP.
    pub(crate) fn take_over(&self) -> bool {
        // SAFETY: the call passes no memory.
        unsafe { libc::setsid() };
        let Some(terminal) = &self.terminal else { return true };
        // SAFETY: the call passes an open descriptor and a number.
        let taken = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
        taken == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EIO)
    }
}

/// Whether this process leads its session, as it does after `ssh -t host edleak-record`.
pub(crate) fn leads_session() -> bool {
    // SAFETY: the call passes no memory.
    let session = unsafe { libc::getsid(0) };
    // SAFETY: `getpid` takes no arguments.
    session == unsafe { libc::getpid() }
}

/// Whether no other process is in the session of this process. The function cannot find processes that /proc
/// hides.
fn is_alone() -> bool {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut others = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&pid| pid != own);
    const SESSION_FIELD: usize = 6;
    let session_of =
        |pid: u32| process::stat_field(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, SESSION_FIELD);
    !others.any(|pid| session_of(pid) == Some(u64::from(own)))
}

/// Removes the pending SIGHUP that the kernel sent when this process gave up the terminal.
fn take_hangup() {
    // SAFETY: a `sigset_t` is plain data; the next call fills it in.
    let mut hangup: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call passes a local signal set and a valid signal number.
    unsafe { libc::sigaddset(&raw mut hangup, libc::SIGHUP) };
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call passes a local signal set and a local time.
    unsafe { libc::sigtimedwait(&raw const hangup, std::ptr::null_mut(), &raw const at_once) };
}
