//! A child process through which a target opens the collector's descriptors, if the target belongs to another
//! user or is in another PID namespace.
//!
//! A target opens its session through `/proc/COLLECTOR/fd/N`. The kernel allows a target to open
//! `/proc/COLLECTOR/fd/N` only if the target runs as the same user as the collector, and if the /proc of the
//! target shows the collector. If the target runs as another user, or if its /proc does not show the
//! collector, the collector starts a keeper (a process). The keeper shares the table of descriptors with the
//! collector (`CLONE_FILES`). The keeper runs as the user of the target, without privileges, in the PID
//! namespace of the target. The keeper does nothing but wait, and it ends when the collector ends.
#![allow(unsafe_code)] // clone, setns, setresuid

use crate::sys::pipe::pipe;
use crate::sys::process;
use crate::sys::signals::wait_readable;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Longest time that the collector waits for the first answer of the keeper.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// The user and the group of a target. The memory files that the target opens get this user and group as
/// their owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UserAndGroup {
    /// The user ID of the target.
    pub(crate) user: u32,
    /// The group ID of the target.
    pub(crate) group: u32,
}

/// The keeper process. When this value is dropped, the keeper process ends.
#[derive(Debug)]
pub(crate) struct DescriptorKeeper {
    pid: libc::pid_t,
    /// The keeper's process ID in the target's PID namespace.
    pub(crate) pid_there: u32,
}

/// Whether a process needs a keeper, because the process cannot open the descriptors of the collector.
pub(crate) fn is_needed_for(pid: u32) -> bool {
    let user = |pid| process::read_status(pid).map(|status| status.privileges.ids);
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = std::process::id();
    user(pid) != user(own) || namespace(pid) != namespace(own)
}

impl UserAndGroup {
    /// The user and the group of a process; `None`: the process has ended.
    pub(crate) fn of(pid: u32) -> Option<UserAndGroup> {
        let [user, group] = process::read_status(pid)?.privileges.ids;
        Some(UserAndGroup { user, group })
    }
}

impl DescriptorKeeper {
    /// Starts a keeper for the process `pid`. The calling process must have only one thread.
    pub(crate) fn start(pid: u32, owner: UserAndGroup) -> io::Result<DescriptorKeeper> {
        let theirs = File::open(format!("/proc/{pid}/ns/pid"))?;
        let own = File::open("/proc/self/ns/pid")?;
        let (mut ready, ready_write) = pipe()?;
        enter(&theirs)?;
        // SAFETY: without CLONE_VM the child has its own copy of the memory, as after a fork. The child
        // process makes only system calls.
        let child = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_FILES | libc::SIGCHLD, 0, 0, 0, 0) };
        if child == 0 {
            keep(owner, ready_write.as_raw_fd());
        }
        let failed = io::Error::last_os_error();
        enter(&own)?;
        if child < 0 {
            return Err(failed);
        }
        let mut keeper = DescriptorKeeper { pid: child as libc::pid_t, pid_there: 0 };
        // The keeper answers with two numbers: its process ID (0: the keeper failed), and an error number.
        let mut answer = [0; 8];
        // Wait for the answer of the keeper with a time limit. The collector shares its descriptors with the
        // keeper and so has the write end of the pipe open, too. So if the keeper ended without an answer, a
        // read without a time limit would wait forever.
        if !wait_readable(&[ready.as_raw_fd()], START_TIMEOUT) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        ready.read_exact(&mut answer)?;
        let answer = u64::from_ne_bytes(answer);
        let (pid_there, error) = (answer as u32, (answer >> 32) as i32);
        keeper.pid_there = pid_there;
        if pid_there == 0 { Err(io::Error::from_raw_os_error(error)) } else { Ok(keeper) }
    }
}

impl Drop for DescriptorKeeper {
    fn drop(&mut self) {
        // SAFETY: this process has not waited for the child (waitpid), so the process ID still belongs to the
        // child.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        // SAFETY: the call passes no memory.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}

/// The code of the keeper process. The code of the keeper process makes only raw system calls, because
/// another thread of the collector may have had a lock of libc at the time of the clone. In the keeper
/// process, a lock of libc that another thread had at the time of the clone stays locked forever.
fn keep(owner: UserAndGroup, ready: libc::c_int) -> ! {
    let (user, group) = (libc::c_long::from(owner.user), libc::c_long::from(owner.group));
    // SAFETY: the call passes an empty list of groups.
    let set_groups = || unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) };
    // SAFETY: the call passes no memory.
    let set_group = || unsafe { libc::syscall(libc::SYS_setresgid, group, group, group) };
    // SAFETY: the call passes no memory.
    let set_user = || unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
    // When a process changes its user, the kernel marks the process as not dumpable, so that only root can
    // open the descriptors of the process. After the keeper has changed its user, it makes itself dumpable
    // again, so that the target can open the descriptors. SAFETY: the call passes no memory.
    let set_dumpable = || unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    let done = set_groups() == 0
        && set_group() == 0
        && set_user() == 0
        && drop_capabilities() == 0
        && set_dumpable() == 0;
    let failed = !done;
    let error = if failed { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EPERM) } else { 0 };
    // SAFETY: the call passes only numbers. Set PR_SET_PDEATHSIG after the keeper has changed its user,
    // because a change of the user clears this setting.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    // SAFETY: the call has no arguments.
    let own = unsafe { libc::syscall(libc::SYS_getpid) } as u32;
    let answer = (u64::from(if failed { 0 } else { own }) | (error as u64) << 32).to_ne_bytes();
    // SAFETY: the call passes the eight bytes of a local array.
    let written = unsafe { libc::syscall(libc::SYS_write, ready, answer.as_ptr(), answer.len()) };
    if written > 0 && !failed {
        loop {
            // SAFETY: the call passes no descriptors and no timeout, and waits for a signal.
            unsafe { libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0) };
        }
    }
    // SAFETY: the call ends the child and runs no code of the parent.
    unsafe { libc::_exit(0) }
}

fn drop_capabilities() -> libc::c_long {
    const VERSION_3: u32 = 0x2008_0522;
    let (header, none) = ([VERSION_3, 0], [0u32; 6]);
    // SAFETY: the kernel only reads the header and the sets of capabilities (three sets of two numbers),
    // which are local arrays.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) }
}

/// Sets the PID namespace in which the next children of this process will run.
fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor of `namespace` is open, and the call passes no pointer to memory.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWPID) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
