//! COLD: whether a detoured function runs on the current thread. While a detoured function runs, its thread
//! is *inside*, and the entry points that the function calls count nothing.
#![allow(unsafe_code)]

use crate::arch;
use crate::hot::thread::{self, Tls};
use core::mem::transmute;

/// Whether a detoured function is running on this thread and has called the current entry point. `sp` is
/// the stack pointer of the current entry point. If an exception has left the detoured function,
/// `is_inside` clears the field `inside` of the thread.
pub(crate) fn is_inside(tls: &mut Tls, sp: usize) -> bool {
    if tls.inside == 0 {
        return false;
    }
    let depth = tls.inside.wrapping_sub(sp);
    if sp < tls.inside && depth < arch::inside::DEPTH {
        // SAFETY: `inside` is less than `DEPTH` above `sp`, so the word just below `inside` lies on this
        // thread's stack.
        let returns_to = unsafe { *((tls.inside - 8) as *const usize) };
        if arch::inside::return_addresses().contains(&returns_to) {
            return true;
        }
    }
    thread::leave(tls);
    false
}

/// Calls `function`, a function of the program's own allocator. The thread's field `inside` is set during
/// the call, so that the library does not count inner calls. If `inside` is already set, `function` itself
/// has called the current entry point. The library then calls `next`, which is the next definition after
/// the preload library.
///
/// # Safety
/// `function` and `next` take the arguments `first` and `second`.
pub(crate) unsafe fn call_or_next(
    function: *const (),
    next: *const (),
    first: usize,
    second: usize,
) -> *mut u8 {
    let here = 0u8;
    // SAFETY: no other reference to this thread's state exists in this statement.
    if is_inside(unsafe { thread::tls() }, (&raw const here) as usize) {
        // SAFETY: the caller guarantees that the function takes these two arguments.
        let next: unsafe extern "C" fn(usize, usize) -> *mut u8 = unsafe { transmute(next) };
        // SAFETY: the caller guarantees that `next` takes these arguments.
        return unsafe { next(first, second) };
    }
    // SAFETY: the caller guarantees that `function` takes these arguments.
    unsafe { arch::inside::call_inside(function, first, second) }
}
