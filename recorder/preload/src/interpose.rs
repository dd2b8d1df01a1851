//! HOT: the exported C symbols, one line of logic each; the only file that exports anything.
//!
//! Every allocating entry point is a naked stub: it adds the address of its own return address and the frame pointer to
//! the arguments (the hook's view of its caller) and jumps to the hook, which returns to the caller directly.
#![allow(unsafe_code)]
#![allow(non_snake_case)] // names of the C++ ABI

use crate::{forward, hooks, real};
use core::arch::naked_asm;
use core::ffi::c_void;

/// `name(arguments) => hook, register for the frame, register for rbp`.
macro_rules! entry {
    ($($name:ident ( $($argument:ident : $kind:ty),* ) $(-> $result:ty)? => $hook:path, $frame:literal, $rbp:literal;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: jumps to its hook with its caller added to the arguments.")]
        ///
        /// # Safety
        /// The contract of the C function of this name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) $(-> $result)? {
            naked_asm!(concat!("mov ", $frame, ", rsp"), concat!("mov ", $rbp, ", rbp"), "jmp {hook}", hook = sym $hook)
        }
    )*};
}

/// `name(arguments) => hook`: nothing is added; frees need no caller.
macro_rules! plain_entry {
    ($($name:ident => $hook:path;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: jumps to its hook.")]
        ///
        /// # Safety
        /// The contract of the C function of this name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(allocation: *mut c_void) {
            naked_asm!("jmp {hook}", hook = sym $hook)
        }
    )*};
}

type Pointer = *mut c_void;

/// `malloc`: calls the real one and notes what came of it.
///
/// All of it here and not in a hook: around the real call only the size has to be kept, which costs one push instead of
/// the three that a compiler needs to keep the caller's frame, too; after it, rsp is where the return address lies.
///
/// # Safety
/// The contract of the C function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn malloc(size: usize) -> Pointer {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "call qword ptr [rip + {real}]",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "mov rdi, rax",
        "mov rdx, rsp",
        "mov rcx, rbp",
        "jmp {note}",
        ".cfi_endproc",
        real = sym real::MALLOC,
        note = sym hooks::note_allocation,
    )
}

entry! {
    calloc(count: usize, size: usize) -> Pointer => hooks::on_calloc, "rdx", "rcx";
    realloc(old: Pointer, size: usize) -> Pointer => hooks::on_realloc, "rdx", "rcx";
    reallocarray(old: Pointer, count: usize, size: usize) -> Pointer => forward::on_reallocarray, "rcx", "r8";
    posix_memalign(out: *mut Pointer, align: usize, size: usize) -> i32 => forward::on_posix_memalign, "rcx", "r8";
    aligned_alloc(align: usize, size: usize) -> Pointer => forward::on_aligned_alloc, "rdx", "rcx";
    memalign(align: usize, size: usize) -> Pointer => forward::on_memalign, "rdx", "rcx";
    valloc(size: usize) -> Pointer => forward::on_valloc, "rsi", "rdx";
    pvalloc(size: usize) -> Pointer => forward::on_pvalloc, "rsi", "rdx";

    _Znwm(size: usize) -> Pointer => hooks::on_new, "rsi", "rdx";
    _Znam(size: usize) -> Pointer => hooks::on_new_array, "rsi", "rdx";
    _ZnwmRKSt9nothrow_t(size: usize, tag: Pointer) -> Pointer => forward::on_new_nothrow, "rdx", "rcx";
    _ZnamRKSt9nothrow_t(size: usize, tag: Pointer) -> Pointer => forward::on_new_array_nothrow, "rdx", "rcx";
    _ZnwmSt11align_val_t(size: usize, align: usize) -> Pointer => forward::on_new_aligned, "rdx", "rcx";
    _ZnamSt11align_val_t(size: usize, align: usize) -> Pointer => forward::on_new_array_aligned, "rdx", "rcx";
    _ZnwmSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, tag: Pointer) -> Pointer
        => forward::on_new_aligned_nothrow, "rcx", "r8";
    _ZnamSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, tag: Pointer) -> Pointer
        => forward::on_new_array_aligned_nothrow, "rcx", "r8";
}

plain_entry! {
    free => hooks::on_free;
    cfree => hooks::on_free;
    free_sized => hooks::on_free;
    free_aligned_sized => hooks::on_free;

    _ZdlPv => forward::on_delete;
    _ZdaPv => forward::on_delete_array;
    _ZdlPvm => forward::on_delete_sized;
    _ZdaPvm => forward::on_delete_array_sized;
    _ZdlPvRKSt9nothrow_t => forward::on_delete_nothrow;
    _ZdaPvRKSt9nothrow_t => forward::on_delete_array_nothrow;
    _ZdlPvSt11align_val_t => forward::on_delete_aligned;
    _ZdaPvSt11align_val_t => forward::on_delete_array_aligned;
    _ZdlPvmSt11align_val_t => forward::on_delete_sized_aligned;
    _ZdaPvmSt11align_val_t => forward::on_delete_array_sized_aligned;
    _ZdlPvSt11align_val_tRKSt9nothrow_t => forward::on_delete_aligned_nothrow;
    _ZdaPvSt11align_val_tRKSt9nothrow_t => forward::on_delete_array_aligned_nothrow;
}
