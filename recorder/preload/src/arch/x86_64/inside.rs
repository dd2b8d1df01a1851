//! COLD: x86-64: the calls that mark a thread as *inside* a detoured function ([`crate::cold::inside`]).
#![allow(unsafe_code)]

use crate::hot::thread::Tls;
use core::mem::offset_of;

/// Maximum distance, in bytes on the stack, between the call of a trampoline and the call of a detoured
/// function inside this trampoline. If the distance on the stack is larger, edleak assumes that an exception
/// has left the field `inside` set.
pub(crate) const DEPTH: usize = 64 << 10;

/// Calls `function` with two arguments. While `function` runs, the field `inside` of the thread is set, so
/// the entry points count nothing for this thread.
///
/// # Safety
/// `function` takes the arguments `first` and `second`.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn call_inside(function: *const (), first: usize, second: usize) -> *mut u8 {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "mov rax, qword ptr [rip + edleak_tls@GOTTPOFF]",
        "mov qword ptr fs:[rax + {inside}], rsp",
        "mov r10, qword ptr fs:[rax]",
        "mov word ptr fs:[rax + {outer_offset}], r10w",
        "mov qword ptr fs:[rax], 0",
        "mov r11, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "call r11",
        ".globl edleak_inside_return",
        ".hidden edleak_inside_return",
        "edleak_inside_return:",
        "mov rcx, qword ptr [rip + edleak_tls@GOTTPOFF]",
        "movzx edx, word ptr fs:[rcx + {outer_offset}]",
        "mov qword ptr fs:[rcx], rdx",
        "mov qword ptr fs:[rcx + {inside}], 0",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
        inside = const offset_of!(Tls, inside),
        outer_offset = const offset_of!(Tls, outer_offset),
    )
}

/// The return addresses of the calls that set `inside`: one call in this file, and two calls in
/// `arch::detour`.
pub(crate) fn return_addresses() -> [usize; 3] {
    unsafe extern "C" {
        static edleak_allocate_return: u8;
        static edleak_detour_return: u8;
        static edleak_inside_return: u8;
    }
    [
        (&raw const edleak_allocate_return) as usize,
        (&raw const edleak_detour_return) as usize,
        (&raw const edleak_inside_return) as usize,
    ]
}
