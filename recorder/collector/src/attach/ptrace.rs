//! Controls one thread with ptrace: stops the thread, reads and writes its registers, and lets it go.
//!
//! The collector seizes threads (`PTRACE_SEIZE`) and never sets `PTRACE_O_EXITKILL`. So if the collector
//! dies, the kernel lets each thread go on with the registers that the thread has at that moment.
#![allow(unsafe_code)] // ptrace and waitpid

use crate::attach::arch::registers::{EXTENDED_STATE, Registers};
use std::io;
use std::time::{Duration, Instant};

const NT_PRSTATUS: usize = 1;
/// Size in bytes of the buffer for the floating-point and vector registers of a thread. On every processor,
/// the floating-point and vector registers fit into a buffer of this size.
const MOST_STATE_BYTES: usize = 64 << 10;
/// Longest pause between two checks whether a thread has stopped.
const PAUSE: Duration = Duration::from_millis(1);

/// The reason why a thread is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The thread has reached the entry or the exit of a system call (`PTRACE_O_TRACESYSGOOD`).
    SystemCall,
    /// The collector has stopped the thread, or a signal such as `SIGSTOP` has stopped the whole process.
    Event,
    /// The thread is about to receive this signal.
    Signal(i32),
    /// The thread has ended.
    Ended,
}

/// A thread that the collector traces with ptrace. Dropping this value detaches the thread, which then runs
/// on.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) tid: u32,
    /// The reason why the thread is stopped now; `None`: the thread runs.
    stop: Option<Stop>,
    /// The signal that the thread gets when the collector detaches the thread; 0: no signal.
    signal: i32,
}

impl Thread {
    /// Begins to trace a thread (`PTRACE_SEIZE`), but does not stop the thread.
    pub(crate) fn seize(tid: u32) -> io::Result<Thread> {
        let seized = request(libc::PTRACE_SEIZE, tid, 0, libc::PTRACE_O_TRACESYSGOOD as usize);
        match seized {
            // This collector already traces the thread, because the thread did not stop in time in an earlier
            // attempt.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && is_ours(tid) => {}
            result => _ = result?,
        }
        Ok(Thread { tid, stop: None, signal: 0 })
    }

    /// Asks the thread to stop.
    pub(crate) fn interrupt(&self) -> io::Result<()> {
        request(libc::PTRACE_INTERRUPT, self.tid, 0, 0).map(drop)
    }

    /// Checks whether the thread has stopped, without waiting. Returns the reason of the stop; `None`: the
    /// thread still runs.
    pub(crate) fn look(&mut self) -> io::Result<Option<Stop>> {
        if self.stop.is_some() {
            return Ok(self.stop);
        }
        let mut status = 0;
        // SAFETY: the call writes only into `status`.
        let found = unsafe { libc::waitpid(self.tid as i32, &mut status, libc::WNOHANG | libc::__WALL) };
        self.stop = match found {
            0 => return Ok(None),
            // `waitpid` does not find the thread, so the thread has ended. The kernel reports the end of a
            // main thread only to the parent of the process, and not to the tracer.
            found if found < 0 => Some(Stop::Ended),
            _ => Some(stop_of(status)),
        };
        if let Some(Stop::Signal(signal)) = self.stop {
            self.signal = signal;
        }
        Ok(self.stop)
    }

    /// Waits until the thread has stopped, at most until the time `limit`. `None`: the thread still runs at
    /// the time `limit`.
    pub(crate) fn wait(&mut self, limit: Instant) -> io::Result<Option<Stop>> {
        loop {
            let stop = self.look()?;
            if stop.is_some() || Instant::now() >= limit {
                return Ok(stop);
            }
            wait_for_child_signal();
        }
    }

    /// Reads the general registers of the thread.
    pub(crate) fn registers(&self) -> io::Result<Registers> {
        let mut registers = Registers::zeroed();
        let mut place =
            libc::iovec { iov_base: (&raw mut registers).cast(), iov_len: size_of::<Registers>() };
        request(libc::PTRACE_GETREGSET, self.tid, NT_PRSTATUS, (&raw mut place) as usize)?;
        Ok(registers)
    }

    /// Sets the general registers of the thread.
    pub(crate) fn set_registers(&self, registers: &Registers) -> io::Result<()> {
        let mut place = libc::iovec {
            iov_base: (registers as *const Registers).cast_mut().cast(),
            iov_len: size_of::<Registers>(),
        };
        request(libc::PTRACE_SETREGSET, self.tid, NT_PRSTATUS, (&raw mut place) as usize).map(drop)
    }

    /// Reads the floating-point and vector registers of the thread.
    pub(crate) fn extended_state(&self) -> io::Result<Vec<u8>> {
        let mut state = vec![0u8; MOST_STATE_BYTES];
        let mut place = libc::iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
        request(libc::PTRACE_GETREGSET, self.tid, EXTENDED_STATE, (&raw mut place) as usize)?;
        state.truncate(place.iov_len);
        Ok(state)
    }

    /// Sets the floating-point and vector registers of the thread.
    pub(crate) fn set_extended_state(&self, state: &[u8]) -> io::Result<()> {
        let mut place = libc::iovec { iov_base: state.as_ptr().cast_mut().cast(), iov_len: state.len() };
        request(libc::PTRACE_SETREGSET, self.tid, EXTENDED_STATE, (&raw mut place) as usize).map(drop)
    }

    /// Reads the set of signals that the thread blocks.
    pub(crate) fn signal_mask(&self) -> io::Result<u64> {
        let mut mask = 0u64;
        request(libc::PTRACE_GETSIGMASK as _, self.tid, size_of::<u64>(), (&raw mut mask) as usize)?;
        Ok(mask)
    }

    /// Whether the kernel sends the thread a signal instead of carrying out some of its system calls
    /// (`PR_SET_SYSCALL_USER_DISPATCH`).
    pub(crate) fn redirects_system_calls(&self) -> bool {
        const GET_SYSCALL_USER_DISPATCH_CONFIG: libc::c_uint = 0x4211;
        let mut settings = [0u64; 4];
        let place = (&raw mut settings) as usize;
        // Linux before version 6.4 does not know this ptrace request and returns an error.
        let known = request(GET_SYSCALL_USER_DISPATCH_CONFIG, self.tid, size_of_val(&settings), place);
        known.is_ok() && settings[0] != 0
    }

    /// Sets the signals that the thread blocks.
    pub(crate) fn set_signal_mask(&self, mask: u64) -> io::Result<()> {
        let mut mask = mask;
        let place = (&raw mut mask) as usize;
        request(libc::PTRACE_SETSIGMASK as _, self.tid, size_of::<u64>(), place).map(drop)
    }

    /// Lets the thread go on to the entry or the exit of its next system call. If a signal stopped the
    /// thread, the thread does not get this signal now, but when this value is dropped.
    pub(crate) fn go_on_to_system_call(&mut self) -> io::Result<()> {
        self.stop = None;
        request(libc::PTRACE_SYSCALL, self.tid, 0, 0).map(drop)
    }

    /// Discards the signal that stopped the thread, because the code that the collector has written caused
    /// this signal.
    pub(crate) fn forget_signal(&mut self) {
        self.signal = 0;
    }

    /// Lets the thread go on.
    pub(crate) fn go_on(&mut self) -> io::Result<()> {
        self.stop = None;
        request(libc::PTRACE_CONT, self.tid, 0, 0).map(drop)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        /// Longest wait for a running thread to stop or to end. Only a stopped thread can be detached.
        const STOP_TIMEOUT: Duration = Duration::from_millis(20);
        if self.stop.is_none() {
            let _ = self.interrupt();
            let _ = self.wait(Instant::now() + STOP_TIMEOUT);
        }
        // If the thread still runs now, the kernel detaches the thread when edleak-record ends.
        if matches!(self.stop, None | Some(Stop::Ended)) {
            return;
        }
        if request(libc::PTRACE_DETACH, self.tid, 0, self.signal as usize).is_err() {
            // The thread is ending, because another thread executes a program or ends the process. Both wait
            // until the tracer has waited for the end of the thread.
            self.stop = None;
            let _ = self.wait(Instant::now() + STOP_TIMEOUT);
        }
    }
}

/// Keeps SIGCHLD blocked while this value lives. The kernel sends SIGCHLD when a thread stops. If SIGCHLD is
/// blocked, a wait for a stop ends as soon as the thread stops; if SIGCHLD is not blocked, the wait ends only
/// after [`PAUSE`].
pub(crate) struct ChildSignals {
    before: libc::sigset_t,
}

impl ChildSignals {
    pub(crate) fn block() -> ChildSignals {
        let mut before = no_signals();
        // SAFETY: both pointers lead to local signal sets, and the kernel writes only to `before`.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &child_signal(), &mut before) };
        ChildSignals { before }
    }
}

impl Drop for ChildSignals {
    fn drop(&mut self) {
        // SAFETY: the kernel only reads the signal set, and stores no result through the null pointer.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

fn no_signals() -> libc::sigset_t {
    // SAFETY: a set of signals consists of integers, for which zeros are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes only to the signal set `set`.
    unsafe { libc::sigemptyset(&mut set) };
    set
}

fn child_signal() -> libc::sigset_t {
    let mut set = no_signals();
    // SAFETY: the call writes only to the signal set `set`.
    unsafe { libc::sigaddset(&mut set, libc::SIGCHLD) };
    set
}

/// Waits until the kernel reports the stop of a thread, but not longer than [`PAUSE`].
fn wait_for_child_signal() {
    let limit = libc::timespec { tv_sec: 0, tv_nsec: PAUSE.as_nanos() as libc::c_long };
    // SAFETY: the kernel only reads the signal set and the time limit, and stores no result through the null
    // pointer.
    unsafe { libc::sigtimedwait(&child_signal(), std::ptr::null_mut(), &limit) };
}

/// Waits for the end of an ended thread, if this process traces the thread.
pub(crate) fn release(tid: u32) {
    if is_ours(tid) {
        // SAFETY: the null pointer makes the call discard the exit status.
        unsafe { libc::waitpid(tid as i32, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
    }
}

/// Whether this process already traces a thread.
fn is_ours(tid: u32) -> bool {
    tracer_of(tid) == Some(std::process::id())
}

/// The process ID of the tracer of a thread; `None`: no process traces the thread.
pub(crate) fn tracer_of(tid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|&tracer| tracer != 0)
}

fn stop_of(status: i32) -> Stop {
    if !libc::WIFSTOPPED(status) {
        return Stop::Ended;
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Stop::SystemCall,
        0 => Stop::Signal(signal),
        _ => Stop::Event,
    }
}

fn request(request: libc::c_uint, tid: u32, address: usize, data: usize) -> io::Result<libc::c_long> {
    // SAFETY: for the requests of this file, the kernel reads and writes only the registers of the thread,
    // and the memory that the caller passes.
    let result = unsafe { libc::ptrace(request, tid as libc::pid_t, address, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Thread {
    /// Whether the thread is stopped for the reason `stop`.
    pub(crate) fn is_at(&self, stop: Stop) -> bool {
        self.stop == Some(stop)
    }

    /// Whether the thread is stopped and has not ended.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop != Stop::Ended)
    }
}
