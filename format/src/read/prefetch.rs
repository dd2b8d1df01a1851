//! Loads bytes into the cache before the reader needs them. The processor cannot predict which bytes the
//! reader needs next, because the reader reads from about a hundred rows in turn.
#![allow(unsafe_code)]

/// Prefetches the cache line of `bytes[at]`. If `at` is out of bounds, the function does nothing.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(at) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: `byte` is a valid reference, and a prefetch changes nothing that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) };
    }
}
