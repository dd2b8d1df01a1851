//! Remembers which of stdin, stdout and stderr were closed when edleak-record started. If one of these three
//! descriptors is closed, Rust's runtime opens /dev/null in its place, so edleak-record closes the descriptor
//! again in the target.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// The standard descriptors that were closed when edleak-record started: one bit for each of the three
/// descriptors.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

/// The loader calls this function before Rust's runtime starts. A call from `main` would be too late, because
/// Rust's runtime opens /dev/null before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

extern "C" fn note() {
    // SAFETY: the call only reads the descriptor's flags.
    let is_closed = |fd: &libc::c_int| unsafe { libc::fcntl(*fd, libc::F_GETFD) } < 0;
    let closed = (0..3).filter(is_closed).fold(0, |bits, fd| bits | 1 << fd);
    CLOSED_AT_START.store(closed, Ordering::Relaxed);
}

/// Closes the standard descriptors that were closed when edleak-record started. The forked child calls this
/// function, so the function must be async-signal-safe.
pub(crate) fn restore() {
    let closed = CLOSED_AT_START.load(Ordering::Relaxed);
    for fd in (0..3).filter(|fd| closed & (1 << fd) != 0) {
        // SAFETY: the descriptor is /dev/null, and no code in this child uses it.
        unsafe { libc::close(fd) };
    }
}
