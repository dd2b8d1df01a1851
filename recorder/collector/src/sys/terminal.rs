//! The session and the terminal of the target: where edleak-record leads its session, the target has to lead
//! one, as it would without us. The kernel tells the leader, and nobody else, that the terminal is hung up.
//!
//! A process that shares our session would lose the terminal by this, and might be sent SIGHUP. So where we
//! are not alone in the session, everything stays as it is and SIGHUP is passed on.
#![allow(unsafe_code)] // setsid, ioctl

use crate::sys::process;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// The session that the target is going to lead.
#[derive(Debug)]
pub(crate) struct Leadership {
    /// The terminal that we gave up for the target.
    terminal: Option<File>,
}

impl Leadership {
    /// Gives up our terminal, if we lead a session and are alone in it. The kernel sends us SIGHUP for that,
    /// which has to be held back.
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
            // SAFETY: an open descriptor, and no memory.
            unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) == 0 }
        });
        if given_up.is_some() {
            take_hangup();
        }
        Some(Leadership { terminal: given_up })
    }

    /// Makes this process the leader, with the terminal. Called in the forked child; async-signal-safe.
    /// `false`: the terminal was hung up meanwhile, which the program has to be told.
    pub(crate) fn take_over(&self) -> bool {
        // SAFETY: no memory is passed.
        unsafe { libc::setsid() };
        let Some(terminal) = &self.terminal else { return true };
        // SAFETY: an open descriptor, and a number.
        let taken = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
        taken == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EIO)
    }
}

/// Whether this process is the first of its session, as with `ssh -t host edleak-record`.
pub(crate) fn leads_session() -> bool {
    // SAFETY: no memory is passed.
    let session = unsafe { libc::getsid(0) };
    // SAFETY: as above.
    session == unsafe { libc::getpid() }
}

/// Whether no other process is in our session. What /proc does not show is not there.
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

/// Takes the SIGHUP that came of giving up the terminal.
fn take_hangup() {
    // SAFETY: plain data that the call fills in.
    let mut hangup: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set of ours and a valid number.
    unsafe { libc::sigaddset(&raw mut hangup, libc::SIGHUP) };
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a set and a time of ours.
    unsafe { libc::sigtimedwait(&raw const hangup, std::ptr::null_mut(), &raw const at_once) };
}
