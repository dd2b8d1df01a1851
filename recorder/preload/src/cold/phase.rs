//! COLD and HOT: the phase of this process, and the session to which this process is attached or was attached
//! last.
//!
//! Every entry point asks this file whether it must count, and in which session. In three situations, the
//! library must first change the phase: at the first call of an entry point, after a collector has begun or
//! ended a recording, and in a forked child. `lifecycle` changes the phase, and uses almost
//! every other file of the library to do so. So this file declares the three functions of `lifecycle` as
//! symbols and does not use `lifecycle`. A file that uses `phase` can be read without `lifecycle`.
#![allow(unsafe_code)]

use crate::cold::claim::{CHILDREN, own_number};
use crate::hot::tables::TABLES;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use edleak_session::header::Header;
use edleak_session::idle::{COUNTING, NEW};

unsafe extern "C" {
    /// `lifecycle::start`: starts the library.
    safe fn edleak_start();
    /// `lifecycle::uncounted`: begins or ends a recording if a collector has asked for it. Returns the same
    /// as [`header`].
    safe fn edleak_uncounted(phase: u32) -> Option<&'static Header>;
    /// `lifecycle::forked`: gives a forked child its own session, or ends the counting in the child. Returns
    /// the same as [`header`].
    safe fn edleak_forked() -> Option<&'static Header>;
}

/// The phase in which the library counts nothing in this process.
pub(crate) const OFF: u32 = edleak_session::idle::OFF;
/// The phase of this process. Entry stubs compare the phase with [`OFF`].
pub(crate) static PHASE: AtomicU32 = AtomicU32::new(NEW);
static HEADER: AtomicPtr<Header> = AtomicPtr::new(ptr::null_mut());
/// Size in bytes of the mapping at [`HEADER`].
static SESSION_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Starts the preload library once. If another thread is already starting the library, `start` returns
/// immediately, and the library does not count the allocation of the calling thread.
#[inline]
pub(crate) fn start() {
    if PHASE.load(Ordering::Relaxed) == NEW {
        start_slow();
    }
}

#[cold]
fn start_slow() {
    edleak_start();
}

/// Whether this process counts nothing now. In a process that is not recorded, edleak adds only the test of
/// the phase to each call of an entry point.
#[inline(always)]
pub(crate) fn is_off() -> bool {
    PHASE.load(Ordering::Relaxed) == OFF
}

/// The header of the attached session; `None`: the library counts nothing in this process.
#[inline]
pub(crate) fn header() -> Option<&'static Header> {
    let phase = PHASE.load(Ordering::Acquire);
    if phase != COUNTING {
        return uncounted(phase);
    }
    if TABLES.page.alive.load(Ordering::Relaxed) == 0 {
        return forked();
    }
    // SAFETY: the library sets the pointer before it sets the phase, and the last two sessions stay mapped.
    Some(unsafe { &*HEADER.load(Ordering::Relaxed) })
}

#[cold]
fn uncounted(phase: u32) -> Option<&'static Header> {
    if phase == OFF { None } else { edleak_uncounted(phase) }
}

#[cold]
fn forked() -> Option<&'static Header> {
    edleak_forked()
}

/// Works as [`header`], but for calls that only unmap memory. In a forked child that is not recorded, a call
/// that only unmaps memory does not count as use of memory.
pub(crate) fn header_unless_unrecorded_child() -> Option<&'static Header> {
    let is_child =
        PHASE.load(Ordering::Acquire) == COUNTING && TABLES.page.alive.load(Ordering::Relaxed) == 0;
    if is_child && CHILDREN.path().is_none() { None } else { header() }
}

/// The session that is attached or was attached last; null: this process never had a session.
pub(crate) fn session() -> *mut Header {
    HEADER.load(Ordering::Relaxed)
}

/// The header of [`session`]; `None`: this process never had a session.
pub(super) fn last_header() -> Option<&'static Header> {
    // SAFETY: the last two sessions stay mapped, and a session begins with its header.
    unsafe { session().as_ref() }
}

/// Size in bytes of the mapping of [`session`].
pub(super) fn session_bytes() -> usize {
    SESSION_BYTES.load(Ordering::Relaxed)
}

/// Stores the address and the size in bytes of the session to which this process now belongs. `idle` keeps
/// this session and the session before it mapped.
pub(super) fn set_session(header: *mut Header, bytes: usize) {
    HEADER.store(header, Ordering::Relaxed);
    SESSION_BYTES.store(bytes, Ordering::Relaxed);
}

/// Whether a session belongs to this process. In a forked child, the session of the parent is also mapped.
pub(super) fn is_of_this_process(session: *mut Header) -> bool {
    // SAFETY: the session is mapped, and the first page of a session keeps its content.
    !session.is_null() && unsafe { &*session }.pid.load(Ordering::Relaxed) == own_number()
}
