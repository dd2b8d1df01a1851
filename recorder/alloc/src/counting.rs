//! HOT: the functions with which [`crate::Counted`] counts allocations and frees.
//!
//! The files of the preload library (src/shared) contain the code that counts. In the preload library, an
//! entry point calls the real malloc or free. In this crate, [`crate::Counted`] itself calls the wrapped
//! allocator, before or after it calls a function of this file. So the real malloc and free of this crate, in
//! [`crate::cold::real`], do nothing.
#![allow(unsafe_code)]

use crate::arch::stubs;
use crate::cold::{decision, phase, slow};
use crate::hot::free;
use crate::hot::live::Allocation;
use edleak_session::header::Header;

/// Whether the process has already decided that it never counts allocations. This function makes only one
/// comparison, because an unrecorded program calls it for each allocation and free.
#[inline(always)]
pub(crate) fn is_made_plain() -> bool {
    decision::is_made_plain()
}

/// Whether this process never counts.
#[inline(always)]
pub(crate) fn is_plain() -> bool {
    !decision::is_made_to_count() && decide()
}

#[cold]
#[inline(never)]
fn decide() -> bool {
    let is_plain = decision::is_plain();
    if !is_plain {
        phase::start();
    }
    is_plain
}

/// Counts a new allocation and returns its address. The function that calls `allocated` belongs to this
/// crate, so edleak skips the frame of that function to find the site.
///
/// # Safety
/// The wrapped allocator has just returned `allocation`, which may be null.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn allocated(allocation: *mut u8, size: usize) -> *mut u8 {
    stubs::jump_with_caller!(crate::arch::note::note; allocation size)
}

/// Counts a free, before the wrapped allocator frees the allocation.
///
/// # Safety
/// The program frees `allocation`.
#[inline(always)]
pub(crate) unsafe fn freed(allocation: *mut u8) {
    // SAFETY: the caller guarantees that the program frees `allocation`; the real free of this crate does
    // nothing.
    unsafe { free::on_free(allocation) }
}

/// An allocation that [`take`] removed from the side table, because a realloc may move the allocation.
pub(crate) struct Taken {
    was: Option<Allocation>,
    session: *mut Header,
}

/// Takes an allocation out of the side table before the wrapped allocator moves it.
///
/// # Safety
/// The program passes `old` to realloc.
#[inline(never)]
pub(crate) unsafe fn take(old: *mut u8) -> Taken {
    let session = phase::session();
    // SAFETY: the caller guarantees that the program passes `old` to realloc.
    Taken { was: unsafe { slow::take(old) }, session }
}

/// Counts the free of an allocation that a realloc moved. If the realloc failed, the function puts the
/// allocation back into the side table.
///
/// # Safety
/// `taken` is the result of `take(old)`, and the wrapped allocator has returned `new` for `old`.
#[inline(never)]
pub(crate) unsafe fn moved(old: *mut u8, taken: Taken, new: *mut u8, size: usize) {
    // If a new recording session began while the wrapped allocator ran, ignore the old allocation, because a
    // new session does not know allocations that an older session counted.
    let was = taken.was.filter(|_| phase::session() == taken.session);
    // SAFETY: the caller guarantees that `new` is the result of the realloc of `old`.
    unsafe { slow::reallocated(old, was, new, size.max(1)) };
}
