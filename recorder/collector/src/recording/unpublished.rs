//! Handles an event in a ring that a thread of the target has begun to write but has not published, so that
//! the collector cannot read the event yet.

use std::time::{Duration, Instant};

/// The longest time that the collector waits for an event that no thread has published. If an event stays
/// unpublished for this time, the collector skips the event: the thread that began to write the event was
/// stopped, or left the library with longjmp.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// An unpublished event in a ring, for which the collector waits before it reads the events after this event.
#[derive(Default)]
pub(crate) struct Unpublished {
    /// The number of the unpublished event, and the time at which the collector first saw this event.
    event: Option<(u32, Instant)>,
}

impl Unpublished {
    /// Remembers that no thread of the target has published the event with this number yet. Returns whether
    /// the collector has waited for this event for at least [`LONGEST_WAIT`].
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

    /// An event for which the collector has already waited [`LONGEST_WAIT`].
    #[cfg(test)]
    pub(crate) fn overdue(number: u32) -> Unpublished {
        Unpublished { event: Some((number, Instant::now() - LONGEST_WAIT)) }
    }
}
