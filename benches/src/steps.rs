//! Counts the instructions of a program by executing one instruction at a time (`PTRACE_SINGLESTEP`).
//!
//! callgrind cannot count an attached process. Under callgrind, the process runs valgrind, so edleak-record
//! would redirect the malloc of valgrind and not the malloc of the measured program.

use anyhow::{Context, Result, bail, ensure};
use std::io;
use std::process::Child;

/// Counts the instructions of a child between its first and its second breakpoint (`int3`). The child waits
/// in a system call until `go` is called. After the second breakpoint, the child runs on without a tracer.
pub(crate) fn between_breakpoints(child: &Child, go: impl FnOnce()) -> Result<u64> {
    let pid = child.id() as libc::pid_t;
    request(libc::PTRACE_SEIZE, pid, 0).context("cannot trace a child")?;
    go();
    while !is_breakpoint(pid)? {
        request(libc::PTRACE_CONT, pid, 0)?;
    }
    let mut steps = 0;
    loop {
        request(libc::PTRACE_SINGLESTEP, pid, 0)?;
        steps += 1;
        if is_breakpoint(pid)? {
            request(libc::PTRACE_DETACH, pid, 0)?;
            // The breakpoint itself is not an instruction of the measured pairs, so it does not count.
            return Ok(steps - 1);
        }
    }
}

/// Waits for the next stop of a traced child. Returns whether a breakpoint caused the stop; if not, the stop
/// is the end of a step.
fn is_breakpoint(pid: libc::pid_t) -> Result<bool> {
    let mut status = 0;
    // SAFETY: the call waits for this process's own child and writes into a local variable.
    let found = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    ensure!(found == pid, "cannot wait for a child: {}", io::Error::last_os_error());
    if !libc::WIFSTOPPED(status) || libc::WSTOPSIG(status) != libc::SIGTRAP {
        bail!("the child did not stop at a breakpoint (status {status:#x})");
    }
    // SAFETY: the structure consists of plain numbers, for which zeros are valid.
    let mut signal: libc::siginfo_t = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETSIGINFO, pid, (&raw mut signal) as usize)?;
    Ok(signal.si_code != libc::TRAP_TRACE)
}

fn request(request: libc::c_uint, pid: libc::pid_t, data: usize) -> io::Result<()> {
    // SAFETY: the requests of this file write at most one `siginfo_t`, at the address in `data`.
    match unsafe { libc::ptrace(request, pid, 0, data) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
