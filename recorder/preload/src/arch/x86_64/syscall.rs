//! x86-64: a raw system call.
#![allow(unsafe_code)]

use core::arch::asm;

/// Makes a raw system call and returns the kernel's value; an error is −errno. The function does not change
/// errno, because errno belongs to the target.
///
/// # Safety
/// The arguments must be valid for the call.
pub(crate) unsafe fn syscall(number: usize, arguments: [usize; 6]) -> isize {
    let result: isize;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the registers follow the kernel's calling convention; the instruction overwrites rcx and r11.
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
