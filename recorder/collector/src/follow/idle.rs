//! Controls the library in an attached process during the run. At the end of the run, tells the libraries in
//! all recorded processes to stop counting.

use super::{Follower, Root};
use crate::attach;
use crate::sys::idle::{self, Library};
use crate::sys::quiescence::Quiescence;
use std::io;
use std::time::{Duration, Instant};

/// Longest wait, at the end of a run, for threads that are inside the library. If the collector did not wait
/// for these threads, edleak would not count their last calls.
const LAST_CALLS: Duration = Duration::from_millis(500);
/// Longest wait, at the end of a run, for a thread that is attaching its process to a session.
const LAST_ATTACH: Duration = Duration::from_secs(1);
/// Pause between two checks while the collector waits at the end of a run.
const PAUSE: Duration = Duration::from_millis(2);

impl Follower<'_> {
    /// Checks whether the attached process has begun to count. If the collector's request to begin failed,
    /// the collector repeats this request. Returns `true` if edleak cannot record this process.
    pub(super) fn look_after_attached(&mut self, now: Instant) -> bool {
        let Root::Attached(attached) = &mut self.root else { return false };
        match &self.recording {
            Some(recording) => attached.open(recording.shards()),
            None if self.recorded_since.is_none() => {
                match attached.look_after_request(now, !self.attaching.is_empty()) {
                    // If edleak does not record children, only the attached process can have claimed the
                    // sessions in `attaching`. So the claims belong to the request that failed, and the
                    // collector forgets them.
                    Ok(true) if !self.settings.children => self.attaching.clear(),
                    Ok(_) => {}
                    Err(error) => {
                        self.outcome.fail(&self.settings.output, error);
                        return true;
                    }
                }
            }
            None => {}
        }
        false
    }

    /// Asks the library in a descendant of the root process to begin counting, if this library is idle.
    /// Returns whether the collector has asked the library to begin counting. The library is idle if the
    /// descendant inherited EDLEAK_IDLE and executed a program.
    pub(super) fn wake_idle(&mut self, pid: u32) -> bool {
        let Ok(library) = Library::find(pid) else { return false };
        let is_new = || library.is_countable && matches!(library.header(), Ok(None));
        library.phase().is_ok_and(idle::is_off) && is_new() && library.wake(&self.stock.address()).is_ok()
    }

    /// Makes edleak's library idle in every recorded process that still runs. The malloc of an idle library
    /// only forwards each call to the real malloc, and counts nothing.
    pub(super) fn set_idle(&mut self) {
        if let Root::Attached(attached) = &self.root
            && self.recording.is_none()
        {
            let _ = end(&attached.library);
        }
        let (root, settings) = (self.root.pid(), self.settings);
        let limit = Instant::now() + LAST_CALLS;
        for recording in self.recordings() {
            let Ok(library) = Library::find(recording.pid()) else { continue };
            if end(&library).is_ok_and(|was_counting| was_counting) {
                let mut quiescence = Quiescence::new(library.pid(), library.range.clone());
                while !quiescence.is_reached() && Instant::now() < limit {
                    std::thread::sleep(PAUSE);
                }
                recording.set_idle();
            }
            // The jumps in the root process are removed when its `Attached` is dropped.
            if library.is_late && recording.pid() != root {
                attach::restore(&library, settings.publisher.prefixes());
            }
        }
    }
}

/// Tells the library of a process to stop counting, or withdraws a request to begin counting. If a thread is
/// attaching the process to a session, waits for this thread. Returns whether the library was counting.
fn end(library: &Library) -> io::Result<bool> {
    let limit = Instant::now() + LAST_ATTACH;
    let mut was_counting = false;
    loop {
        was_counting |= library.end()?;
        // A thread may have seen the request to begin counting before the collector withdrew this request. So
        // wait for the time `PAUSE`, and then check whether the library has begun to count.
        std::thread::sleep(PAUSE);
        let phase = library.phase()?;
        if idle::is_off(phase) || (Instant::now() >= limit && idle::is_starting(phase)) {
            return Ok(was_counting);
        }
    }
}
