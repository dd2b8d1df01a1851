//! The progress of long work. The code that does the work counts the parts that are done, and the program
//! shows this count to the user.
//!
//! A process does only one such work at a time, so one meter is enough. The work adds to the count once for
//! each block or file, so counting costs little.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

static DONE: AtomicU64 = AtomicU64::new(0);
static ALL: AtomicU64 = AtomicU64::new(0);
static AWAITED: Mutex<Option<String>> = Mutex::new(None);

/// Begins work that has `all` parts. 0: the number of parts is not known.
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

/// Sets the name of the thing outside of this process for which the work waits. `None`: the work does not
/// wait.
pub fn wait_for(what: Option<String>) {
    *AWAITED.lock().unwrap_or_else(PoisonError::into_inner) = what;
}

/// The name of the thing outside of this process for which the work waits. `None`: the work does not wait.
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
