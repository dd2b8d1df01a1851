//! HOT: what an allocation, a free and a realloc do. The whole fast path is on this screen.
//!
//! `caller` is the address of the return address that the entry stub was called with: the caller's frame begins right
//! above it. No lock, no system call, no allocation of our own. A caller that is a wrapper is stepped over at the end of this
//! screen; every other reason to leave the fast path (not started, forked, in the middle of another entry point, site
//! unknown, watched or without a word of its own, size too large for one entry) ends in the same place: `slow`, which does the
//! same without haste.
#![allow(unsafe_code)]

use crate::{arch, forward, live, real, sites, slow, thread};
use edleak_session::caller::Caller;
use edleak_session::counters::Counters;

/// malloc, after the real call (`interpose` has made it).
///
/// # Safety
/// Called by its entry stub only, like every hook here.
pub unsafe extern "C" fn note_allocation(
    allocation: *mut u8,
    size: usize,
    caller: *const usize,
    rbp: usize,
) -> *mut u8 {
    // SAFETY: `caller` and `rbp` come from the stub.
    unsafe { note(allocation, size, caller, rbp) }
}

/// calloc. A product that overflows has failed in the real calloc, so it is computed without a check.
///
/// # Safety
/// See [`note_allocation`].
pub unsafe extern "C" fn on_calloc(count: usize, size: usize, caller: *const usize, rbp: usize) -> *mut u8 {
    // SAFETY: the arguments are whatever the target passed.
    let allocation = unsafe { real::calloc(count, size) };
    // SAFETY: `caller` and `rbp` come from the stub.
    unsafe { note(allocation, count.wrapping_mul(size), caller, rbp) }
}

/// `operator new`: the default one is malloc and an exception, and we are called in its place only while it is the
/// default one (see `forward`).
///
/// # Safety
/// See [`note_allocation`].
pub unsafe extern "C" fn on_new(size: usize, caller: *const usize, rbp: usize) -> *mut u8 {
    if forward::new_is_malloc() {
        // SAFETY: as the default operator new does it; a size of 0 is a size of 1.
        let allocation = unsafe { real::malloc(size.max(1)) };
        if !allocation.is_null() {
            // SAFETY: `caller` and `rbp` come from the stub.
            return unsafe { note(allocation, size, caller, rbp) };
        }
    }
    // SAFETY: the same arguments, for the real operator: it calls the new-handler and throws.
    unsafe { forward::new_slow(size, caller, rbp) }
}

/// `operator new[]`.
///
/// # Safety
/// See [`note_allocation`].
pub unsafe extern "C" fn on_new_array(size: usize, caller: *const usize, rbp: usize) -> *mut u8 {
    if forward::new_is_malloc() {
        // SAFETY: as in `on_new`.
        let allocation = unsafe { real::malloc(size.max(1)) };
        if !allocation.is_null() {
            // SAFETY: `caller` and `rbp` come from the stub.
            return unsafe { note(allocation, size, caller, rbp) };
        }
    }
    // SAFETY: as in `on_new`.
    unsafe { forward::new_array_slow(size, caller, rbp) }
}

/// free. The address is forgotten before the real call: once that returns, another thread may be handed it.
///
/// # Safety
/// See [`note_allocation`].
pub unsafe extern "C" fn on_free(allocation: *mut u8) {
    let entry = live::entry_of(allocation);
    let counters = thread::counters();
    match entry.map(|entry| (entry, entry.load())) {
        Some((entry, found)) if found.is_small() && !counters.is_null() => {
            entry.clear();
            // SAFETY: this thread owns `counters`, and a small entry's site is one of the table's.
            unsafe { thread::count_free(counters, found.site() as usize, found.size()) };
        }
        // SAFETY: `allocation` is what the target wants to free.
        _ => return unsafe { slow::free(allocation) },
    }
    // SAFETY: the target's own call; only our record of the address is gone.
    unsafe { real::free(allocation) }
}

/// realloc. The old address is forgotten before the real call and is alive again if that fails.
///
/// # Safety
/// See [`note_allocation`].
pub unsafe extern "C" fn on_realloc(old: *mut u8, size: usize, caller: *const usize, rbp: usize) -> *mut u8 {
    let entry = live::entry_of(old);
    let found = match entry.map(|entry| (entry, entry.load())) {
        Some((entry, found)) if found.is_small() && !thread::counters().is_null() => {
            entry.clear();
            found
        }
        // SAFETY: what the target passed, and what the stub did.
        _ => return unsafe { slow::realloc(old, size, caller, rbp) },
    };
    // SAFETY: the target's own call; only our record of the address is gone.
    let new = unsafe { real::realloc(old, size) };
    let counters = thread::counters();
    if counters.is_null() || new.is_null() {
        // SAFETY: as above, after the real call.
        return unsafe { slow::reallocated(old, Some(found.into()), new, size, caller, rbp) };
    }
    // SAFETY: this thread owns `counters`, and a small entry's site is one of the table's.
    unsafe { thread::count_free(counters, found.site() as usize, found.size()) };
    // SAFETY: `caller` and `rbp` come from the stub.
    unsafe { note(new, size, caller, rbp) }
}

/// Notes a live allocation and hands it on.
///
/// # Safety
/// `caller` and `rbp` come from an entry stub.
#[inline(always)]
pub unsafe fn note(allocation: *mut u8, size: usize, caller: *const usize, rbp: usize) -> *mut u8 {
    'slow: {
        let counters = thread::counters();
        if counters.is_null() || size >= live::LARGE {
            break 'slow;
        }
        // SAFETY: the stub's return address lies at `caller`.
        let address = unsafe { *caller };
        // SAFETY: this thread has counters.
        let known = unsafe { sites::known(address) };
        let Some(site) = known.site() else {
            // SAFETY: the same arguments, and this thread's counters.
            return unsafe { note_behind_one(allocation, size, caller, rbp, known, counters) };
        };
        // SAFETY: this thread's counters, and a site of the table.
        if !unsafe { note_at(allocation, size, site, counters) } {
            break 'slow;
        }
        return allocation;
    }
    // SAFETY: the same arguments.
    unsafe { slow::note(allocation, size, caller, rbp) }
}

/// Notes a small live allocation at its site. `false`: there is no leaf for its address yet, or a stale entry.
///
/// # Safety
/// This thread owns `counters`, which is not null, and `site` comes from the table.
#[inline(always)]
unsafe fn note_at(allocation: *mut u8, size: usize, site: usize, counters: *const Counters) -> bool {
    let Some(entry) = live::entry_of(allocation) else { return false };
    if !entry.load().is_absent() {
        return false;
    }
    entry.store_small(site, size);
    // SAFETY: as the caller says.
    unsafe { thread::count_alloc(counters, site, size) };
    true
}

/// The same where the caller is a wrapper and its caller is none, which is the most frequent case of that kind.
///
/// A function of its own, like the next one, and called cold, which it is not: else the compiler keeps registers for it on the
/// way of those whose caller is no wrapper.
///
/// # Safety
/// As for [`note`]; `known` is what is known of the caller, and `counters` are this thread's, not null.
#[cold]
#[inline(never)]
unsafe fn note_behind_one(
    allocation: *mut u8,
    size: usize,
    caller: *const usize,
    rbp: usize,
    known: Caller,
    counters: *const Counters,
) -> *mut u8 {
    // SAFETY: the stub's frame, which is under way.
    let frame = unsafe { sites::Frame::of_caller(caller, rbp) };
    // SAFETY: as above; this thread has counters.
    let Some(site) = (unsafe { sites::behind_one(known, frame) }) else {
        // SAFETY: the same arguments.
        return unsafe { note_behind_wrappers(allocation, size, caller, rbp, known, counters) };
    };
    // SAFETY: this thread's counters, and a site of the table.
    if unsafe { note_at(allocation, size, site, counters) } {
        return arch::opaque(allocation);
    }
    // SAFETY: the same arguments.
    unsafe { slow::note(allocation, size, caller, rbp) }
}

/// The same behind any number of wrappers: a word of the same table, and one of the stack, for each.
///
/// # Safety
/// As for [`note_behind_one`].
#[cold]
#[inline(never)]
unsafe fn note_behind_wrappers(
    allocation: *mut u8,
    size: usize,
    caller: *const usize,
    rbp: usize,
    known: Caller,
    counters: *const Counters,
) -> *mut u8 {
    // SAFETY: the stub's frame, which is under way.
    let frame = unsafe { sites::Frame::of_caller(caller, rbp) };
    // SAFETY: as above; this thread has counters.
    if let Some(site) = unsafe { sites::behind_wrappers(known, frame) }
        // SAFETY: this thread's counters, and a site of the table.
        && unsafe { note_at(allocation, size, site, counters) }
    {
        return arch::opaque(allocation);
    }
    // SAFETY: the same arguments.
    unsafe { slow::note(allocation, size, caller, rbp) }
}
