//! HOT: notes a new allocation, that is, counts the allocation and writes it into the side table. This file
//! contains the whole fast path of an allocation, in assembly, which runs inside the entry stub.
//!
//! The fast path takes no lock, makes no system call and allocates no memory. If the fast path does not
//! apply, the stub jumps to [`crate::cold::slow::note`], which handles all cases. Examples of cases in which
//! the fast path does not apply: the library has not started in this process, the process is a forked child,
//! the caller is not in the caller cache, the size is large, or the side-table entry still holds a freed
//! allocation.
//!
//! The code is assembly because in the stub, every value already is where the code needs it: the return
//! address is at rsp, rbp still belongs to the caller, and the allocation stays in rax until the stub
//! returns. A compiler would copy the return address, rbp and the allocation into other registers, although
//! most calls do not need the copies. A compiler also does not combine an atomic load and a comparison in one
//! instruction. With compiled hooks, a pair of malloc and free took 73 instructions instead of 61.
//!
//! | register | content                               | register | content, behind wrappers               |
//! |----------|---------------------------------------|----------|----------------------------------------|
//! | rax      | the allocation                        | r10      | rsp in the current frame               |
//! | rsi      | its size                              | r11      | rbp in the current frame               |
//! | rsp      | in stubs: where the return address is | edx      | callers that may still be examined     |
//! | rbp      | in stubs: the caller's                | rcx      | a wrapper's rule, or a temporary value |
//! | rdi      | the caller cache                      |          |                                        |
//! | r8       | a caller's address, then its meaning  | rdx      | the tables, while an entry is searched |
//! | r9       | this thread's counters                |          |                                        |
//! In all unusual cases, the code jumps to label 2. (If a label is missing, the assembler uses a label of the
//! next function, so the comment of each macro lists the labels that the macro needs.)
#![allow(unsafe_code)]

/// An assembly function with all operands that the macros below use. (The compiler requires that each named
/// operand is used, so a comment in the assembly names all operands.)
macro_rules! assembly {
    ([$($line:expr),* $(,)?] $($operands:tt)*) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            $($line,)*
            ".cfi_endproc",
            "/* {tables} {top} {size_limit} {counters} {caller_cache} {turn} {sites_end} {max_callers} \
             {frame} {last} {last_saved} {saved_from} {cfa_bits} {others_from} {lowest} {leaf_shift} \
             {last_leaf} {granule_shift} {site_bits} {allocated_bytes} {allocs} {counters_shift} {phase} \
             {off} {slow} {behind_wrappers} */",
            tables = sym $crate::hot::tables::TABLES,
            top = const core::mem::offset_of!($crate::hot::tables::Tables, top),
            size_limit = const core::mem::offset_of!($crate::hot::tables::Own, size_limit),
            counters = const core::mem::offset_of!($crate::hot::tables::Own, counters),
            caller_cache = sym $crate::cold::sites::CALLER_CACHE,
            turn = const edleak_session::caller::TURN,
            sites_end = const edleak_session::counters::SiteOffset::END,
            max_callers = const $crate::cold::sites::MAX_CALLERS,
            frame = const edleak_session::caller::FRAME,
            last = const edleak_session::caller::LAST,
            last_saved = const edleak_session::caller::LAST_SAVED,
            saved_from = const edleak_session::caller::SAVED_FROM,
            cfa_bits = const edleak_session::caller::CFA_BITS,
            others_from = const edleak_session::caller::OTHERS_FROM,
            lowest = const edleak_session::caller::LOWEST,
            leaf_shift = const $crate::hot::tables::LEAF_SHIFT,
            last_leaf = const $crate::hot::tables::LEAVES - 1,
            granule_shift = const $crate::hot::live::GRANULE_SHIFT,
            site_bits = const $crate::hot::live::SITE_BITS,
            allocated_bytes =
                const core::mem::offset_of!(edleak_session::counters::Counters, allocated_bytes),
            allocs = const core::mem::offset_of!(edleak_session::counters::Counters, allocs),
            counters_shift = const size_of::<edleak_session::counters::Counters>().trailing_zeros(),
            phase = sym $crate::cold::phase::PHASE,
            off = const $crate::cold::phase::OFF,
            slow = sym $crate::cold::slow::note,
            behind_wrappers = sym $crate::arch::note::behind_wrappers,
            $($operands)*
        )
    };
}

/// Checks the limits of this thread (`tables::Own`): jumps to label 2 unless the thread may count and the
/// size is small. After the code of this macro, rdx holds the address of the library's tables.
///
/// The code must load the thread's counters before the thread's limit, because a fork may come between these
/// two loads. If a signal handler forks between the load of the counters and the load of the limit, the
/// kernel has set the limit in the child to 0, so the child leaves the fast path.
macro_rules! own {
    () => {
        "mov rcx, qword ptr [rip + edleak_tls@GOTTPOFF]
        mov rcx, qword ptr fs:[rcx]
        lea rdx, [rip + {tables}]
        mov r9, qword ptr [rcx + rdx + {counters}]
        cmp rsi, qword ptr [rcx + rdx + {size_limit}]
        jae 2f"
    };
}

/// Decodes the 8 bytes that the caller cache holds for a caller (`session::caller`). r8 holds the caller's
/// address before this code, and the caller's site or rule after this code. After this code, the CPU flags
/// tell whether r8 holds a site: a site is less than `sites_end`.
macro_rules! known {
    () => {
        "movzx ecx, r8w
        rol r8, {turn}
        xor r8, qword ptr [rdi + 8 * rcx]
        cmp r8, {sites_end}"
    };
}

/// Skips the frame of a wrapper, and then the frames of all callers that are wrappers, too. The first caller
/// that is not a wrapper is the site, and the code continues at label 7. If the caller cache does not contain
/// a caller, the code jumps to label 2. The macro `step_over` jumps to labels of the macro `step_aside`, so a
/// function needs both macros.
///
/// The caller cache stores an unwind rule only for the return address for which the rule was compiled, so the
/// stack contains the return address and the saved rbp that the rule describes. A rule that starts from rsp
/// always leads to a higher address on the stack.
///
/// If the program built the stack itself, the outermost frame has a small number (less than `caller::LOWEST`)
/// in place of a return address. A comparison with `LOWEST` at the end of the macro distinguishes a small
/// number at the end of a stack from a site. If a small number at the end of a stack looks like an unwind
/// rule, the walk continues with wrong values and stops at the maximum number of callers.
macro_rules! step_over {
    () => {
        concat!(
            "mov edx, {max_callers}
            3: dec edx
            jz 2f
            cmp r8, {frame}
            jae 6f
            movzx ecx, r8w
            add r10, rcx
            4: mov r8, qword ptr [r10 - 8]\n",
            $crate::arch::note::known!(),
            "\njae 3b
            5: cmp qword ptr [r10 - 8], {lowest}
            jb 2f
            7: lea rdx, [rip + {tables}]"
        )
    };
}

/// The code for rules that concern rbp: the rule of a frame pointer, rules that load rbp from the stack, and
/// rules that compute the CFA from rbp. If the lower bits of the decoded word are 0, the word is not a rule.
macro_rules! step_aside {
    () => {
        concat!(
            "6: ja 8f
            cmp r11, r10
            jb 2f
            lea r10, [r11 + 16]
            mov r8, qword ptr [r11 + 8]
            mov r11, qword ptr [r11]\n",
            $crate::arch::note::known!(),
            "\njae 3b
            jmp 5b
            8: movzx ecx, r8w
            test ecx, ecx
            jz 2f
            cmp r8, {last_saved}
            ja 9f
            add r10, rcx
            shr r8d, {cfa_bits}
            neg r8
            mov r11, qword ptr [r10 + 8 * r8 + 8 * {saved_from}]
            jmp 4b
            9: cmp r8, {last}
            ja 2f
            add rcx, r11
            cmp rcx, r10
            jbe 2f
            mov r10, rcx
            shr r8d, {cfa_bits}
            sub r8d, {others_from}
            jz 4b
            neg r8
            mov r11, qword ptr [r10 + 8 * r8]
            jmp 4b"
        )
    };
}

/// Finds the side table's entry of the allocation (`live::entry_of`), counts the allocation at the site in r8
/// and writes the entry. Jumps to label 2 if the side table has no leaf (part) for the address of the
/// allocation, or if the entry still holds another allocation. rdx must hold the address of the library's
/// tables.
///
/// The code tests the entry by adding 0 to it, and not by comparing it with 0. So the first access to a page
/// of the side table is a write, not a read. If the first access were a read, the kernel would map its shared
/// page of zeros, and the following write would cause a second page fault. In a program with several threads,
/// a page fault that replaces the page of zeros also interrupts the other processors.
macro_rules! remember {
    () => {
        "mov rcx, rax
        shr rcx, {leaf_shift}
        and ecx, {last_leaf}
        mov rcx, qword ptr [rdx + 8 * rcx + {top}]
        test rcx, rcx
        jz 2f
        mov edx, eax
        shr edx, {granule_shift}
        add dword ptr [rcx + 4 * rdx], 0
        jne 2f
        add qword ptr [r9 + r8 + {allocated_bytes}], rsi
        inc qword ptr [r9 + r8 + {allocs}]
        shr r8d, {counters_shift}
        shl esi, {site_bits}
        or esi, r8d
        mov dword ptr [rcx + 4 * rdx], esi"
    };
}

/// The jump from a stub to `slow::note`. If the process is not recorded, the stub does not jump, but returns
/// to its caller without noting the allocation.
macro_rules! give_up {
    () => {
        "2: cmp dword ptr [rip + {phase}], {off}
        jne 31f
        ret
        31: mov rdi, rax
        mov rdx, rsp
        mov rcx, rbp
        jmp {slow}"
    };
}

/// Makes a call, and keeps the register with the size on the stack during the call. After the call, the size
/// of the allocation is in rsi.
macro_rules! call_keeping {
    ($register:literal, $target:literal) => {
        concat!(
            "push ",
            $register,
            "\n.cfi_adjust_cfa_offset 8\ncall ",
            $target,
            "\npop rsi\n.cfi_adjust_cfa_offset -8"
        )
    };
}

/// Defines an entry stub. The argument `before` is code that calls the real function and then sets rax to the
/// allocation and rsi to its size. The argument `after` is code that begins at label 4, and to which `before`
/// jumps. All other arguments are operands of the code in `before` and `after`.
macro_rules! note_in_stub {
    ([$($before:expr),* $(,)?], [$($after:expr),* $(,)?], $($operands:tt)*) => {
        $crate::arch::note::assembly!([
            $($before,)*
            $crate::arch::note::own!(),
            "mov r8, qword ptr [rsp]",
            "mov rdi, qword ptr [rip + {caller_cache}]",
            $crate::arch::note::known!(),
            "jae {behind_wrappers}",
            $crate::arch::note::remember!(),
            "ret",
            $crate::arch::note::give_up!(),
            $($after,)*
        ] $($operands)*)
    };
}

pub(crate) use {assembly, call_keeping, give_up, known, note_in_stub, own, remember};

/// An entry stub jumps to this function if its caller is a wrapper or is not in the caller cache.
///
/// # Safety
/// Only the entry stubs jump to this function, with the registers of the table at the head of this file.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn behind_wrappers() {
    assembly!([
        "lea r10, [rsp + 8]",
        "mov r11, rbp",
        step_over!(),
        remember!(),
        "ret",
        step_aside!(),
        give_up!(),
    ])
}

/// Notes an allocation that `caller` requested, and returns the allocation. `rbp` is the value that this
/// register has in the stub that `caller` called. Hooks in Rust call this function; the entry stubs in
/// assembly contain the same code.
///
/// # Safety
/// `caller` and `rbp` come from an entry stub whose frame still exists.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn note(
    allocation: *mut u8,
    size: usize,
    caller: *const usize,
    rbp: usize,
) -> *mut u8 {
    assembly!([
        "push rcx",
        ".cfi_adjust_cfa_offset 8",
        "push rdx",
        ".cfi_adjust_cfa_offset 8",
        "mov rax, rdi",
        "mov r11, rcx",
        "mov r8, qword ptr [rdx]",
        "lea r10, [rdx + 8]",
        own!(),
        "mov rdi, qword ptr [rip + {caller_cache}]",
        known!(),
        "jb 7f",
        step_over!(),
        remember!(),
        "add rsp, 16",
        ".cfi_adjust_cfa_offset -16",
        "ret",
        ".cfi_adjust_cfa_offset 16",
        step_aside!(),
        "2: mov rdi, rax",
        "pop rdx",
        ".cfi_adjust_cfa_offset -8",
        "pop rcx",
        ".cfi_adjust_cfa_offset -8",
        "jmp {slow}",
    ])
}
