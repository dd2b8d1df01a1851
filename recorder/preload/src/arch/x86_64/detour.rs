//! HOT: the assembly hooks of detoured functions, which are functions whose first bytes edleak has replaced
//! by a jump. The jump at the start of a detoured function leads to a stub, and the stub jumps to a hook. The
//! trampoline of a detoured function executes the replaced instructions and continues in the function.
//!
//! A stub (`collector/detour/x86_64/code.rs`) leaves the arguments in place and sets three more registers:
//!
//! | register | content                                                |
//! |----------|--------------------------------------------------------|
//! | r11      | the address of the trampoline                          |
//! | r10      | the requested size, if the function allocates          |
//! | rax      | the old address, or where to store the new address     |
//!
//! Functions of one allocator call each other. While a trampoline runs, its thread is *inside*: the field
//! `inside` of the thread's state holds rsp at the call of the trampoline, and the field `offset` is 0. So
//! while a trampoline runs, every other entry point that the thread calls takes the slow path and counts
//! nothing. If rsp is below the value in `inside` when a hook begins, a trampoline of the thread is running,
//! so the hook only calls its own trampoline. An exception may leave the detoured function without clearing
//! `inside`. So a hook trusts the address in `inside` only if the 8 bytes below this address are the return
//! address of a call that sets `inside`.
#![allow(unsafe_code)]

use crate::arch::inside::DEPTH;
use crate::arch::note::{assembly, give_up, known, own, remember};
use crate::arch::stubs;
use crate::cold::symbols::Lazy;
use crate::entry::{detour, mapping, pool};
use crate::hot::thread::Tls;
use core::mem::offset_of;

/// The hook of a function that returns an allocation.
///
/// # Safety
/// Only the stubs of detoured functions jump to this hook, with the registers of the table at the head of
/// this file.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn allocate() {
    assembly!([
        "push r10",
        ".cfi_adjust_cfa_offset 8",
        "mov rax, qword ptr [rip + edleak_tls@GOTTPOFF]",
        "cmp rsp, qword ptr fs:[rax + {inside}]",
        "jb 5f",
        "6: mov qword ptr fs:[rax + {inside}], rsp",
        "mov r10, qword ptr fs:[rax]",
        "mov word ptr fs:[rax + {outer_offset}], r10w",
        "mov qword ptr fs:[rax], 0",
        "call r11",
        ".globl edleak_allocate_return",
        ".hidden edleak_allocate_return",
        "edleak_allocate_return:",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "mov rcx, qword ptr [rip + edleak_tls@GOTTPOFF]",
        "movzx edx, word ptr fs:[rcx + {outer_offset}]",
        "mov qword ptr fs:[rcx], rdx",
        "mov qword ptr fs:[rcx + {inside}], 0",
        own!(),
        "mov r8, qword ptr [rsp]",
        "mov rdi, qword ptr [rip + {caller_cache}]",
        known!(),
        "jae {behind_wrappers}",
        remember!(),
        "ret",
        give_up!(),
        // rsp is lower here than at the call that has set `inside`. Either a detoured function has called the
        // function to which this hook belongs, or an exception has left `inside` set.
        ".cfi_adjust_cfa_offset 8",
        "5: mov r10, qword ptr fs:[rax + {inside}]",
        "push rcx",
        ".cfi_adjust_cfa_offset 8",
        "mov rcx, r10",
        "sub rcx, rsp",
        "cmp rcx, {depth}",
        "jae 51f",
        "mov r10, qword ptr [r10 - 8]",
        "lea rcx, [rip + edleak_allocate_return]",
        "cmp r10, rcx",
        "je 52f",
        "lea rcx, [rip + edleak_detour_return]",
        "cmp r10, rcx",
        "je 52f",
        "lea rcx, [rip + edleak_inside_return]",
        "cmp r10, rcx",
        "je 52f",
        "51: pop rcx",
        ".cfi_adjust_cfa_offset -8",
        "jmp 6b",
        ".cfi_adjust_cfa_offset 8",
        "52: pop rcx",
        ".cfi_adjust_cfa_offset -8",
        "pop r10",
        ".cfi_adjust_cfa_offset -8",
        "jmp r11",
    ]
        inside = const offset_of!(Tls, inside),
        outer_offset = const offset_of!(Tls, outer_offset),
        depth = const DEPTH,
    )
}

/// The hook of a function that frees its first argument. The hook counts the free as
/// [`crate::hot::free::on_free`] does, but uses only registers that hold no argument, and then jumps to the
/// trampoline.
///
/// # Safety
/// See [`allocate`].
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn free() {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "mov rax, qword ptr [rip + edleak_tls@GOTTPOFF]",
        "mov rax, qword ptr fs:[rax]",
        "lea r8, [rip + {tables}]",
        // Load the thread's counters before the thread's limit, as the macro `own` does.
        "mov r9, qword ptr [rax + r8 + {counters}]",
        "mov r10d, dword ptr [rax + r8 + {small}]",
        "mov rax, rdi",
        "shr rax, {leaf_shift}",
        "and eax, {last_leaf}",
        "mov rax, qword ptr [r8 + 8 * rax + {top}]",
        "test rax, rax",
        "jz 2f",
        "mov r8d, edi",
        "shr r8d, {granule_shift}",
        "lea rax, [rax + 4 * r8]",
        "mov r8d, dword ptr [rax]",
        "dec r8d",
        "cmp r8d, r10d",
        "jae 2f",
        "mov dword ptr [rax], 0",
        "movzx eax, r8w",
        "inc eax",
        "shr r8d, {site_bits}",
        "shl rax, {counters_shift}",
        "add qword ptr [r9 + rax + {freed_bytes}], r8",
        "inc qword ptr [r9 + rax + {frees}]",
        "jmp r11",
        "2: push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rsi",
        ".cfi_adjust_cfa_offset 8",
        "push rdx",
        ".cfi_adjust_cfa_offset 8",
        "push rcx",
        ".cfi_adjust_cfa_offset 8",
        "push r11",
        ".cfi_adjust_cfa_offset 8",
        "call {slow}",
        "pop r11",
        ".cfi_adjust_cfa_offset -8",
        "pop rcx",
        ".cfi_adjust_cfa_offset -8",
        "pop rdx",
        ".cfi_adjust_cfa_offset -8",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "jmp r11",
        ".cfi_endproc",
        tables = sym crate::hot::tables::TABLES,
        top = const offset_of!(crate::hot::tables::Tables, top),
        counters = const offset_of!(crate::hot::tables::Own, counters),
        small = const offset_of!(crate::hot::tables::Own, small),
        leaf_shift = const crate::hot::tables::LEAF_SHIFT,
        last_leaf = const crate::hot::tables::LEAVES - 1,
        granule_shift = const crate::hot::live::GRANULE_SHIFT,
        site_bits = const crate::hot::live::SITE_BITS,
        counters_shift = const size_of::<edleak_session::counters::Counters>().trailing_zeros(),
        freed_bytes = const offset_of!(edleak_session::counters::Counters, freed_bytes),
        frees = const offset_of!(edleak_session::counters::Counters, frees),
        slow = sym detour::free_slow,
    )
}

macro_rules! call_hook {
    ($($name:ident => $hook:expr;)*) => {$(
        /// A hook of a detoured function. The hook pushes the number of its kind and jumps to [`call`].
        ///
        /// # Safety
        /// See [`allocate`].
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "push {kind}",
                ".cfi_adjust_cfa_offset 8",
                "jmp {call}",
                ".cfi_endproc",
                kind = const $hook as usize,
                call = sym call,
            )
        }
    )*};
}

call_hook! {
    posix_memalign => edleak_session::detour::Hook::PosixMemalign;
    reallocate => edleak_session::detour::Hook::Reallocate;
    reallocate_or_free => edleak_session::detour::Hook::ReallocateOrFree;
    resize => edleak_session::detour::Hook::Resize;
}

/// The common code of several hooks, each of which first pushes the number of its kind onto the stack. The
/// common code builds a [`detour::Call`] on the stack; when it calls the trampoline, rsp points to the start
/// of this object.
///
/// # Safety
/// See [`allocate`]. The hook that jumps here has pushed the number of its `Hook` onto the stack.
#[unsafe(naked)]
unsafe extern "C" fn call() {
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_def_cfa_offset 16",
        "sub rsp, {room}",
        ".cfi_adjust_cfa_offset {room}",
        "mov [rsp + {trampoline}], r11",
        "mov [rsp + {pointer}], rax",
        "mov [rsp + {size}], r10",
        "mov [rsp + {arguments}], rdi",
        "mov [rsp + {arguments} + 8], rsi",
        "mov [rsp + {arguments} + 16], rdx",
        "mov [rsp + {arguments} + 24], rcx",
        "mov [rsp + {arguments} + 32], r8",
        "mov [rsp + {arguments} + 40], r9",
        "mov rdi, rsp",
        "call {begins}",
        "mov r11, [rsp + {trampoline}]",
        "mov rdi, [rsp + {arguments}]",
        "mov rsi, [rsp + {arguments} + 8]",
        "mov rdx, [rsp + {arguments} + 16]",
        "mov rcx, [rsp + {arguments} + 24]",
        "mov r8, [rsp + {arguments} + 32]",
        "mov r9, [rsp + {arguments} + 40]",
        "test al, al",
        "jz 2f",
        "call r11",
        ".globl edleak_detour_return",
        ".hidden edleak_detour_return",
        "edleak_detour_return:",
        "mov rdi, rsp",
        "mov rsi, rax",
        "mov rdx, rbp",
        "call {ends}",
        "add rsp, {room} + 8",
        ".cfi_adjust_cfa_offset -({room} + 8)",
        "ret",
        ".cfi_adjust_cfa_offset {room} + 8",
        "2: add rsp, {room} + 8",
        ".cfi_adjust_cfa_offset -({room} + 8)",
        "jmp r11",
        ".cfi_endproc",
        room = const offset_of!(detour::Call, kind),
        trampoline = const offset_of!(detour::Call, trampoline),
        pointer = const offset_of!(detour::Call, pointer),
        size = const offset_of!(detour::Call, size),
        arguments = const offset_of!(detour::Call, arguments),
        begins = sym detour::begins,
        ends = sym detour::ends,
    )
}
const _: () = assert!(offset_of!(detour::Call, kind) % 16 == 0, "the stack is aligned at the calls");

/// The hooks of mmap and similar functions. `$next` holds the next definition, which is the trampoline of the
/// detour. A process has only one detour for each function, so all threads store the same address in `$next`.
macro_rules! mapping_hook {
    ($($name:ident => $next:path, $entry:path;)*) => {$(
        /// The hook of a function that maps or unmaps memory.
        ///
        /// # Safety
        /// See [`allocate`].
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "cmp qword ptr [rip + {next} + {address}], r11",
                "je 2f",
                "mov qword ptr [rip + {next} + {address}], r11",
                "2: jmp {entry}",
                ".cfi_endproc",
                next = sym $next,
                address = const Lazy::ADDRESS_AT,
                entry = sym $entry,
            )
        }
    )*};
}

mapping_hook! {
    map => mapping::MMAP, mmap;
    unmap => mapping::MUNMAP, mapping::on_munmap;
    remap => mapping::MREMAP, mremap;
    attach_segment => mapping::SHMAT, shmat;
    detach_segment => mapping::SHMDT, mapping::on_shmdt;
    give_back => mapping::MADVISE, mapping::on_madvise;
}

// If a process was started without this library, the names that entry/exports.rs exports belong to the
// functions of libc in this process. So detours use the stubs below, which are copies of the entry stubs
// without exported names.

#[unsafe(naked)]
unsafe extern "C" fn mmap() {
    stubs::call_with_caller!(mapping::on_mmap)
}

#[unsafe(naked)]
unsafe extern "C" fn mremap() {
    stubs::call_with_caller!(mapping::on_mremap)
}

#[unsafe(naked)]
unsafe extern "C" fn shmat() {
    stubs::jump_with_caller!(mapping::on_shmat; segment address flags)
}

/// The entry stub of `edleak_note_pool`.
///
/// # Safety
/// The caller passes the arguments of `edleak_note_pool`.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn note_pool() {
    stubs::jump_with_caller!(pool::on_pool; operation pool address size caller)
}
