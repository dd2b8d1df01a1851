//! Measures the progress of long work. The code that does the work counts the parts that are done, and the
//! program shows the share to the user.
//!
//! A process does only one long work at a time, so one global count is enough. The code adds to the count
//! once for each block or file, so the counting takes almost no time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

static DONE: AtomicU64 = AtomicU64::new(0);
static ALL: AtomicU64 = AtomicU64::new(0);
static AWAITED: Mutex<Option<String>> = Mutex::new(None);

/// Begins work that consists of `all` parts. If the number of parts is not known, `all` is 0.
pub fn begin(all: u64) {
    ALL.store(0, Ordering::Relaxed);
    DONE.store(0, Ordering::Relaxed);
    ALL.store(all, Ordering::Relaxed);
}

/// Adds `parts` to the number of parts that are done.
pub fn advance(parts: u64) {
    DONE.fetch_add(parts, Ordering::Relaxed);
}

/// The share of the work that is done, from 0 to 1. `None`: the number of parts is not known.
pub fn share() -> Option<f64> {
    let all = ALL.load(Ordering::Relaxed);
    (all > 0).then(|| (DONE.load(Ordering::Relaxed) as f64 / all as f64).min(1.0))
}

/// Tells the user that the work waits for something outside of this process, such as a server; `what` is the
/// name of this thing. If `what` is `None`, the work no longer waits.
pub fn wait_for(what: Option<String>) {
    *AWAITED.lock().unwrap_or_else(PoisonError::into_inner) = what;
}

/// The name of the thing outside of this process for which the work waits now. `None`: the work waits for
/// nothing.
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
