//! COLD: decides whether this process may be recorded. The process makes this decision only once, before it
//! starts a second thread.
#![allow(unsafe_code)]

use crate::arch;
use crate::cold::environment::Environment;
use core::sync::atomic::{AtomicU8, Ordering};
use edleak_session::{ENV_IDLE, ENV_SESSION};

/// The decision whether this process may count allocations. The decision never changes, because an allocation
/// and its free must use the same layout.
static DECISION: AtomicU8 = AtomicU8::new(OPEN);
const OPEN: u8 = 0;
const PLAIN: u8 = 1;
const COUNTS: u8 = 2;

/// Whether this process has already decided that it never counts allocations.
#[inline(always)]
pub(crate) fn is_made_plain() -> bool {
    DECISION.load(Ordering::Relaxed) == PLAIN
}

/// Whether this process has already decided that it may count allocations.
#[inline(always)]
pub(crate) fn is_made_to_count() -> bool {
    DECISION.load(Ordering::Relaxed) == COUNTS
}

/// Whether this process never counts. The first call of this function makes the decision; the constructor of
/// the program makes this first call.
#[cold]
pub(crate) fn is_plain() -> bool {
    let own = if may_be_recorded() { COUNTS } else { PLAIN };
    let earlier = DECISION.compare_exchange(OPEN, own, Ordering::Relaxed, Ordering::Relaxed);
    earlier.err().unwrap_or(own) == PLAIN
}

/// Whether edleak-record may record this process. The process may be recorded if `EDLEAK_SESSION` or
/// `EDLEAK_IDLE` is set, no preloaded library counts already, and the kernel gave the process no additional
/// privileges.
fn may_be_recorded() -> bool {
    let environment = Environment::of_process();
    let is_set = |name: &str| {
        let value = environment.get(name.as_bytes());
        // SAFETY: the value of an environment variable ends in NUL, so its first byte is readable.
        value.is_some_and(|value| unsafe { *value } != 0)
    };
    (is_set(ENV_SESSION) || is_set(ENV_IDLE)) && !arch::is_preloaded() && !environment.is_secure()
}
