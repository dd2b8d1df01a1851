//! x86-64: thread-local storage, system calls, and the few C symbols a compiler may call.
#![allow(unsafe_code)]

pub(crate) mod call_new;
pub(crate) mod detour;
pub(crate) mod note;
pub(crate) mod numbers;
mod signal;
pub(crate) mod stubs;

pub(crate) use signal::interrupted;

use crate::hot::thread::Tls;
use core::arch::{asm, global_asm};
use core::ffi::CStr;

// Initial-exec thread-local storage: one load of an offset, no call, no lazy allocation, no destructor. The
// thread-local storage uses the surplus that every libc keeps for libraries loaded at start.
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

// `core` is compiled with unwinding and names this symbol in tables that no code reads. The memory functions
// are here because a compiler may call them, and this library must not depend on the target's libc.
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

/// The symbol version of a function of glibc's malloc; `None`: the function has no such version.
pub(crate) fn glibc_version(name: &CStr) -> Option<&'static CStr> {
    match name.to_bytes() {
        b"malloc" | b"calloc" | b"realloc" | b"free" | b"posix_memalign" | b"memalign" | b"valloc"
        | b"pvalloc" => Some(c"GLIBC_2.2.5"),
        b"aligned_alloc" => Some(c"GLIBC_2.16"),
        _ => None,
    }
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

/// Executes a program in a child that shares this process's memory and stack while the parent waits.
///
/// Returns the child's PID, or −errno. The kernel sends no signal when the child ends (exit signal 0), so the
/// target's SIGCHLD handling never sees it. Wait for the child with `__WALL`.
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

/// Ends the process at once.
#[cfg(not(test))]
pub(crate) fn trap() -> ! {
    // SAFETY: the undefined instruction ends the process, as the caller wants; it touches no memory.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}
