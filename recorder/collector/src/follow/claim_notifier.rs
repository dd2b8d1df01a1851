//! Wakes the collector when a process has mapped a session (the memory that the process shares with the
//! collector). At its start, a process waits until the collector has published rules for it. If the collector
//! only polled for new sessions, each process would wait longer.
//!
//! The number of wakes is a counter in shared memory, but the main loop can wait only for file descriptors.
//! So a separate thread waits until the counter changes, and then writes to an eventfd. If the collector
//! cannot create a thread, the main loop finds new sessions by polling.

use crate::sys::shm::{self, ControlPage};
use rustix::event::{EventfdFlags, eventfd};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// After a notifier is dropped, the thread of the notifier ends within this time.
const LOOK: Duration = Duration::from_secs(10);

/// Notifies the main loop when a process has mapped a session of one control page.
pub(crate) struct ClaimNotifier {
    event: Arc<File>,
    page: Arc<ControlPage>,
    is_over: Arc<AtomicBool>,
}

impl ClaimNotifier {
    /// Creates a notifier for all wakes from now on; `None`: the collector cannot create an eventfd or a
    /// thread.
    pub(crate) fn of(page: &Arc<ControlPage>) -> Option<ClaimNotifier> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        let event = Arc::new(File::from(event));
        let is_over = Arc::new(AtomicBool::new(false));
        let claim_notifier = ClaimNotifier { event, page: Arc::clone(page), is_over };
        let (event, page, is_over) =
            (Arc::clone(&claim_notifier.event), Arc::clone(page), Arc::clone(&claim_notifier.is_over));
        let mut seen = page.get().wakes.load(Ordering::Acquire);
        let ring = move || {
            while !is_over.load(Ordering::Relaxed) {
                let wakes = &page.get().wakes;
                shm::wait(wakes, seen, LOOK);
                let now = wakes.load(Ordering::Acquire);
                if now != seen {
                    seen = now;
                    // The write to the eventfd fails only if the counter of the eventfd is full. With a full
                    // counter, the descriptor is readable already.
                    let _ = (&*event).write_all(&1u64.to_ne_bytes());
                }
            }
        };
        std::thread::Builder::new().name("claim_notifier".into()).spawn(ring).ok()?;
        Some(claim_notifier)
    }

    /// A file descriptor that becomes readable when a process has mapped a session.
    pub(crate) fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Makes the descriptor unreadable until the next wake.
    pub(crate) fn reset(&self) {
        // If no process has woken the collector since the last call of `reset`, this read fails and changes
        // nothing.
        let _ = (&*self.event).read(&mut [0; 8]);
    }
}

impl Drop for ClaimNotifier {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        shm::wake(&self.page.get().wakes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signals::wait_readable;

    #[test]
    fn notifier_reports_each_wake_once_and_no_claim() {
        let page = Arc::new(ControlPage::create(true).expect("memory files can be made"));
        let claim_notifier = ClaimNotifier::of(&page).expect("threads can be had");
        let has_rung = |at_most| wait_readable(&[claim_notifier.fd()], at_most);
        assert!(!has_rung(Duration::ZERO));
        for _ in 0..3 {
            // The session is not mapped yet, so the main loop can do nothing for this claim.
            page.get().claims.fetch_add(1, Ordering::Release);
            assert!(!has_rung(Duration::from_millis(20)));
            page.get().wakes.fetch_add(1, Ordering::Release);
            shm::wake(&page.get().wakes);
            assert!(has_rung(Duration::from_secs(60)));
            claim_notifier.reset();
            assert!(!has_rung(Duration::from_millis(20)));
        }
    }
}
