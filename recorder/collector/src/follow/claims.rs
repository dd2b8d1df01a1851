//! Takes the sessions that images have claimed, and begins a recording for each session that is attached.

use super::outcome::no_session;
use super::{ATTACH_LIMIT, Follower};
use crate::sys::shm::{Session, wait};
use edleak_session::header::{ATTACHED, FRESH};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest wait, in each pass of the main loop, for all processes that have claimed a session but are not
/// attached yet.
const ATTACH_WAIT: Duration = Duration::from_millis(5);
/// Maximum number of claimed sessions that are not attached yet. If more sessions than this number are
/// claimed but not attached, the collector drops the oldest claims.
const MAX_ATTACHING: usize = 64;

impl Follower<'_> {
    /// Takes all sessions that images have claimed since the last call, and begins a recording for each
    /// session that is attached.
    pub(super) fn take_claims(&mut self) {
        match self.stock.claimed() {
            Ok(sessions) => {
                self.attaching.extend(sessions.into_iter().map(|session| (session, Instant::now())));
            }
            Err(error) => self.outcome.fail(&self.settings.output, no_session(&error)),
        }
        let too_many = self.attaching.len().saturating_sub(MAX_ATTACHING);
        self.unwritten += self.attaching.drain(..too_many).len() as u64;
        let mut attached = Vec::new();
        let limit = Instant::now() + ATTACH_WAIT;
        for (session, claimed) in std::mem::take(&mut self.attaching) {
            let header = session.header();
            let left = limit.saturating_duration_since(Instant::now());
            let is_new = claimed.elapsed() < ATTACH_LIMIT;
            if header.state.load(Ordering::Acquire) == FRESH && is_new && !left.is_zero() {
                // The process has claimed the session and is about to attach, so a short wait suffices. All
                // sessions share one time limit, so a process that never attaches does not delay the other
                // processes for long.
                wait(&header.state, FRESH, left);
            }
            if header.state.load(Ordering::Acquire) == ATTACHED {
                attached.push(session);
            } else {
                self.attaching.push((session, claimed));
            }
        }
        attached.sort_by_key(|session| session.header().claim.load(Ordering::Relaxed));
        // A forked child that immediately executes a program claims two sessions: one after the fork, and one
        // after the exec. Before the exec, the child has allocated almost nothing, so the collector does not
        // use the first session.
        let number = |session: &Session| session.header().pid.load(Ordering::Relaxed);
        let is_executed = |session: &Session| session.header().parent.load(Ordering::Relaxed) == 0;
        while !attached.is_empty() {
            let session = attached.remove(0);
            let mut later = attached.iter().filter(|later| number(later) == number(&session));
            if !later.any(is_executed) {
                self.begin(session);
            }
        }
    }
}
