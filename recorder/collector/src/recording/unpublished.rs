//! An event in a ring that a thread of the target has begun to write but has not published. The collector
//! cannot read such an event yet.

use std::time::{Duration, Instant};

/// After this time, the collector skips an event that no thread has published. The thread that began this
/// event was stopped, or left the call through a longjmp.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// An unpublished event in a ring. The collector waits for this event before it reads the events after it.
#[derive(Default)]
pub(crate) struct Unpublished {
    /// The number of the unpublished event, and the time at which the collector first saw this event.
    event: Option<(u32, Instant)>,
}

impl Unpublished {
    /// Notes that no thread has published the event `number` yet. Returns whether the collector has waited
    /// for this event for at least [`LONGEST_WAIT`].
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
