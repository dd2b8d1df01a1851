//! Counts the instructions of a program by executing one instruction at a time (`PTRACE_SINGLESTEP`).
//!
//! callgrind cannot count the instructions of a process to which edleak-record attaches. Under callgrind,
//! this process runs valgrind, so edleak-record would redirect the malloc of valgrind and not the malloc of
//! the measured program.

use anyhow::{Context, Result, bail, ensure};
use std::io;
use std::process::Child;

/// The value of `si_code` if the kernel sends a signal for an exception of the processor other than a debug
/// exception. The crate `libc` does not define `SI_KERNEL`.
const SI_KERNEL: libc::c_int = 0x80;

/// Counts the instructions of a child between its first and its second breakpoint (`int3`). The child waits
/// in a system call until `go` is called. After the second breakpoint, the child continues to run without a
/// tracer.
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

/// Waits for the next stop of a traced child. Returns true if a breakpoint caused the stop, and false if
/// the child stopped after a single step.
///
/// If `int3` caused the signal, Linux sets `si_code` to `SI_KERNEL`. If the child stopped after a single
/// step, `si_code` is `TRAP_TRACE`, or `TRAP_BRKPT` after a system call.
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
    Ok(signal.si_code == SI_KERNEL)
}

fn request(request: libc::c_uint, pid: libc::pid_t, data: usize) -> io::Result<()> {
    // SAFETY: the requests of this file write at most one `siginfo_t`, at the address in `data`.
    match unsafe { libc::ptrace(request, pid, 0, data) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn system_call_is_a_step_and_no_breakpoint() {
        let dir = edleak_tests::temp::TempDir::new("steps");
        let source = dir.path().join("calls.c");
        // `mov` and `syscall` are the two instructions between the breakpoints.
        let code = "#include <unistd.h>\n\
            int main(void) {\n\
                char byte;\n\
                while (read(0, &byte, 1) > 0) {}\n\
                asm volatile(\"int3; mov $39, %%eax; syscall; int3\" ::: \"rax\", \"rcx\", \"r11\");\n\
                return 0;\n\
            }\n";
        std::fs::write(&source, code).unwrap();
        let program = dir.path().join("calls");
        crate::tools::compile(&source, &program, &["-O2"]).unwrap();
        let mut child = Command::new(&program).stdin(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let steps = between_breakpoints(&child, || drop(input));
        if steps.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().unwrap();
        assert_eq!(steps.unwrap(), 2);
        assert!(status.success(), "the program ended with {status}");
    }
}
