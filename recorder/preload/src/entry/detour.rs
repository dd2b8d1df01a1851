//! The hooks of those detoured functions that need more than the fast path: realloc and similar functions,
//! posix_memalign, xallocx, and frees that the fast path does not count.
#![allow(unsafe_code)]

use crate::arch::note;
use crate::cold::inside::is_inside;
use crate::cold::{phase, slow};
use crate::hot::live::Allocation;
use crate::hot::thread;
use edleak_session::detour::Hook;

/// The arguments and the state of one call of a trampoline. `arch::detour` builds this object on the stack.
#[repr(C)]
pub(crate) struct Call {
    /// The old allocation, which the hook has removed from the side table before the call.
    taken: Option<Allocation>,
    /// The arguments of the detoured function.
    pub(crate) arguments: [usize; 6],
    /// The size that the program requested.
    pub(crate) size: usize,
    /// The address of the old allocation; for posix_memalign: the address at which the function stores the
    /// address of the new allocation.
    pub(crate) pointer: *mut u8,
    /// The address of the trampoline.
    pub(crate) trampoline: usize,
    padding: [usize; PADDING],
    /// The number of a [`Hook`].
    pub(crate) kind: usize,
    /// The return address of the detoured function, which lies in the caller.
    caller: usize,
}
const PADDING: usize = (size_of::<Option<Allocation>>() / 8 + 9) % 2;

const POSIX_MEMALIGN: usize = Hook::PosixMemalign as usize;
const REALLOCATE_OR_FREE: usize = Hook::ReallocateOrFree as usize;
const RESIZE: usize = Hook::Resize as usize;

/// Runs before the hook calls the trampoline of `call`. `false`: the call is not counted.
///
/// # Safety
/// `call` points to a [`Call`] that `arch::detour` has built on its stack.
pub(crate) unsafe extern "C" fn begins(call: *mut Call) -> bool {
    // SAFETY: the caller guarantees that `call` points to a `Call` on its stack.
    let kind = unsafe { (*call).kind };
    // SAFETY: no other reference to this thread's state exists before `take_known`.
    if is_inside(unsafe { thread::tls() }, call as usize) {
        return false;
    }
    let taken = if kind == POSIX_MEMALIGN {
        None
    } else {
        // SAFETY: the target passes this address to its allocator. `take_known` removes only addresses that
        // are in the side table, so `take_known` ignores null.
        slow::take_known(unsafe { (*call).pointer })
    };
    // SAFETY: the caller guarantees that `call` points to a `Call` on its stack.
    let place = unsafe { &raw mut (*call).taken };
    // SAFETY: the caller guarantees that `call` points to a `Call` on its stack. The old value of `taken`
    // needs no drop.
    unsafe { place.write(taken) };
    // SAFETY: no other reference to this thread's state exists from here on.
    thread::enter(unsafe { thread::tls() }, call as usize);
    true
}

/// Runs after the trampoline has returned `result`. Returns the value that the hook then returns to the
/// caller of the detoured function.
///
/// # Safety
/// The safety requirement of [`begins`] holds for `call`, and [`begins`] has returned `true` for `call`.
/// `frame_pointer` is the caller's frame pointer.
pub(crate) unsafe extern "C" fn ends(call: *mut Call, result: usize, frame_pointer: usize) -> usize {
    // SAFETY: no other reference to this thread's state exists in this statement.
    thread::leave(unsafe { thread::tls() });
    // SAFETY: the caller guarantees that `call` points to a `Call` on its stack.
    let call = unsafe { &mut *call };
    let taken = call.taken.take();
    let (allocation, size) = match call.kind {
        POSIX_MEMALIGN if result as u32 != 0 => return result,
        // SAFETY: the function has succeeded, so it has stored the allocation at `call.pointer`.
        POSIX_MEMALIGN => (unsafe { *call.pointer.cast::<*mut u8>() }, call.size),
        RESIZE => {
            let [_, size, extra, ..] = call.arguments;
            let is_known = taken.is_some();
            if result < size {
                // SAFETY: this thread removed the allocation from the side table, and the detoured function
                // did not change the allocation.
                unsafe { slow::restore(call.pointer, taken) };
                return result;
            }
            slow::count_taken(taken);
            if !is_known {
                return result; // the allocation is older than the detours, so no site counts it
            }
            (call.pointer, result.min(size.saturating_add(extra)))
        }
        kind => {
            let new = result as *mut u8;
            if new.is_null() && call.size != 0 && kind != REALLOCATE_OR_FREE {
                // SAFETY: this thread removed the allocation from the side table. The detoured function
                // failed, so the allocation is the same as before the call.
                unsafe { slow::restore(call.pointer, taken) };
                return result;
            }
            slow::count_taken(taken);
            if new.is_null() {
                return result;
            }
            (new, call.size)
        }
    };
    // SAFETY: the caller's frame still exists, and `frame_pointer` is its frame pointer.
    unsafe { note::note(allocation, size, &raw const call.caller, frame_pointer) };
    result
}

/// Counts a free that the fast path did not count.
///
/// # Safety
/// `allocation` is the address that the target frees.
#[cold]
pub(crate) unsafe extern "C" fn free_slow(allocation: *mut u8) {
    if !phase::is_off() {
        slow::count_taken(slow::take_known(allocation));
    }
}
