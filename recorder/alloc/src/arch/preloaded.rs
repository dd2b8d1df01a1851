//! x86-64: looks for edleak's library in this process.
#![allow(unsafe_code)]

#[cfg(not(target_feature = "crt-static"))]
use core::arch::asm;

/// Whether edleak's library is loaded into this process.
#[cfg(not(target_feature = "crt-static"))]
pub(crate) fn is_preloaded() -> bool {
    let address: usize;
    // SAFETY: the instruction loads the address of a weak symbol from the global offset table.
    unsafe {
        asm!(
            ".weak edleak_set_mark",
            "mov {}, qword ptr [rip + edleak_set_mark@GOTPCREL]",
            out(reg) address,
            options(nostack, pure, readonly, preserves_flags),
        );
    }
    address != 0
}

/// No library can be loaded into a static program.
#[cfg(target_feature = "crt-static")]
pub(crate) fn is_preloaded() -> bool {
    false
}
