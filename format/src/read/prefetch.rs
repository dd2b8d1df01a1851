//! Asking for bytes before they are needed: a hundred rows read in turn are more than the processor foresees by itself.
#![allow(unsafe_code)]

/// Asks for the cache line of `bytes[at]`; if there is none, for nothing.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(at) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is that of a byte we may read, and a prefetch changes nothing that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) };
    }
}
