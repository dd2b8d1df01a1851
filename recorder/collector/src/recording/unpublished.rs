//! An event of a ring that a thread has begun and not published.

use std::time::{Duration, Instant};

/// After this time, the collector skips an event that no thread has published. Its thread was stopped, or
/// left the call by a longjmp.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The event that holds back the later events of a ring.
#[derive(Default)]
pub(crate) struct Unpublished {
    /// The number of the event, and the time at which the collector first saw it unpublished.
    event: Option<(u32, Instant)>,
}

impl Unpublished {
    /// Notes that no thread has published the event `number` yet. Whether this has been so for
    /// [`LONGEST_WAIT`].
    pub(crate) fn is_overdue(&mut self, number: u32) -> bool {
        let now = Instant::now();
        match self.event {
            Some((known, since)) if known == number => now.duration_since(since) >= LONGEST_WAIT,
            _ => {
                self.event = Some((number, now));
                false
            }
        }
    }

    /// An event that the collector has waited for long enough.
    #[cfg(test)]
    pub(crate) fn overdue(number: u32) -> Unpublished {
        Unpublished { event: Some((number, Instant::now() - LONGEST_WAIT)) }
    }
}
