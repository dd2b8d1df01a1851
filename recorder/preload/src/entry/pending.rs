//! COLD: counts each allocation once if an entry point calls another entry point.
//!
//! musl's posix_memalign calls aligned_alloc, and libstdc++'s operator new calls malloc, but jemalloc's
//! operator new does not call malloc. So while posix_memalign, operator new or a similar real function
//! runs, its caller is *pending*. The first entry point that allocates inside the real function counts the
//! allocation for the pending caller. If no inner entry point allocates, the outer entry point counts the
//! allocation itself. So edleak counts every allocation once, at the caller of the outer entry point.
//!
//! The real operator new may throw an exception, so `arch::call_new` calls it from a frame in assembly. This
//! file has the functions that run in this frame before and after the real operator new.
#![allow(unsafe_code)]

use crate::arch::note;
use crate::cold::symbols::Lazy;
use crate::cold::{inside, phase, real, slow};
use crate::hot::thread;
use core::ffi::c_void;

/// Calls a real function that returns an allocation or null, and counts the allocation once.
pub(super) unsafe fn counted(
    size: usize,
    slack: usize,
    caller: *const usize,
    fp: usize,
    call: impl FnOnce() -> *mut u8,
) -> *mut u8 {
    phase::start();
    let outermost = begin(size, slack, caller, fp);
    let allocation = call();
    if outermost && !end(caller) {
        return allocation; // an inner entry point has counted the allocation
    }
    // SAFETY: `caller` and `fp` come from the stub.
    unsafe { note::note(allocation, size, caller, fp) }
}

/// Makes `caller` pending: the first inner entry point that allocates counts the allocation for `caller`.
/// `false`: another caller is pending already, or this process counts nothing.
fn begin(size: usize, slack: usize, caller: *const usize, fp: usize) -> bool {
    if phase::header().is_none() {
        return false;
    }
    // SAFETY: in this call, no other reference to the current thread's state exists.
    let tls = unsafe { thread::tls() };
    if inside::is_inside(tls, caller as usize) {
        return false;
    }
    if !tls.pending.caller.is_null() {
        if caller < tls.pending.caller {
            return false;
        }
        slow::thread_end_pending(tls); // the pending caller's frame no longer exists
    }
    tls.hidden_offset = tls.offset as u16;
    tls.offset = 0;
    tls.pending = thread::Pending { caller, fp, size, slack };
    true
}

/// Makes the caller no longer pending, after `begin` has made it pending. `false`: an inner entry point has
/// already counted the allocation for this caller.
fn end(caller: *const usize) -> bool {
    // SAFETY: in this call, no other reference to the current thread's state exists.
    let tls = unsafe { thread::tls() };
    let unconsumed = tls.pending.caller == caller;
    if unconsumed {
        slow::thread_end_pending(tls);
    }
    unconsumed
}

/// One form of operator new, such as the form with an alignment.
pub(crate) struct Form {
    pub(super) real: Lazy,
    pub(super) takes_align: bool,
}

/// The arguments of a call of a real operator new. `arch::call_new` stores these arguments on its stack.
#[repr(C)]
pub(crate) struct NewCall {
    pub(crate) size: usize,
    pub(crate) second: usize,
    pub(crate) third: usize,
    pub(crate) caller: *const usize,
    pub(crate) fp: usize,
    pub(crate) form: *const Form,
    pub(crate) real_size: usize,
}

/// Makes the caller pending before a real operator new runs. Returns the address of the operator.
///
/// # Safety
/// Only `edleak_call_new` calls this function.
#[cfg_attr(test, allow(dead_code))] // the test build has no assembly that calls it
pub(crate) unsafe extern "C" fn new_begins(call: *mut NewCall) -> *mut c_void {
    // SAFETY: `edleak_call_new` has stored `call` on its stack.
    let call = unsafe { &mut *call };
    // SAFETY: `call.form` is a form of the table in `operators`.
    let form = unsafe { &*call.form };
    let slack = if form.takes_align { call.second } else { 1 };
    call.real_size = real::spaced(call.size);
    let real = form.real.get();
    begin(call.size, slack, call.caller, call.fp);
    if real.is_null() { without_runtime as *mut c_void } else { real }
}

/// Makes the caller no longer pending, after [`new_begins`] has made it pending. Returns the allocation.
///
/// # Safety
/// Only `edleak_call_new` calls this function.
#[cfg_attr(test, allow(dead_code))] // the test build has no assembly that calls it
pub(crate) unsafe extern "C" fn new_ends(call: *const NewCall, allocation: *mut u8) -> *mut u8 {
    // SAFETY: `edleak_call_new` has stored `call` on its stack.
    let call = unsafe { &*call };
    // If glibc is the allocator and operator new has not called malloc, operator new took the memory from a
    // pool of the program. edleak counts the pool's own allocations when the pool makes them. An allocator
    // other than glibc's may have its own operator new that does not call malloc. If this operator new has
    // called no inner entry point, the hook counts the returned allocation here.
    if end(call.caller) && real::is_other() {
        // SAFETY: `caller` and `fp` come from the stub.
        return unsafe { note::note(allocation, call.size, call.caller, call.fp) };
    }
    allocation
}

// This function runs if the program calls operator new, but no library defines operator new. It returns
// memory from malloc; if malloc fails, it returns null and throws no exception.
unsafe extern "C" fn without_runtime(size: usize) -> *mut u8 {
    // SAFETY: malloc accepts any size.
    unsafe { real::malloc(size.max(1)) }
}
