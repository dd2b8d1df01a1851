//! Reads the keys in a thread of its own. If the terminal sends a key that crossterm does not know, crossterm
//! waits for the next key. So a view that read the keys itself would stop refreshing after such a key.

use crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The events of the terminal, in their order. The thread that reads the events ends with the program.
pub(super) struct Input {
    events: Receiver<io::Result<Event>>,
}

impl Input {
    pub(super) fn start() -> io::Result<Self> {
        let (sender, events) = channel();
        std::thread::Builder::new().name("edleak-input".into()).spawn(move || {
            loop {
                let event = event::read();
                let has_failed = event.is_err();
                if sender.send(event).is_err() || has_failed {
                    return;
                }
            }
        })?;
        Ok(Self { events })
    }

    /// Waits for a key for at most `patience`. The function also ends, with `None`, after a resize of the
    /// terminal, because the next drawing uses the new size.
    pub(super) fn key(&self, patience: Duration) -> io::Result<Option<KeyEvent>> {
        match self.events.recv_timeout(patience) {
            Ok(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => Ok(Some(key)),
            Ok(Ok(_)) | Err(RecvTimeoutError::Timeout) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("its keys cannot be read")),
        }
    }
}
