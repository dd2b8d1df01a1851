//! COLD: the place of a thread's ID in the data of libc's threads.
#![allow(unsafe_code)]

use crate::arch;
use crate::cold::{real, sys};
use core::sync::atomic::{AtomicUsize, Ordering};

const UNKNOWN_OFFSET: usize = usize::MAX;
static OFFSET: AtomicUsize = AtomicUsize::new(UNKNOWN_OFFSET);

/// The offset of the thread ID from the thread pointer in libc's data, in bytes. On the main thread, the
/// function reads the number at the offset that glibc or musl uses, and compares it with the thread's ID.
/// 0: the number is not the thread's ID, or the current thread is not the main thread.
pub(super) fn offset() -> usize {
    let known = OFFSET.load(Ordering::Relaxed);
    if known != UNKNOWN_OFFSET {
        return known;
    }
    let (tid, pointer) = (sys::gettid(), arch::thread_pointer());
    if tid != sys::getpid() {
        return 0;
    }
    // With musl, do not read at glibc's offset of the thread ID: musl's control block of a thread may end
    // before this offset.
    let offset =
        if real::has_glibcs_threads() { arch::GLIBC_THREAD_ID_OFFSET } else { arch::MUSL_THREAD_ID_OFFSET };
    // SAFETY: the control block of glibc is over 2,000 bytes long, and the control block of musl is over 100
    // bytes long.
    let found = unsafe { ((pointer + offset) as *const u32).read_volatile() };
    let offset = if found == tid { offset } else { 0 };
    OFFSET.store(offset, Ordering::Relaxed);
    offset
}

/// Finds the offset of the thread ID in a library that was loaded into a running process. The thread that
/// loads the library need not be the main thread. For each thread, libc stored the thread ID when the thread
/// started.
#[cfg_attr(test, allow(dead_code))] // the test build has no constructor
pub(super) fn learn_late() {
    // SAFETY: a collector loads the library only into a running process with glibc, and glibc's control block
    // is over 2,000 bytes long.
    let found =
        unsafe { ((arch::thread_pointer() + arch::GLIBC_THREAD_ID_OFFSET) as *const u32).read_volatile() };
    let offset = if found == sys::gettid() { arch::GLIBC_THREAD_ID_OFFSET } else { 0 };
    OFFSET.store(offset, Ordering::Relaxed);
}
