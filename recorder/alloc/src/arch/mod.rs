//! x86-64: the preload library's fast path, thread-local storage and system calls.
//!
//! The library's own arch/x86_64/mod.rs also defines functions that a program has already (memcpy), so this
//! crate cannot use that file. The functions here are the same as there.
#![allow(unsafe_code)]

#[path = "../shared/arch/x86_64/note.rs"]
pub(crate) mod note;
#[path = "../shared/arch/x86_64/numbers.rs"]
pub(crate) mod numbers;
#[path = "../shared/arch/x86_64/signal.rs"]
mod signal;
#[path = "../shared/arch/x86_64/stubs.rs"]
pub(crate) mod stubs;

pub(crate) use signal::interrupted;

use crate::hot::thread::Tls;
use core::arch::{asm, global_asm};

// Initial-exec thread-local storage: one load of an offset, no call, no lazy allocation, no destructor. The
// linker of a static program turns the load into a constant.
global_asm!(
    ".section .tbss,\"awT\",@nobits",
    ".p2align 6",
    ".globl edleak_tls",
    ".hidden edleak_tls",
    ".type edleak_tls, @tls_object",
    ".size edleak_tls, {size}",
    "edleak_tls: .zero {size}",
    ".previous",
    size = const size_of::<Tls>(),
);

/// Number of bits of an address in a program that does not ask the kernel for larger addresses.
pub(crate) const ADDRESS_BITS: u32 = 47;

/// This thread's state.
#[inline(always)]
pub(crate) fn tls() -> *mut Tls {
    let tls: *mut Tls;
    // SAFETY: the relocation yields the offset of `edleak_tls` from the thread pointer, which both libcs
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

/// The first word of this thread's state, loaded without computing its address.
#[inline(always)]
pub(crate) fn tls_first_word() -> usize {
    let word: usize;
    // SAFETY: the relocation yields the offset as in `tls`; the first word of `Tls` is a plain integer that
    // only this thread writes.
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

/// This thread's thread pointer. Live threads have different thread pointers; a new thread may get the
/// pointer of an ended thread.
#[inline(always)]
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the psABI stores the thread pointer at fs:0.
    unsafe {
        asm!("mov {0}, qword ptr fs:[0]", out(reg) pointer, options(pure, readonly, nostack, preserves_flags));
    }
    pointer
}

/// A raw system call. Returns the kernel's value; an error is −errno. errno belongs to the target and stays
/// untouched.
///
/// # Safety
/// The arguments must be valid for the call.
pub(crate) unsafe fn syscall(number: usize, arguments: [usize; 6]) -> isize {
    let result: isize;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the register convention of the kernel; rcx and r11 are clobbered by the instruction.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}
