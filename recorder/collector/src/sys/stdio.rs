//! Keeps standard descriptors closed for the target if they were closed when edleak-record started. Rust's
//! runtime opens /dev/null in their place.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// One bit for each of the three descriptors.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

/// Runs before Rust's runtime, so it cannot be part of `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

extern "C" fn note() {
    // SAFETY: only reads the descriptor's flags.
    let is_closed = |fd: &libc::c_int| unsafe { libc::fcntl(*fd, libc::F_GETFD) } < 0;
    let closed = (0..3).filter(is_closed).fold(0, |bits, fd| bits | 1 << fd);
    CLOSED_AT_START.store(closed, Ordering::Relaxed);
}

/// Closes these descriptors again, in a forked child. Async-signal-safe.
pub(crate) fn restore() {
    let closed = CLOSED_AT_START.load(Ordering::Relaxed);
    for fd in (0..3).filter(|fd| closed & (1 << fd) != 0) {
        // SAFETY: this is /dev/null, and no code in this child uses it.
        unsafe { libc::close(fd) };
    }
}
