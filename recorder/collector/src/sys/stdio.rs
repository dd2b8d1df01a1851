//! Keeps standard descriptors closed for the target if they were closed when edleak-record started. Rust's
//! runtime opens /dev/null in their place.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// The descriptors that were closed at the start: one bit for each of the three standard descriptors.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

/// This function runs before Rust's runtime, so it cannot be part of `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

extern "C" fn note() {
    // SAFETY: the call only reads the descriptor's flags.
    let is_closed = |fd: &libc::c_int| unsafe { libc::fcntl(*fd, libc::F_GETFD) } < 0;
    let closed = (0..3).filter(is_closed).fold(0, |bits, fd| bits | 1 << fd);
    CLOSED_AT_START.store(closed, Ordering::Relaxed);
}

/// Closes these standard descriptors again, in a forked child. The function is async-signal-safe.
pub(crate) fn restore() {
    let closed = CLOSED_AT_START.load(Ordering::Relaxed);
    for fd in (0..3).filter(|fd| closed & (1 << fd) != 0) {
        // SAFETY: the descriptor is /dev/null, and no code in this child uses it.
        unsafe { libc::close(fd) };
    }
}
