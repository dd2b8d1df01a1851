//! HOT: what a free does, and a realloc up to its new allocation, which [`crate::note`] notes like any other.
//!
//! Every reason to leave the fast path ends in the same place: `slow`, which does the same without haste.
#![allow(unsafe_code)]

use crate::{live, real, slow, thread};

/// free. The address is forgotten before the real call: once that returns, another thread may be handed it.
///
/// # Safety
/// Called by its entry stub only, like every hook here.
#[inline(always)]
pub unsafe fn on_free(allocation: *mut u8) {
    let own = thread::own();
    let noted =
        live::entry_of(allocation).and_then(|entry| own.small(entry.load()).map(|small| (entry, small)));
    let Some((entry, small)) = noted else {
        // SAFETY: `allocation` is what the target wants to free.
        return unsafe { slow::free(allocation) };
    };
    entry.clear();
    // SAFETY: this thread may count, and a small entry's site is one of the table's.
    unsafe { thread::count_free(own.counters, small) };
    // SAFETY: the target's own call; only our record of the address is gone.
    unsafe { real::free(allocation) }
}

/// realloc up to the point where there is a new allocation to note, or null. The old address is forgotten before the real call
/// and is alive again if that fails.
///
/// # Safety
/// See [`on_free`].
pub unsafe extern "C" fn reallocate(old: *mut u8, size: usize) -> *mut u8 {
    let own = thread::own();
    let noted = live::entry_of(old).and_then(|entry| own.small(entry.load()).map(|small| (entry, small)));
    let Some((entry, small)) = noted else {
        // SAFETY: what the target passed.
        return unsafe { slow::reallocate(old, size) };
    };
    entry.clear();
    // SAFETY: the target's own call; only our record of the address is gone. What was noted is not in the arena, which serves
    // nobody once anything is noted.
    let new = unsafe { real::realloc(old, size) };
    let counters = thread::own().counters;
    if counters.is_null() || new.is_null() {
        // SAFETY: as above, after the real call.
        return unsafe { slow::reallocated(old, Some(small.into()), new, size) };
    }
    // SAFETY: this thread owns `counters`, and a small entry's site is one of the table's.
    unsafe { thread::count_free(counters, small) };
    new
}
