//! Waits until no thread of a process can be inside edleak's library, without stopping any thread.
//!
//! The kernel may suspend a thread at any instruction of the library, so a thread may still use the counters
//! of a session that has ended. The collector assumes that a thread has left the library since the start of
//! the wait if one of these conditions holds:
//!
//! | condition, as /proc shows it                              | reason                        |
//! |-----------------------------------------------------------|-------------------------------|
//! | the thread has ended                                      |                               |
//! | it waits in the kernel, called from outside the library   | code that counts never waits  |
//! | it has used processor time of [`ENOUGH`] during the wait  | a call takes microseconds     |
//!
//! The assumption that the thread has left the library is wrong in one case: a signal handler interrupts a
//! call of the library, and then waits or runs for a long time. If a thread is still in the library after the
//! wait, the counts may become inexact. But no memory is damaged, because the target keeps the last two
//! sessions mapped.

use crate::sys::process;
use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::time::Duration;

/// A thread that has used this much processor time since the start of the wait must have left the library
/// meanwhile, because one call of the library takes less time. This value is also longer than the delay with
/// which the kernel updates the processor time of a running thread.
const ENOUGH: Duration = Duration::from_millis(20);

/// The threads that may still be inside the library.
#[derive(Debug)]
pub(crate) struct Quiescence {
    pid: u32,
    library: Range<u64>,
    /// For each thread that may still be inside the library: its processor time at the start of the wait.
    inside: HashMap<u32, Duration>,
}

impl Quiescence {
    /// Starts the wait until all threads have left the library: stores the processor time of every thread.
    pub(crate) fn new(pid: u32, library: Range<u64>) -> Quiescence {
        let inside = process::thread_ids(pid).map(|tid| (tid, used(pid, tid).unwrap_or_default())).collect();
        Quiescence { pid, library, inside }
    }

    /// Checks which threads may still be inside the library. Returns whether all threads of the process have
    /// left the library.
    pub(crate) fn is_reached(&mut self) -> bool {
        let Quiescence { pid, library, inside } = self;
        inside.retain(|&tid, before| {
            let Some(now) = used(*pid, tid) else { return false };
            let waits_elsewhere =
                || program_counter(*pid, tid).is_some_and(|counter| !library.contains(&counter));
            now.saturating_sub(*before) < ENOUGH && !waits_elsewhere()
        });
        inside.is_empty()
    }

    /// One of the threads that may still be inside the library.
    pub(crate) fn thread(&self) -> Option<u32> {
        self.inside.keys().min().copied()
    }
}

/// The processor time of a thread; `None`: the thread has ended.
fn used(pid: u32, tid: u32) -> Option<Duration> {
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")) {
        return Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?));
    }
    // If the kernel has no scheduler statistics, it shows the processor time only in units of 1/100 s. This
    // resolution (1/100 s) suffices to find out whether a thread has used the processor time `ENOUGH`.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    let field = |number| process::stat_field(&stat, number);
    Some(TICK * u32::try_from(field(14)?.saturating_add(field(15)?)).ok()?)
}

/// The program counter of a thread that waits in the kernel; `None`: the thread runs or is ready to run.
fn program_counter(pid: u32, tid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
    u64::from_str_radix(text.split_whitespace().last()?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn is_reached_in_time(quiescence: &mut Quiescence) -> bool {
        let limit = Instant::now() + DEADLINE;
        while Instant::now() < limit {
            if quiescence.is_reached() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn sleeping_process_has_left_and_one_in_the_library_has_not() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("it is installed");
        let pid = child.id();
        assert!(is_reached_in_time(&mut Quiescence::new(pid, 0..1)));
        let mut inside = Quiescence::new(pid, 0..u64::MAX);
        assert!(!inside.is_reached() && !inside.is_reached());
        assert_eq!(inside.thread(), Some(pid));
        let _ = child.kill();
        let _ = child.wait();
        assert!(is_reached_in_time(&mut inside), "it has ended");
    }

    #[test]
    fn running_thread_has_left_after_a_while() {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let mut quiescence = Quiescence::new(std::process::id(), 0..1);
            let is_reached = is_reached_in_time(&mut quiescence);
            is_over.store(true, Ordering::Relaxed);
            assert!(is_reached, "{quiescence:?}");
        });
    }
}
