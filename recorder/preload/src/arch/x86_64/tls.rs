//! x86-64: the thread-local storage of the library, and the thread pointer.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};

/// Size in bytes of the thread-local storage of the library, which holds one `hot::thread::Tls`.
pub(crate) const TLS_BYTES: usize = 64;

// The library uses initial-exec thread-local storage. An access to initial-exec storage only loads an offset:
// there is no call, no lazy allocation and no destructor. The thread-local storage of the library lies in the
// surplus space that every libc reserves for libraries loaded at start.
global_asm!(
    ".section .tbss,\"awT\",@nobits",
    ".p2align 6",
    ".globl edleak_tls",
    ".hidden edleak_tls",
    ".type edleak_tls, @tls_object",
    ".size edleak_tls, {size}",
    "edleak_tls: .zero {size}",
    ".previous",
    size = const TLS_BYTES,
);

/// Number of bits of an address, unless the program asks the kernel for addresses with more bits.
pub(crate) const ADDRESS_BITS: u32 = 47;

/// The offset of the thread ID from the thread pointer in glibc's data of a thread, in bytes.
pub(crate) const GLIBC_THREAD_ID_OFFSET: usize = 0x2d0;
/// The offset of the thread ID from the thread pointer in musl's data of a thread, in bytes.
pub(crate) const MUSL_THREAD_ID_OFFSET: usize = 0x30;

/// The address of the current thread's state.
#[inline(always)]
pub(crate) fn tls() -> *mut u8 {
    let tls: *mut u8;
    // SAFETY: the relocation yields the offset of `edleak_tls` from the thread pointer, which glibc and musl
    // store at fs:0.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + edleak_tls@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) tls,
            options(pure, readonly, nostack),
        );
    }
    tls
}

/// Loads the first word of this thread's state, without computing the address of the state.
#[inline(always)]
pub(crate) fn tls_first_word() -> usize {
    let word: usize;
    // SAFETY: the relocation yields the offset of `edleak_tls` from the thread pointer, as in the function
    // `tls`; the first word of the state is a plain integer that only this thread writes.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + edleak_tls@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0}]",
            out(reg) word,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    word
}

/// The thread pointer of the current thread. Two live threads have different thread pointers; a new thread
/// may get the thread pointer of an ended thread.
#[inline(always)]
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the psABI stores the thread pointer at fs:0.
    unsafe {
        asm!(
            "mov {0}, qword ptr fs:[0]",
            out(reg) pointer,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    pointer
}
