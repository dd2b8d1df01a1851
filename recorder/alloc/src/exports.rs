//! The functions that edleak.h and edleak-annotate call: this crate defines these functions for a static
//! program. In any other program, the preload library defines the same functions.
#![allow(unsafe_code)]

use crate::arch::stubs;
use crate::cold::marks;
use crate::entry::pool;

/// `edleak_set_mark`: sets a mark.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn edleak_set_mark(name: *const u8) {
    // SAFETY: the caller guarantees that `name` is null or a C string.
    unsafe { marks::on_mark(name) }
}

/// `edleak_note_pool`: notes an operation of a pool.
///
/// # Safety
/// The caller keeps the contract of edleak.h.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn edleak_note_pool(
    operation: u32,
    pool: usize,
    address: usize,
    size: usize,
    caller: usize,
) {
    stubs::jump_with_caller!(pool::on_pool; operation pool address size caller)
}
