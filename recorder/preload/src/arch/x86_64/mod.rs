//! Code for x86-64: the symbol versions of glibc's functions, a function that starts a program, and the few C
//! symbols that a compiler may call.
#![allow(unsafe_code)]

pub(crate) mod call_new;
pub(crate) mod detour;
pub(crate) mod inside;
mod lifecycle;
pub(crate) mod note;
pub(crate) mod numbers;
mod signal;
pub(crate) mod stubs;
mod syscall;
mod tls;

pub(crate) use signal::interrupted;
pub(crate) use syscall::syscall;
pub(crate) use tls::{
    ADDRESS_BITS, GLIBC_THREAD_ID_OFFSET, MUSL_THREAD_ID_OFFSET, TLS_BYTES, thread_pointer, tls,
    tls_first_word,
};

use core::arch::asm;
#[cfg(not(test))]
use core::arch::global_asm;
use core::ffi::CStr;

// The compiled crate `core` refers to `rust_eh_personality` and `_Unwind_Resume` in unwind tables that no
// code reads. So this library defines `rust_eh_personality` and `_Unwind_Resume`, although nothing calls
// them. Memory functions such as memcpy are defined here because a compiler may insert calls of these
// functions, and this library must not depend on the target's libc.
#[cfg(not(test))]
global_asm!(
    ".pushsection .text.edleak_support,\"ax\",@progbits",
    ".hidden rust_eh_personality, _Unwind_Resume, memcpy, memmove, memset, memcmp, bcmp",
    ".globl rust_eh_personality, _Unwind_Resume, memcpy, memmove, memset, memcmp, bcmp",
    "rust_eh_personality:",
    "_Unwind_Resume: ud2",
    "memcpy: mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    "memmove: mov rax, rdi",
    "mov rcx, rdx",
    "mov r8, rdi",
    "sub r8, rsi",
    "cmp r8, rdx",
    "jb 2f",
    "rep movsb",
    "ret",
    "2: lea rdi, [rdi + rdx - 1]",
    "lea rsi, [rsi + rdx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    "memcmp:",
    "bcmp: xor eax, eax",
    "3: test rdx, rdx",
    "jz 4f",
    "movzx eax, byte ptr [rdi]",
    "movzx ecx, byte ptr [rsi]",
    "inc rdi",
    "inc rsi",
    "dec rdx",
    "sub eax, ecx",
    "jz 3b",
    "4: ret",
    "memset: mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    ".popsection",
);

/// The symbol version of a function of glibc's malloc; `None`: the function has no such version.
pub(crate) fn glibc_version(name: &CStr) -> Option<&'static CStr> {
    match name.to_bytes() {
        b"malloc" | b"calloc" | b"realloc" | b"free" | b"posix_memalign" | b"memalign" | b"valloc"
        | b"pvalloc" => Some(c"GLIBC_2.2.5"),
        b"aligned_alloc" => Some(c"GLIBC_2.16"),
        _ => None,
    }
}

/// Executes a program in a child that shares this process's memory and stack while the parent waits.
///
/// Returns the child's PID, or −errno. The kernel sends no signal when the child ends (exit signal 0), so the
/// target's handler of SIGCHLD never sees this child. The caller must wait for the child with the flag
/// `__WALL`.
///
/// # Safety
/// `path`, `argv` and `envp` must be valid for `execve`.
pub(crate) unsafe fn spawn(path: *const u8, argv: *const *const u8, envp: *const *const u8) -> isize {
    const CLONE_VM: usize = 0x100;
    const CLONE_VFORK: usize = 0x4000;
    let result: isize;
    // SAFETY: the child touches nothing but registers before `execve` or `exit_group`, so sharing the stack
    // is sound; the parent is suspended until then.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, {path}",
            "mov rsi, {argv}",
            "mov rdx, {envp}",
            "mov eax, {execve}",
            "syscall",
            "mov edi, 127",
            "mov eax, {exit_group}",
            "syscall",
            "2:",
            path = in(reg) path, argv = in(reg) argv, envp = in(reg) envp,
            execve = const numbers::EXECVE, exit_group = const numbers::EXIT_GROUP,
            inlateout("rax") numbers::CLONE as isize => result,
            inlateout("rdi") CLONE_VM | CLONE_VFORK => _,
            inlateout("rsi") 0usize => _,
            inlateout("rdx") 0usize => _,
            in("r10") 0usize, in("r8") 0usize,
            out("rcx") _, out("r11") _,
        );
    }
    result
}

/// Ends the process immediately.
#[cfg(not(test))]
pub(crate) fn trap() -> ! {
    // SAFETY: the undefined instruction ends the process, as the caller wants. The instruction `ud2` accesses
    // no memory.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}
