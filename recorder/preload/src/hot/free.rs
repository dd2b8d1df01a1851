//! HOT: what a free does, and a realloc up to its new allocation, which [`crate::arch::note`] notes like any other.
//!
//! Every reason to leave the fast path ends in the same place: `slow`, which does the same without haste.
#![allow(unsafe_code)]

use crate::cold::{real, slow};
use crate::hot::{live, thread};
use edleak_session::counters::Counters;

/// The small allocation at an address, its entry, and the counters that its free may be counted with without further ado.
#[inline(always)]
fn small_at(address: *mut u8) -> Option<(live::Entry, live::Small, *const Counters)> {
    let own = thread::own();
    let entry = live::entry_of(address)?;
    // SAFETY: this thread's.
    let (small, counters) = unsafe { thread::Own::small(own, entry.load()) }?;
    Some((entry, small, counters))
}

/// free. The address is forgotten before the real call: once that returns, another thread may be handed it.
///
/// # Safety
/// What the target passed to an entry point, as for every hook here.
#[inline(always)]
pub(crate) unsafe fn on_free(allocation: *mut u8) {
    let Some((entry, small, counters)) = small_at(allocation) else {
        // SAFETY: `allocation` is what the target wants to free.
        return unsafe { slow::free(allocation) };
    };
    entry.clear();
    // SAFETY: this thread's, and not null.
    unsafe { thread::count_free(counters, small) };
    // SAFETY: the target's own call; only our record of the address is gone.
    unsafe { real::free(allocation) }
}

/// realloc up to the point where there is a new allocation to note, or null. The old address is forgotten before the real call
/// and is alive again if that fails.
///
/// # Safety
/// See [`on_free`].
pub(crate) unsafe extern "C" fn reallocate(old: *mut u8, size: usize) -> *mut u8 {
    let Some((entry, small, _)) = small_at(old) else {
        // SAFETY: what the target passed.
        return unsafe { slow::reallocate(old, size) };
    };
    entry.clear();
    // SAFETY: the target's own call; only our record of the address is gone. What was noted is not in the arena, which serves
    // nobody once anything is noted.
    let new = unsafe { real::realloc(old, size) };
    let counters = thread::counters();
    if counters.is_null() || new.is_null() {
        // SAFETY: as above, after the real call.
        return unsafe { slow::reallocated(old, Some(small.into()), new, size) };
    }
    // SAFETY: this thread's, and not null.
    unsafe { thread::count_free(counters, small) };
    new
}
