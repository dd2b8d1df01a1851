//! HOT: free, and the first part of realloc. The stub notes the new allocation of realloc through
//! [`crate::arch::note`], as every other allocation.
//!
//! If the fast path does not apply, the code calls the functions of `slow`, which handle every case.
#![allow(unsafe_code)]

use crate::cold::{real, slow};
use crate::hot::tables::Own;
use crate::hot::{live, thread};
use core::sync::atomic::{AtomicPtr, Ordering};
use edleak_session::counters::Counters;

/// The entry of the small allocation at an address, the content of the entry, and the counters in which this
/// thread counts the free. `None`: this thread must leave the fast path.
#[inline(always)]
fn small_at(address: *mut u8) -> Option<(live::Entry, live::Small, *const Counters)> {
    let own = thread::own();
    let entry = live::entry_of(address)?;
    // SAFETY: the pointer `own` comes from `thread::own`, so it leads to the limits of this thread.
    let (small, counters) = unsafe { Own::small(own, entry.load()) }?;
    Some((entry, small, counters))
}

/// The function to which `free` jumps: [`count`], or the real free while the library counts nothing.
pub(crate) static ENTRY: AtomicPtr<()> = AtomicPtr::new(count as *mut ());

/// The hook of free.
///
/// # Safety
/// See [`on_free`].
unsafe extern "C" fn count(allocation: *mut u8) {
    // SAFETY: the caller keeps the contract of [`on_free`].
    unsafe { on_free(allocation) }
}

/// Makes `free` jump to the real free from now on. Changes nothing if the program may still free memory that
/// the library's own arena has handed out.
#[cold]
pub(crate) fn forward() {
    if !real::is_arena_in_use() {
        ENTRY.store(real::free_function(), Ordering::Release);
    }
}

/// Makes `free` jump to the hook from now on.
#[cold]
pub(crate) fn hook() {
    ENTRY.store(count as *mut (), Ordering::Release);
}

/// The hook of free. The hook removes the address from the side table before the real call, because another
/// thread may get the same address after the real call has returned.
///
/// # Safety
/// `allocation` is the address that the target passed to an entry point. Every hook in free.rs requires
/// that its addresses come from the target.
#[inline(always)]
pub(crate) unsafe fn on_free(allocation: *mut u8) {
    let Some((entry, small, counters)) = small_at(allocation) else {
        // SAFETY: the target passed `allocation` to free it.
        return unsafe { slow::free(allocation) };
    };
    entry.clear();
    // SAFETY: the counters belong to this thread and are not null.
    unsafe { thread::count_free(counters, small) };
    // SAFETY: this is the target's own call; edleak has only removed the address from its side table.
    unsafe { real::free(allocation) }
}

/// The first part of realloc: returns the new allocation or null, and the stub notes the new allocation. The
/// hook removes the old address from the side table before the real call, and puts the address back if the
/// real call fails.
///
/// # Safety
/// See [`on_free`].
pub(crate) unsafe extern "C" fn reallocate(old: *mut u8, size: usize) -> *mut u8 {
    let Some((entry, small, before)) = small_at(old) else {
        // SAFETY: the target passed `old` and `size`.
        return unsafe { slow::reallocate(old, size) };
    };
    entry.clear();
    // SAFETY: this is the target's own call; edleak has only removed the address from its side table. The
    // address `old` was in the side table, so it does not lie in the arena: the library notes no allocation
    // of the arena in the side table.
    let new = unsafe { real::realloc(old, size) };
    let counters = thread::counters();
    if counters != before || new.is_null() {
        // SAFETY: the real call has returned; the target passed `old` and `size`, and `new` is the result.
        return unsafe { slow::reallocated_after(before, old, small.into(), new, size) };
    }
    // SAFETY: the counters belong to this thread and are not null.
    unsafe { thread::count_free(counters, small) };
    new
}
