//! Looks after an attached process during the run, and sets the libraries idle at its end.

use super::{Follower, Root};
use crate::sys::idle::{self, Library};
use crate::sys::quiescence::Quiescence;
use edleak_session::idle::OFF;
use std::io;
use std::time::{Duration, Instant};

/// Longest wait at the end for threads that are inside the library. Only counts in the last slice depend on it.
const LAST_CALLS: Duration = Duration::from_millis(500);
/// Longest wait at the end for a thread that attaches.
const LAST_ATTACH: Duration = Duration::from_secs(1);
/// Pause between two looks at the end.
const PAUSE: Duration = Duration::from_millis(2);

impl Follower<'_> {
    /// Looks after the attached process. Returns whether its recording is impossible.
    pub(super) fn look_after_attached(&mut self, now: Instant) -> bool {
        let Root::Attached(attached) = &mut self.root else { return false };
        match &self.recording {
            Some(recording) => attached.open(recording.shards()),
            None if self.recorded_since.is_none() && self.attaching.is_empty() => {
                if let Err(error) = attached.look_after_request(now) {
                    self.outcome.fail(&self.plan.output, error);
                    return true;
                }
            }
            None => {}
        }
        false
    }

    /// Sets the library idle in every recorded process that runs on, so that its calls are only forwarded.
    pub(super) fn set_idle(&mut self) {
        if let Root::Attached(attached) = &self.root
            && self.recording.is_none()
        {
            let _ = end(&attached.library);
        }
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
        }
    }
}

/// Ends the recording of a process or takes back a request. Waits for a thread that attaches just now.
fn end(library: &Library) -> io::Result<bool> {
    let limit = Instant::now() + LAST_ATTACH;
    let mut was_counting = false;
    loop {
        was_counting |= library.end()?;
        // A thread may have seen the request before it was taken back.
        std::thread::sleep(PAUSE);
        let phase = library.phase()?;
        if phase == OFF || (Instant::now() >= limit && idle::is_starting(phase)) {
            return Ok(was_counting);
        }
    }
}
