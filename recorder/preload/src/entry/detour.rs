//! Hooks of detoured functions that do more than the fast path: realloc and its kin, posix_memalign, xallocx;
//! and unusual frees.
#![allow(unsafe_code)]

use crate::arch::{self, note};
use crate::cold::{lifecycle, slow};
use crate::hot::live::Allocation;
use crate::hot::thread::{self, Tls};
use core::mem::transmute;
use edleak_session::detour::{HOOKS, Hook};

/// The hooks, by number: what the table at the beginning of a module's stubs holds.
pub(crate) fn hooks() -> [usize; HOOKS] {
    let mut hooks = [0; HOOKS];
    let known: [(Hook, unsafe extern "C" fn()); 6] = [
        (Hook::Allocate, arch::detour::allocate),
        (Hook::PosixMemalign, arch::detour::posix_memalign),
        (Hook::Reallocate, arch::detour::reallocate),
        (Hook::ReallocateOrFree, arch::detour::reallocate_or_free),
        (Hook::Resize, arch::detour::resize),
        (Hook::Free, arch::detour::free),
    ];
    for (hook, function) in known {
        hooks[hook as usize] = function as usize;
    }
    hooks
}

/// A call of a trampoline, laid out on the stack by `arch::detour`.
#[repr(C)]
pub(crate) struct Call {
    /// The allocation that was taken before the call.
    taken: Option<Allocation>,
    /// The arguments of the function.
    pub(crate) arguments: [usize; 6],
    /// The requested size.
    pub(crate) size: usize,
    /// The old address, or the place of the new one.
    pub(crate) pointer: *mut u8,
    /// The function without its detour.
    pub(crate) trampoline: usize,
    padding: [usize; PADDING],
    /// A [`Hook`].
    pub(crate) kind: usize,
    /// The return address of the caller.
    caller: usize,
}
const PADDING: usize = (size_of::<Option<Allocation>>() / 8 + 9) % 2;

const POSIX_MEMALIGN: usize = Hook::PosixMemalign as usize;
const REALLOCATE_OR_FREE: usize = Hook::ReallocateOrFree as usize;
const RESIZE: usize = Hook::Resize as usize;

/// Whether this thread is inside a detoured function that an entry point at `sp` is called by. Ends a mark
/// that an exception has left.
pub(crate) fn is_inside(tls: &mut Tls, sp: usize) -> bool {
    if tls.inside == 0 {
        return false;
    }
    let depth = tls.inside.wrapping_sub(sp);
    if sp < tls.inside && depth < arch::detour::DEPTH {
        // SAFETY: so close above `sp` lies this thread's stack.
        let returns_to = unsafe { *((tls.inside - 8) as *const usize) };
        if arch::detour::return_addresses().contains(&returns_to) {
            return true;
        }
    }
    thread::leave(tls);
    false
}

/// Before the trampoline of [`Call`] is called. `false`: nothing is to be counted.
///
/// # Safety
/// `arch::detour` has laid out the call on its stack.
pub(crate) unsafe extern "C" fn begins(call: *mut Call) -> bool {
    // SAFETY: as the caller says.
    let kind = unsafe { (*call).kind };
    // SAFETY: the only reference to this thread's state up to `take_known`.
    if is_inside(unsafe { thread::tls() }, call as usize) {
        return false;
    }
    let taken = if kind == POSIX_MEMALIGN {
        None
    } else {
        // SAFETY: an address that the target passes to its allocator; unknown ones and null are not taken.
        slow::take_known(unsafe { (*call).pointer })
    };
    // SAFETY: as above.
    let place = unsafe { &raw mut (*call).taken };
    // SAFETY: as above. It holds nothing that would have to be dropped.
    unsafe { place.write(taken) };
    // SAFETY: the only reference to this thread's state from here on.
    thread::enter(unsafe { thread::tls() }, call as usize);
    true
}

/// After the trampoline has returned `result`. Returns what the function returns.
///
/// # Safety
/// See [`begins`], which has returned `true`; `rbp` is the caller's.
pub(crate) unsafe extern "C" fn ends(call: *mut Call, result: usize, rbp: usize) -> usize {
    // SAFETY: the only reference to this thread's state in this statement.
    thread::leave(unsafe { thread::tls() });
    // SAFETY: as the caller says.
    let call = unsafe { &mut *call };
    let taken = call.taken.take();
    let (allocation, size) = match call.kind {
        POSIX_MEMALIGN if result as u32 != 0 => return result,
        // SAFETY: on success the function has stored the allocation there.
        POSIX_MEMALIGN => (unsafe { *call.pointer.cast::<*mut u8>() }, call.size),
        RESIZE => {
            let [_, size, extra, ..] = call.arguments;
            let is_known = taken.is_some();
            if result < size {
                // SAFETY: this thread took it, and it is as it was.
                unsafe { slow::restore(call.pointer, taken) };
                return result;
            }
            slow::count_taken(taken);
            if !is_known {
                return result; // from before the detours, and nobody counts it
            }
            (call.pointer, result.min(size.saturating_add(extra)))
        }
        kind => {
            let new = result as *mut u8;
            if new.is_null() && call.size != 0 && kind != REALLOCATE_OR_FREE {
                // SAFETY: as above.
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
    // SAFETY: the frame of the caller is there, and rbp is its own.
    unsafe { note::note(allocation, size, &raw const call.caller, rbp) };
    result
}

/// A free that the fast path did not count.
///
/// # Safety
/// `allocation` is what the target frees.
#[cold]
pub(crate) unsafe extern "C" fn free_slow(allocation: *mut u8) {
    if !lifecycle::is_off() {
        slow::count_taken(slow::take_known(allocation));
    }
}

/// Calls a function of an allocator, inside, unless this thread is inside already: then `next`, which is what
/// the function finds behind itself.
///
/// # Safety
/// Both functions take these arguments.
pub(crate) unsafe fn call_or_next(
    function: *const (),
    next: *const (),
    first: usize,
    second: usize,
) -> *mut u8 {
    let here = 0u8;
    // SAFETY: the only reference to this thread's state in this statement.
    if is_inside(unsafe { thread::tls() }, (&raw const here) as usize) {
        // SAFETY: every function of malloc takes at most two arguments.
        let next: unsafe extern "C" fn(usize, usize) -> *mut u8 = unsafe { transmute(next) };
        // SAFETY: as the caller says.
        return unsafe { next(first, second) };
    }
    // SAFETY: as the caller says.
    unsafe { arch::detour::call_inside(function, first, second) }
}
