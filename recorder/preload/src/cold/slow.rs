//! COLD: handles every case that the fast path does not handle, for example the first call of an entry point,
//! large sizes, callers without a word in the cache, nested entry points, forked children and unknown
//! addresses.
#![allow(unsafe_code)]

use crate::cold::sites::{self, bump};
use crate::cold::{inside, modules, phase, real};
use crate::hot::frame::Frame;
use crate::hot::live::{self, Allocation};
use crate::hot::{thread, walk};
use core::ptr;
use core::sync::atomic::Ordering;
use edleak_session::counters::Counters;
use edleak_session::header::Header;
use edleak_session::site::{Action, MAX_SITES, OTHER};

/// Notes an allocation that the fast path did not note, and returns the allocation.
///
/// # Safety
/// `caller` and `fp` come from an entry stub.
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn note(
    allocation: *mut u8,
    size: usize,
    caller: *const usize,
    fp: usize,
) -> *mut u8 {
    // In an unrecorded process, each call of an entry point calls `is_off` to test the phase. The rest of
    // the work is in `note_counted`, so that this function saves no register on the stack before the test.
    if phase::is_off() {
        return allocation;
    }
    // SAFETY: the caller guarantees that the frame comes from a stub.
    unsafe { note_counted(allocation, size, caller, fp) }
}

/// Does the work of [`note`] in a process that is recorded or may be recorded.
///
/// # Safety
/// See [`note`].
#[inline(never)]
unsafe fn note_counted(allocation: *mut u8, size: usize, caller: *const usize, fp: usize) -> *mut u8 {
    let Some(header) = phase::header() else { return allocation };
    // SAFETY: from here on, this is the only reference to the current thread's state.
    let tls = unsafe { thread::tls() };
    if inside::is_inside(tls, caller as usize) {
        return allocation; // the hook of the outer function counts
    }
    let (caller, fp, size) = attribute(tls, caller, fp, size);
    if allocation.is_null() {
        return allocation;
    }
    let counting = thread::counting(header, tls);
    // SAFETY: `caller` and `fp` belong to the stub's frame, or to the frame of the outer entry point, which
    // is still running.
    let frame = unsafe { Frame::of_caller(caller, fp) };
    // SAFETY: the frame is the frame of the program's function that called the entry point. The entry point
    // has not returned yet, so the frame is still on the stack.
    let place = unsafe { sites::place(header, frame) };
    let mut noted = Allocation { site: place.site, size, special: false };
    let mut cell = None;
    match place.action {
        Action::LOADER => noted.special = true,
        Action::WATCH => {
            // SAFETY: the frame of the site is further up on this stack.
            match unsafe { walk::record(header, place.site, place.frame) } {
                Some(number) => {
                    cell = walk::cell(number);
                    noted = Allocation { site: MAX_SITES as u32 + number, size, special: true };
                }
                None => bump(&header.lost_stacks),
            }
        }
        _ => {}
    }
    live::take_covered(allocation, noted, |stale| count_free(header, counting, stale));
    match live::insert(allocation, noted) {
        Ok(stale) => {
            // The hooks did not see the free of the older allocation at this address, so count this free now.
            if let Some(stale) = stale {
                count_free(header, counting, stale);
            }
            match cell {
                Some(cell) => cell.counters.add_allocation_shared(size as u64),
                None => counting.alloc(place.site, size),
            }
            if place.action == Action::LOADER {
                modules::allocated(header, allocation, size);
            }
        }
        Err(()) => bump(&header.untracked_allocs),
    }
    allocation
}

/// Counts every live allocation of the parent in the counters of a forked child: the parent made these
/// allocations, and the child will free them. Only the parent's session holds the stacks of watched sites.
/// So if the parent counted an allocation by its stack, the child counts it only at its site.
///
/// # Safety
/// `parents` are the tables of the parent's session, which is still mapped.
pub(crate) unsafe fn inherit(header: &Header, parents: &walk::Tables) {
    // SAFETY: at this point, no other reference to the current thread's state exists.
    let counting = thread::counting(header, unsafe { thread::tls() });
    live::for_each(|address, mut allocation| {
        if let Some(number) = allocation.site.checked_sub(MAX_SITES as u32) {
            // SAFETY: the caller guarantees that the parent's session, to which `parents` leads, is mapped.
            let site = unsafe { parents.site_of(number) }.unwrap_or(OTHER);
            allocation = Allocation { site, special: false, ..allocation };
            // The leaf of this entry exists, so the insertion cannot fail.
            let _ = live::insert(address, allocation);
        }
        counting.alloc(allocation.site, allocation.size);
    });
}

/// Counts a free at the site or the cell of the freed allocation.
fn count_free(header: &Header, counting: thread::Counting, was: Allocation) {
    let Some(number) = was.site.checked_sub(MAX_SITES as u32) else {
        return counting.free(was.site, was.size);
    };
    if let Some(cell) = walk::cell(number) {
        cell.freed_in.store(header.epoch.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        cell.counters.add_free_shared(was.size as u64);
    }
}

/// The caller and the size with which the library counts an allocation. If a pending entry point has called
/// the current entry point, the function returns the caller and the size of the pending entry point. If no
/// pending entry point has called the current entry point, the function returns the caller and the size of
/// the current entry point.
fn attribute(
    tls: &mut thread::Tls,
    caller: *const usize,
    fp: usize,
    size: usize,
) -> (*const usize, usize, usize) {
    let pending = tls.pending;
    if pending.caller.is_null() {
        return (caller, fp, size);
    }
    thread_end_pending(tls);
    if caller >= pending.caller {
        // The stack frame of the pending entry point no longer exists, because an exception or longjmp has
        // ended that entry point. So the pending entry point has not called the current entry point.
        return (caller, fp, size);
    }
    let asked = if size.wrapping_sub(pending.size) <= pending.slack { pending.size } else { size };
    (pending.caller, pending.fp, asked)
}

/// Makes the pending entry point of this thread no longer pending, and restores the thread's `offset`.
pub(crate) fn thread_end_pending(tls: &mut thread::Tls) {
    tls.offset = tls.hidden_offset.into();
    tls.hidden_offset = 0;
    tls.pending.caller = ptr::null();
}

/// Frees an allocation in the cases that the fast path does not handle.
///
/// # Safety
/// The target passed `allocation`.
#[cold]
#[inline(never)]
pub(crate) unsafe fn free(allocation: *mut u8) {
    if real::in_arena(allocation) {
        return real::arena_freed(); // the arena never frees its memory
    }
    if !phase::is_off() {
        // SAFETY: the caller guarantees that the target passed `allocation`.
        unsafe { free_counted(allocation) };
    }
    // SAFETY: this is the target's own call, with its own arguments.
    unsafe { real::free(allocation) }
}

/// Counts the free of an allocation, before the real free.
///
/// # Safety
/// See [`free`].
#[inline(never)]
unsafe fn free_counted(allocation: *mut u8) {
    // SAFETY: the caller guarantees that the target passed `allocation`.
    let was = unsafe { take(allocation) };
    count_taken(was);
}

/// Removes from the side table an allocation that the target will free or move. Returns the removed
/// allocation.
///
/// # Safety
/// The target passed `allocation`.
pub(crate) unsafe fn take(allocation: *mut u8) -> Option<Allocation> {
    let header = phase::header()?;
    let was = live::take(allocation);
    match was {
        Some(was) if was.special && (was.site as usize) < MAX_SITES => modules::freed(header, allocation),
        None if !allocation.is_null() && !real::in_arena(allocation) && !is_expected_free(allocation) => {
            bump(&header.unknown_frees);
        }
        _ => {}
    }
    was
}

/// Removes an allocation from the side table before a detoured function frees or moves it. Returns the
/// removed allocation. An address that is not in the side table is no error: the allocator may have returned
/// the address before its functions had detours.
pub(crate) fn take_known(allocation: *mut u8) -> Option<Allocation> {
    let header = phase::header()?;
    let was = live::take(allocation);
    if was.is_some_and(|was| was.special && (was.site as usize) < MAX_SITES) {
        modules::freed(header, allocation);
    }
    was
}

/// Whether the library should not report the free of an address that is not in the side table. The free is
/// expected if an outer entry point has already counted the free, or if the program's own allocator
/// returned the address before the functions of this allocator had detours.
fn is_expected_free(allocation: *mut u8) -> bool {
    let here = 0u8;
    is_being_deleted(allocation)
        || real::is_programs()
        // SAFETY: in this statement, no other reference to the current thread's state exists.
        || inside::is_inside(unsafe { thread::tls() }, (&raw const here) as usize)
}

/// Whether a running operator delete of this thread has already counted this allocation as freed.
fn is_being_deleted(allocation: *mut u8) -> bool {
    // SAFETY: at this point, no other reference to the current thread's state exists.
    unsafe { thread::tls() }.deleting == allocation
}

/// The first part of realloc, in the cases that the fast path does not handle. Returns the new allocation or
/// null.
///
/// # Safety
/// The target passed `old`.
#[cold]
#[inline(never)]
pub(crate) unsafe fn reallocate(old: *mut u8, size: usize) -> *mut u8 {
    let session = phase::session();
    // SAFETY: the target passed `old`; the side table has no entry for null and unknown addresses.
    let was = unsafe { take(old) };
    // SAFETY: this is the target's own call, with its own arguments.
    let new = unsafe { real::realloc_any(old, size) };
    // A new session may have begun during the real realloc. A new session does not know allocations that
    // were counted in an older session.
    let was = was.filter(|_| phase::session() == session);
    // SAFETY: the target passed `old`, and `was` was taken before the real call.
    unsafe { reallocated(old, was, new, size) }
}

/// Does the same as [`reallocated`], for an allocation that the fast path removed from the side table.
/// `before` is the address of the thread's counters at the time of this removal.
///
/// # Safety
/// As for [`reallocated`].
#[cold]
#[inline(never)]
pub(crate) unsafe fn reallocated_after(
    before: *const Counters,
    old: *mut u8,
    was: Allocation,
    new: *mut u8,
    size: usize,
) -> *mut u8 {
    // The removed allocation belongs to the attached session if the thread's counters are still at the
    // address `before`, or if this process is a forked child whose page of counters the kernel has set to
    // 0. Otherwise, another session began during the real realloc.
    let is_same = thread::counters() == before || thread::is_wiped();
    // SAFETY: the target passed `old`, and `was` was taken before the real call.
    unsafe { reallocated(old, is_same.then_some(was), new, size) }
}

/// Counts the free of the old allocation, unless the real realloc has failed. Returns the new allocation,
/// which the caller must still note.
///
/// # Safety
/// The target passed `old`, and the caller took `was` before the real call.
#[cold]
#[inline(never)]
pub(crate) unsafe fn reallocated(
    old: *mut u8,
    was: Option<Allocation>,
    new: *mut u8,
    size: usize,
) -> *mut u8 {
    if new.is_null() && size != 0 {
        // SAFETY: realloc has failed, so the block at `old` is still allocated, and this thread may note it
        // again.
        unsafe { restore(old, was) };
    } else {
        count_taken(was); // a null `new` means that `old` was freed
    }
    new
}

/// Notes an allocation again after the realloc of this allocation has failed.
///
/// # Safety
/// This thread removed `allocation` from the side table and did not free it.
#[cold]
pub(crate) unsafe fn restore(allocation: *mut u8, was: Option<Allocation>) {
    if let Some(was) = was {
        // The allocation was in this leaf before, so the leaf exists and the insertion cannot fail.
        let _ = live::insert(allocation, was);
    }
}

/// Counts the free of an allocation that `take` has removed from the side table.
pub(crate) fn count_taken(was: Option<Allocation>) {
    let Some(was) = was else { return };
    let Some(header) = phase::header() else { return };
    // SAFETY: at this point, no other reference to the current thread's state exists.
    let counting = thread::counting(header, unsafe { thread::tls() });
    count_free(header, counting, was);
}
