//! HOT: the steps of [`crate::Counted`] that count.
//!
//! Files of the preload library do the work (src/shared). There, an entry point calls the real function
//! itself. Here the wrapped allocator has run already or runs next, so the library's calls of the real
//! functions do nothing ([`crate::cold::real`]).
#![allow(unsafe_code)]

use crate::arch::stubs;
use crate::cold::{decision, lifecycle, slow};
use crate::hot::free;
use crate::hot::live::Allocation;
use edleak_session::header::Header;

/// Whether the decision was made that this process never counts. One comparison, for the path of an
/// unrecorded program.
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
        lifecycle::start();
    }
    is_plain
}

/// Counts a new allocation and returns it. The caller of this function is the direct caller in the trace;
/// edleak steps over it.
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
    // SAFETY: the caller guarantees the allocation; the real free of this crate does nothing.
    unsafe { free::on_free(allocation) }
}

/// An allocation that a realloc may move, taken out of the side table.
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
    let session = lifecycle::session();
    // SAFETY: the caller guarantees the allocation.
    Taken { was: unsafe { slow::take(old) }, session }
}

/// Counts the free of a moved allocation. If the realloc failed, puts the allocation back.
///
/// # Safety
/// `taken` is `old`, and the wrapped allocator has returned `new` for it.
#[inline(never)]
pub(crate) unsafe fn moved(old: *mut u8, taken: Taken, new: *mut u8, size: usize) {
    // The wrapped allocator may take long. An allocation of the last session is unknown in the next session.
    let was = taken.was.filter(|_| lifecycle::session() == taken.session);
    // SAFETY: the caller guarantees both addresses.
    unsafe { slow::reallocated(old, was, new, size.max(1)) };
}
