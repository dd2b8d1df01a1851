//! How far a long piece of work is, for a person who waits for it. The work counts here, and whoever has a terminal shows it.
//!
//! One process does one such piece at a time, so there is one meter. Counting costs an addition for each block or file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

static DONE: AtomicU64 = AtomicU64::new(0);
static ALL: AtomicU64 = AtomicU64::new(0);
static AWAITED: Mutex<Option<String>> = Mutex::new(None);

/// A piece of work of so many parts begins. 0: nobody knows how many.
pub fn begin(all: u64) {
    ALL.store(0, Ordering::Relaxed);
    DONE.store(0, Ordering::Relaxed);
    ALL.store(all, Ordering::Relaxed);
}

/// So many more parts are done.
pub fn advance(parts: u64) {
    DONE.fetch_add(parts, Ordering::Relaxed);
}

/// The share that is done, 0 to 1; `None` if nobody knows.
pub fn share() -> Option<f64> {
    let all = ALL.load(Ordering::Relaxed);
    (all > 0).then(|| (DONE.load(Ordering::Relaxed) as f64 / all as f64).min(1.0))
}

/// The work waits for something outside of this process from now on, or, with `None`, no longer.
pub fn wait_for(what: Option<String>) {
    *AWAITED.lock().unwrap_or_else(PoisonError::into_inner) = what;
}

/// What the work waits for.
pub fn awaited() -> Option<String> {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_known_once_the_parts_are() {
        begin(4);
        advance(1);
        assert_eq!(share(), Some(0.25));
        advance(9);
        assert_eq!(share(), Some(1.0));
        begin(0);
        assert_eq!(share(), None);
        wait_for(Some("a server".into()));
        assert_eq!(awaited().as_deref(), Some("a server"));
        wait_for(None);
        assert_eq!(awaited(), None);
    }
}
