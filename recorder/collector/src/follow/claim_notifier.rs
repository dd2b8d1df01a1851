//! Rings when a session is claimed: an image that starts waits for the rules of its wrappers, and a collector that looks only now and then
//! would be what it waits for.
//!
//! Claims are a word of shared memory, and the loop waits for descriptors; so a thread waits for the one and writes to the other. Where
//! there is no thread to be had nobody rings, and the loop looks as often as it did.
#![allow(unsafe_code)] // eventfd

use crate::sys::shm::{self, ControlPage};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// So long at most the thread outlives what it rings for.
const LOOK: Duration = Duration::from_secs(10);

/// The claim_notifier of one control page.
pub(crate) struct ClaimNotifier {
    event: Arc<File>,
    page: Arc<ControlPage>,
    is_over: Arc<AtomicBool>,
}

impl ClaimNotifier {
    /// Rings at every claim from now on; `None`: it cannot be had.
    pub(crate) fn of(page: &Arc<ControlPage>) -> Option<ClaimNotifier> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        // SAFETY: the descriptor is new and ours.
        let event = (fd >= 0).then(|| Arc::new(unsafe { File::from_raw_fd(fd) }))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let claim_notifier = ClaimNotifier { event, page: Arc::clone(page), is_over };
        let (event, page, is_over) =
            (Arc::clone(&claim_notifier.event), Arc::clone(page), Arc::clone(&claim_notifier.is_over));
        let mut seen = page.get().claims.load(Ordering::Acquire);
        let ring = move || {
            while !is_over.load(Ordering::Relaxed) {
                let claims = &page.get().claims;
                shm::wait(claims, seen, LOOK);
                let now = claims.load(Ordering::Acquire);
                if now != seen {
                    seen = now;
                    // It can only be full of rings that nobody heard.
                    let _ = (&*event).write_all(&1u64.to_ne_bytes());
                }
            }
        };
        std::thread::Builder::new().name("claim_notifier".into()).spawn(ring).ok()?;
        Some(claim_notifier)
    }

    /// A descriptor that is readable once it has rung.
    pub(crate) fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Waits for the next ring.
    pub(crate) fn reset(&self) {
        // That it had not rung is no matter.
        let _ = (&*self.event).read(&mut [0; 8]);
    }
}

impl Drop for ClaimNotifier {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        shm::wake(&self.page.get().claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signals::wait_readable;

    #[test]
    fn it_rings_at_a_claim_and_then_no_more() {
        let page = Arc::new(ControlPage::create(true).expect("memory files can be made"));
        let claim_notifier = ClaimNotifier::of(&page).expect("threads can be had");
        let has_rung = |at_most| wait_readable(&[claim_notifier.fd()], at_most);
        assert!(!has_rung(Duration::ZERO));
        for _ in 0..3 {
            page.get().claims.fetch_add(1, Ordering::Release);
            shm::wake(&page.get().claims);
            assert!(has_rung(Duration::from_secs(60)));
            claim_notifier.reset();
            assert!(!has_rung(Duration::from_millis(20)));
        }
    }
}
