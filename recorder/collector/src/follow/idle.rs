//! Looks after an attached process during the run, and sets the libraries idle at its end.

use super::{Follower, Root};
use crate::attach;
use crate::sys::idle::{self, Library};
use crate::sys::quiescence::Quiescence;
use std::io;
use std::time::{Duration, Instant};

/// Longest wait at the end for threads that are inside the library. Without this wait, their last calls would
/// not be counted.
const LAST_CALLS: Duration = Duration::from_millis(500);
/// Longest wait at the end for a thread that attaches.
const LAST_ATTACH: Duration = Duration::from_secs(1);
/// Pause between two checks at the end.
const PAUSE: Duration = Duration::from_millis(2);

impl Follower<'_> {
    /// Checks the attached process. Returns whether its recording is impossible.
    pub(super) fn look_after_attached(&mut self, now: Instant) -> bool {
        let Root::Attached(attached) = &mut self.root else { return false };
        match &self.recording {
            Some(recording) => attached.open(recording.shards()),
            None if self.recorded_since.is_none() => {
                match attached.look_after_request(now, !self.attaching.is_empty()) {
                    // Without children, no other process has claimed these sessions.
                    Ok(true) if !self.plan.children => self.attaching.clear(),
                    Ok(_) => {}
                    Err(error) => {
                        self.outcome.fail(&self.plan.output, error);
                        return true;
                    }
                }
            }
            None => {}
        }
        false
    }

    /// Asks the idle library of a descendant to begin. Returns whether the collector asked it. A descendant
    /// is idle if it executed a program and inherited EDLEAK_IDLE.
    pub(super) fn wake_idle(&mut self, pid: u32) -> bool {
        let Ok(library) = Library::find(pid) else { return false };
        let is_new = || library.is_countable && matches!(library.header(), Ok(None));
        library.phase().is_ok_and(idle::is_off) && is_new() && library.wake(&self.stock.address()).is_ok()
    }

    /// Sets the library idle in every recorded process that still runs, so that its entry points only
    /// forward.
    pub(super) fn set_idle(&mut self) {
        if let Root::Attached(attached) = &self.root
            && self.recording.is_none()
        {
            let _ = end(&attached.library);
        }
        let (root, plan) = (self.root.pid(), self.plan);
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
            // The jumps in the first process are removed with `Attached`.
            if library.is_late && recording.pid() != root {
                attach::restore(&library, plan.publisher.prefixes());
            }
        }
    }
}

/// Ends the recording of a process, or takes back a request. Waits if a thread is attaching the process.
fn end(library: &Library) -> io::Result<bool> {
    let limit = Instant::now() + LAST_ATTACH;
    let mut was_counting = false;
    loop {
        was_counting |= library.end()?;
        // A thread may have seen the request before the collector took it back.
        std::thread::sleep(PAUSE);
        let phase = library.phase()?;
        if idle::is_off(phase) || (Instant::now() >= limit && idle::is_starting(phase)) {
            return Ok(was_counting);
        }
    }
}
