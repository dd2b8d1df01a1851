//! COLD: everything the fast path left out, without haste: first calls, large sizes, callers without a word, threads without a shard,
//! entry points inside entry points, forked children, unknown addresses.
#![allow(unsafe_code)]

use crate::cold::sites::{self, Frame, bump};
use crate::cold::{lifecycle, modules, real};
use crate::hot::live::{self, Allocation};
use crate::hot::{thread, walk};
use core::ptr;
use core::sync::atomic::Ordering;
use edleak_session::header::Header;
use edleak_session::site::{Action, MAX_SITES, OTHER};

/// Notes an allocation that the fast path did not and hands it on.
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
    // Nothing is saved on the stack before this test: a process that is not recorded makes it at each call.
    if lifecycle::is_off() {
        return allocation;
    }
    // SAFETY: as the caller says.
    unsafe { note_counted(allocation, size, caller, fp) }
}

/// [`note`] in a process that is recorded, or may be.
///
/// # Safety
/// See [`note`].
#[inline(never)]
unsafe fn note_counted(allocation: *mut u8, size: usize, caller: *const usize, fp: usize) -> *mut u8 {
    let Some(header) = lifecycle::header() else { return allocation };
    // SAFETY: the only reference to this thread's state from here on.
    let tls = unsafe { thread::tls() };
    let (caller, fp, size) = attribute(tls, caller, fp, size);
    if allocation.is_null() {
        return allocation;
    }
    let counting = thread::counting(header, tls);
    // SAFETY: the stub's frame, or that of the entry point around it, which is still under way.
    let frame = unsafe { Frame::of_caller(caller, fp) };
    // SAFETY: as above.
    let place = unsafe { sites::place(header, frame) };
    let mut noted = Allocation { site: place.site, size, special: false };
    let mut cell = None;
    match place.action {
        Action::LOADER => noted.special = true,
        Action::WATCH => {
            // SAFETY: the frame of the site, further up on this stack.
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
            // Someone freed the allocation before this one behind our back; it is gone all the same.
            if let Some(stale) = stale {
                count_free(header, counting, stale);
            }
            match cell {
                Some(cell) => cell.counters.add_shared(size as u64),
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

/// Counts everything that is alive in a forked child as allocated: it was the parent's, and the child will free it. An
/// allocation of a watched site is counted at the site, since its stack is known to the parent's session only.
///
/// # Safety
/// `parents` are the tables of the parent's session, which is still mapped.
pub(crate) unsafe fn inherit(header: &Header, parents: &walk::Tables) {
    // SAFETY: the only reference to this thread's state here.
    let counting = thread::counting(header, unsafe { thread::tls() });
    live::for_each(|address, mut allocation| {
        if let Some(number) = allocation.site.checked_sub(MAX_SITES as u32) {
            // SAFETY: as the caller says.
            let site = unsafe { parents.site_of(number) }.unwrap_or(OTHER);
            allocation = Allocation { site, special: false, ..allocation };
            // Its leaf is there; nothing can fail.
            let _ = live::insert(address, allocation);
        }
        counting.alloc(allocation.site, allocation.size);
    });
}

/// Counts a free where its allocation was counted.
fn count_free(header: &Header, counting: thread::Counting, was: Allocation) {
    let Some(number) = was.site.checked_sub(MAX_SITES as u32) else {
        return counting.free(was.site, was.size);
    };
    if let Some(cell) = walk::cell(number) {
        cell.freed_in.store(header.epoch.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        cell.counters.sub_shared(was.size as u64);
    }
}

/// Who asked, and for how much: the entry point around this one, if one is under way, else this one's own caller.
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
        // Its frame is gone: an exception or longjmp left it. It has nothing to do with this call.
        return (caller, fp, size);
    }
    let asked = if size.wrapping_sub(pending.size) <= pending.slack { pending.size } else { size };
    (pending.caller, pending.fp, asked)
}

/// Ends the entry point under way on this thread.
pub(crate) fn thread_end_pending(tls: &mut thread::Tls) {
    tls.offset = tls.hidden_offset;
    tls.hidden_offset = 0;
    tls.pending.caller = ptr::null();
}

/// free, when the fast path did not know what to do.
///
/// # Safety
/// `allocation` is what the target passed.
#[cold]
#[inline(never)]
pub(crate) unsafe fn free(allocation: *mut u8) {
    if real::in_arena(allocation) {
        return; // memory of ours, from before the real malloc was known
    }
    if !lifecycle::is_off() {
        // SAFETY: as the caller says.
        unsafe { free_counted(allocation) };
    }
    // SAFETY: the target's own call.
    unsafe { real::free(allocation) }
}

/// Counts the free of an allocation, ahead of it.
///
/// # Safety
/// See [`free`].
#[inline(never)]
unsafe fn free_counted(allocation: *mut u8) {
    // SAFETY: as the caller says.
    let was = unsafe { take(allocation) };
    count_taken(was);
}

/// Forgets an allocation that is about to be freed or moved, and tells what it was.
///
/// # Safety
/// `allocation` is what the target passed.
pub(crate) unsafe fn take(allocation: *mut u8) -> Option<Allocation> {
    let header = lifecycle::header()?;
    let was = live::take(allocation);
    match was {
        Some(was) if was.special && (was.site as usize) < MAX_SITES => modules::freed(header, allocation),
        None if !allocation.is_null() && !real::in_arena(allocation) && !is_being_deleted(allocation) => {
            bump(&header.unknown_frees);
        }
        _ => {}
    }
    was
}

/// An operator delete under way on this thread has counted this one as freed already.
fn is_being_deleted(allocation: *mut u8) -> bool {
    // SAFETY: the only reference to this thread's state here.
    unsafe { thread::tls() }.deleting == allocation
}

/// realloc up to the new allocation, when the fast path did not know what to do.
///
/// # Safety
/// `old` is what the target passed.
#[cold]
#[inline(never)]
pub(crate) unsafe fn reallocate(old: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: null and unknown addresses are nobody's.
    let was = unsafe { take(old) };
    // SAFETY: the target's own call.
    let new = unsafe { real::realloc_any(old, size) };
    // SAFETY: as the caller says.
    unsafe { reallocated(old, was, new, size) }
}

/// Counts what a real realloc has taken, unless it has failed, and hands on what it gave, which is yet to be noted.
///
/// # Safety
/// As for [`reallocate`]; `was` was taken before the real call.
#[cold]
#[inline(never)]
pub(crate) unsafe fn reallocated(
    old: *mut u8,
    was: Option<Allocation>,
    new: *mut u8,
    size: usize,
) -> *mut u8 {
    if new.is_null() && size != 0 {
        // SAFETY: the call failed, so `old` is still an allocation of this thread's to speak for.
        unsafe { restore(old, was) };
    } else {
        count_taken(was); // a null `new` was a free
    }
    new
}

/// Makes an allocation alive again whose realloc failed.
///
/// # Safety
/// `allocation` was taken by this thread and not freed.
#[cold]
unsafe fn restore(allocation: *mut u8, was: Option<Allocation>) {
    if let Some(was) = was {
        // Its leaf is there, since it was noted in it; nothing can fail.
        let _ = live::insert(allocation, was);
    }
}

/// Counts an allocation that `take` returned as freed.
pub(crate) fn count_taken(was: Option<Allocation>) {
    let Some(was) = was else { return };
    let Some(header) = lifecycle::header() else { return };
    // SAFETY: the only reference to this thread's state here.
    let counting = thread::counting(header, unsafe { thread::tls() });
    count_free(header, counting, was);
}
