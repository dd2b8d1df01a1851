//! COLD: reads the name of a mark or of a pool, which the program gives as a C string.
#![allow(unsafe_code)]

use core::slice;
use edleak_session::mark::{EMPTY_HASH, GivenName, MAX_NAME_BYTES, mix};

/// The name in a C string, shortened to at most [`MAX_NAME_BYTES`] bytes, and the hash of the name.
///
/// # Safety
/// `name` is a NUL-terminated string.
pub(crate) unsafe fn read<'n>(name: *const u8) -> GivenName<'n> {
    let (mut length, mut hash) = (0, EMPTY_HASH);
    loop {
        // SAFETY: no byte before this byte was the NUL, so the string continues to this byte.
        let byte = unsafe { *name.wrapping_add(length) };
        if byte == 0 || length == MAX_NAME_BYTES {
            // SAFETY: the loop has read these bytes.
            let bytes = unsafe { slice::from_raw_parts(name, length) };
            return GivenName { bytes, hash, is_cut: byte != 0 };
        }
        hash = mix(hash, byte);
        length += 1;
    }
}
