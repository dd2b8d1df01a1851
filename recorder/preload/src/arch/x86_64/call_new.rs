//! COLD: the stack frame from which the library calls a real operator new.
//!
//! The real operator new may throw an exception, which passes through the frame of `edleak_call_new`. So
//! `edleak_call_new` is written in assembly with unwind rules, and not in Rust. If the real operator new
//! throws an exception, the next call of an entry point ends the pending state that `new_begins` began
//! (`slow::attribute`).
#![allow(unsafe_code)]

pub(crate) use frame::{edleak_call_new, return_address};

#[cfg(not(test))]
mod frame {
    use crate::entry::pending::{self, NewCall};
    use core::ffi::c_void;
    use core::mem::offset_of;

    /// Number of bytes that `edleak_call_new` reserves on the stack for a `NewCall`, so that the stack is
    /// aligned when `edleak_call_new` calls another function.
    const ROOM: usize = size_of::<NewCall>().next_multiple_of(16) + 8;

    core::arch::global_asm!(
        ".pushsection .text.edleak_call_new,\"ax\",@progbits",
        ".hidden edleak_call_new, edleak_call_new_return",
        ".globl edleak_call_new, edleak_call_new_return",
        ".type edleak_call_new, @function",
        "edleak_call_new:",
        ".cfi_startproc",
        "sub rsp, {room}",
        ".cfi_adjust_cfa_offset {room}",
        "mov [rsp + {size}], rdi",
        "mov [rsp + {second}], rsi",
        "mov [rsp + {third}], rdx",
        "mov [rsp + {caller}], rcx",
        "mov [rsp + {fp}], r8",
        "mov [rsp + {form}], r9",
        "mov rdi, rsp",
        "call {begins}",
        "mov rdi, [rsp + {real_size}]",
        "mov rsi, [rsp + {second}]",
        "mov rdx, [rsp + {third}]",
        "call rax",
        "edleak_call_new_return:",
        "mov rdi, rsp",
        "mov rsi, rax",
        "call {ends}",
        "add rsp, {room}",
        ".cfi_adjust_cfa_offset -{room}",
        "ret",
        ".cfi_endproc",
        ".size edleak_call_new, . - edleak_call_new",
        ".popsection",
        room = const ROOM,
        size = const offset_of!(NewCall, size),
        second = const offset_of!(NewCall, second),
        third = const offset_of!(NewCall, third),
        caller = const offset_of!(NewCall, caller),
        fp = const offset_of!(NewCall, fp),
        form = const offset_of!(NewCall, form),
        real_size = const offset_of!(NewCall, real_size),
        begins = sym pending::new_begins,
        ends = sym pending::new_ends,
    );

    unsafe extern "C" {
        pub(crate) fn edleak_call_new(
            size: usize,
            second: usize,
            third: usize,
            caller: *const usize,
            fp: usize,
            form: *const c_void,
        ) -> *mut u8;
        static edleak_call_new_return: u8;
    }

    /// The return address of the call of the real operator new in `edleak_call_new`.
    pub(crate) fn return_address() -> usize {
        (&raw const edleak_call_new_return) as usize
    }
}

#[cfg(test)]
mod frame {
    use core::ffi::c_void;

    pub(crate) unsafe fn edleak_call_new(
        _: usize,
        _: usize,
        _: usize,
        _: *const usize,
        _: usize,
        _: *const c_void,
    ) -> *mut u8 {
        core::ptr::null_mut()
    }

    pub(crate) fn return_address() -> usize {
        0
    }
}
