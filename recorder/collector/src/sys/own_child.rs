//! The target as a child process of the collector: sends signals to the target, and reads the exit status of
//! the target.
//!
//! The collector sends a signal through a descriptor of the process (pidfd). If the kernel does not support
//! pidfds, the collector sends the signal to the PID, but only until the collector has read the exit status
//! of the child (waitpid). After the collector has read the exit status, the PID may belong to another
//! process.
#![allow(unsafe_code)] // calls waitpid, kill, pidfd_send_signal

use crate::sys::process;
use crate::sys::signals::Watch;
use std::cell::Cell;
use std::process::ExitCode;

/// The exit code of edleak-record if the exit code of the target is unknown.
const FAILED: u8 = 125;

/// The way a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The process exited with this exit status.
    Exited(i32),
    /// The signal with this number killed the process.
    Killed(i32),
    /// The process has ended, but its exit status is unknown, because other code of edleak-record has already
    /// read the status.
    Unknown,
}

impl Ended {
    /// The exit code that a shell would report: the exit status, or 128 plus the number of the signal. If the
    /// status is unknown, the exit code is 125, as for a failure of edleak-record itself.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Ended::Exited(status) => ExitCode::from(status as u8),
            Ended::Killed(signal) => ExitCode::from(128u8.wrapping_add(signal as u8)),
            Ended::Unknown => ExitCode::from(FAILED),
        }
    }
}

/// A child process of edleak-record. Only the functions of this type wait for the child (waitpid).
#[derive(Debug)]
pub(crate) struct OwnChild {
    pid: u32,
    /// The descriptor of the process (pidfd); `None`: the kernel does not support such descriptors.
    watch: Option<Watch>,
    ended: Cell<Option<Ended>>,
    has_had_children: Cell<bool>,
}

impl OwnChild {
    /// Makes the value for a child that was just forked.
    pub(crate) fn new(pid: u32) -> OwnChild {
        OwnChild { pid, watch: Watch::of(pid), ended: Cell::new(None), has_had_children: Cell::new(false) }
    }

    /// The process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the child, unless the child has ended.
    pub(crate) fn send(&self, signal: i32) {
        if self.ended.get().is_some() {
            return;
        }
        match &self.watch {
            Some(watch) => watch.send(signal),
            // SAFETY: the call passes no pointer to memory. This process has not waited for the child
            // (waitpid), so the PID still belongs to the child.
            None => _ = unsafe { libc::kill(self.pid as libc::pid_t, signal) },
        }
    }

    /// How the child has ended; `None`: the child still runs. After a call has returned `Some`, the kernel
    /// may give the PID of the child to another process.
    pub(crate) fn ended(&self) -> Option<Ended> {
        if self.ended.get().is_none() {
            // Before the call of `waitpid`, read whether the child has had children, because `waitpid` makes
            // the kernel delete this data.
            if self.watch.as_ref().is_some_and(Watch::has_ended) {
                self.has_had_children.set(process::has_waited_for_children(self.pid).unwrap_or(false));
            }
            self.ended.set(wait_for(self.pid));
        }
        self.ended.get()
    }

    /// Whether the child has had children of its own and has waited for them. The value is `false` until the
    /// child has ended.
    pub(crate) fn has_had_children(&self) -> bool {
        self.has_had_children.get()
    }
}

fn wait_for(pid: u32) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: the call writes the status only into a local variable.
    let waited = unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, libc::WNOHANG) };
    match waited {
        0 => None,
        -1 if std::io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) => Some(Ended::Unknown),
        -1 => None,
        _ if libc::WIFSIGNALED(status) => Some(Ended::Killed(libc::WTERMSIG(status))),
        _ => Some(Ended::Exited(libc::WEXITSTATUS(status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signals::wait_readable;
    use std::process::Command;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    fn sleeping() -> (std::process::Child, OwnChild) {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep is installed");
        let own = OwnChild::new(child.id());
        (child, own)
    }

    fn wait_until_over(own: &OwnChild) {
        let watch = own.watch.as_ref().expect("this kernel has descriptors of processes");
        assert!(wait_readable(&[watch.fd()], LONG), "it was sent SIGTERM");
    }

    #[test]
    fn a_signal_ends_the_child_and_its_end_is_remembered() {
        let (_child, own) = sleeping();
        assert_eq!(own.ended(), None);
        own.send(libc::SIGTERM);
        wait_until_over(&own);
        assert_eq!(own.ended(), Some(Ended::Killed(libc::SIGTERM)));
        own.send(libc::SIGTERM);
        assert_eq!(own.ended(), Some(Ended::Killed(libc::SIGTERM)));
    }

    #[test]
    #[allow(clippy::zombie_processes)] // `OwnChild` waits for it
    fn children_that_a_child_has_waited_for_are_known_at_its_end() {
        for (script, has_had) in [("exit 0", false), ("/bin/true; exit 0", true)] {
            let child = Command::new("sh").args(["-c", script]).spawn().expect("sh is installed");
            let own = OwnChild::new(child.id());
            wait_until_over(&own);
            assert_eq!(own.ended(), Some(Ended::Exited(0)));
            assert_eq!(own.has_had_children(), has_had, "{script}");
        }
    }

    #[test]
    fn a_child_that_somebody_else_waited_for_has_ended() {
        let (mut child, own) = sleeping();
        own.send(libc::SIGTERM);
        wait_until_over(&own);
        child.wait().expect("it is our child");
        assert_eq!(own.ended(), Some(Ended::Unknown));
        assert_eq!(format!("{:?}", Ended::Unknown.exit_code()), format!("{:?}", ExitCode::from(FAILED)));
    }
}
