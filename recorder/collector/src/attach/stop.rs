//! Stops all threads of a process, for a moment.

use crate::attach::arch::registers::Registers;
use crate::attach::priority::Priority;
use crate::attach::ptrace::{self, ChildSignals, Stop, Thread};
use crate::sys::process;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// If a process stood still for longer than this time, edleak-record prints a message, even with `--quiet`.
pub(crate) const LONG_STOP: Duration = Duration::from_millis(100);

/// Formats a time for messages, in milliseconds.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// A process whose threads are all stopped. Dropping this value lets the threads go on.
#[derive(Debug)]
pub(crate) struct Stopped {
    threads: Vec<Thread>,
    since: Instant,
    _priority: Priority,
}

/// The reason why not all threads stopped.
#[derive(Debug)]
pub(crate) enum Unstopped {
    /// This thread did not stop in time.
    Running(u32),
    /// The operating system refused to stop a thread.
    Refused(io::Error),
    /// The process has ended.
    Ended,
}

impl Stopped {
    /// Stops all threads of a process before the time `limit`. The function also stops threads that the
    /// process starts during this call.
    pub(crate) fn all(pid: u32, limit: Instant) -> Result<Stopped, Unstopped> {
        let _signals = ChildSignals::block();
        let priority = Priority::raise();
        release_ended(pid);
        let mut stopped = Stopped { threads: Vec::new(), since: Instant::now(), _priority: priority };
        loop {
            let new: Vec<u32> = process::thread_ids(pid)
                .filter(|tid| !stopped.threads.iter().any(|thread| thread.tid == *tid))
                .filter(|&tid| can_stop(pid, tid))
                .collect();
            if new.is_empty() {
                // All known threads stand still, so no thread can start another thread.
                stopped.threads.retain(|thread| !thread.is_at(Stop::Ended));
                return if stopped.threads.is_empty() { Err(Unstopped::Ended) } else { Ok(stopped) };
            }
            let first_new = stopped.threads.len();
            for tid in new {
                stopped.threads.extend(begin_stop(pid, tid).map_err(Unstopped::Refused)?);
            }
            for thread in &mut stopped.threads[first_new..] {
                if thread.wait(limit).map_err(Unstopped::Refused)?.is_none() {
                    return Err(Unstopped::Running(thread.tid));
                }
            }
        }
    }

    /// Reads the registers of every stopped thread.
    pub(crate) fn registers(&self) -> io::Result<Vec<(u32, Registers)>> {
        self.threads.iter().map(|thread| Ok((thread.tid, thread.registers()?))).collect()
    }

    /// Lets all threads go on. Returns the time for which the threads stood still.
    pub(crate) fn let_go(mut self) -> Duration {
        self.continue_waits();
        self.threads.clear();
        self.since.elapsed()
    }

    fn continue_waits(&self) {
        self.threads.iter().filter(|thread| thread.is_stopped()).for_each(restart_wait);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.continue_waits();
    }
}

/// Makes a thread wait again in the system call in which the collector stopped the thread. A stop makes some
/// waiting system calls return the error EINTR; the kernel itself restarts all other waiting system calls.
/// This function replaces EINTR by a code that makes the kernel restart the system call, unless a signal
/// handler must run.
pub(crate) fn restart_wait(thread: &Thread) {
    let Ok(mut registers) = thread.registers() else { return };
    if is_ended_wait(&registers) {
        const ERESTARTNOHAND: i64 = 514;
        registers.set_result(-ERESTARTNOHAND);
        let _ = thread.set_registers(&registers);
    }
}

/// Whether a stop has made a waiting system call return EINTR, and edleak may restart this call with its full
/// time limit.
fn is_ended_wait(registers: &Registers) -> bool {
    /// Longest time limit in milliseconds of a system call that edleak restarts. The restarted call waits for
    /// its full time limit again, so a call with a longer time limit could return much too late.
    const LONGEST_MS: i32 = 1000;
    let is_interrupted = registers.result() == -i64::from(libc::EINTR);
    let is_short = |timeout: u64| (timeout as i32) <= LONGEST_MS;
    let may_restart = match registers.system_call().unwrap_or(-1) {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => is_short(registers.argument(3)),
        libc::SYS_semop => true,
        libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => registers.argument(3) == 0,
        libc::SYS_io_getevents => registers.argument(4) == 0,
        _ => false,
    };
    is_interrupted && may_restart
}

/// Begins to trace a thread and asks the thread to stop. `None`: the thread has ended. A thread can end at
/// any moment before it stops.
pub(crate) fn begin_stop(pid: u32, tid: u32) -> io::Result<Option<Thread>> {
    match Thread::seize(tid).and_then(|thread| thread.interrupt().map(|()| thread)) {
        Ok(thread) => Ok(Some(thread)),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) || !can_stop(pid, tid) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Releases the threads that have ended while the collector traced them. A process cannot end and cannot
/// execute another program until its tracer has released its ended threads.
pub(crate) fn release_ended(pid: u32) {
    process::thread_ids(pid).filter(|&tid| process::has_thread_ended(pid, tid)).for_each(ptrace::release);
}

/// Whether a thread can be stopped: the thread has not ended, and is not a worker thread of the kernel.
fn can_stop(pid: u32, tid: u32) -> bool {
    const KERNEL_WORKER: u64 = 0x10;
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")) else { return false };
    let Some(state) = process::state_in(&stat) else { return false };
    let flags = process::stat_field(&stat, 9).unwrap_or(0);
    !matches!(state, 'Z' | 'X') && flags & KERNEL_WORKER == 0
}
