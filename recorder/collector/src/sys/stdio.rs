//! Standard descriptors that were closed when we were started: Rust's runtime opens /dev/null in their place,
//! and the target is to find them closed.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// A bit for each of the three.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

/// Before the runtime, which is why this is no part of `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

extern "C" fn note() {
    // SAFETY: only asks.
    let is_closed = |fd: &libc::c_int| unsafe { libc::fcntl(*fd, libc::F_GETFD) } < 0;
    let closed = (0..3).filter(is_closed).fold(0, |bits, fd| bits | 1 << fd);
    CLOSED_AT_START.store(closed, Ordering::Relaxed);
}

/// Closes them again, in a forked child. Async-signal-safe.
pub(crate) fn restore() {
    let closed = CLOSED_AT_START.load(Ordering::Relaxed);
    for fd in (0..3).filter(|fd| closed & (1 << fd) != 0) {
        // SAFETY: /dev/null, which nobody uses in this child.
        unsafe { libc::close(fd) };
    }
}
