//! HOT: noting a new allocation, in assembly, in the entry stub itself: the whole fast path of an allocation.
//!
//! No lock, no system call, no allocation of our own. Whatever is not the plain case (not started, forked, in the middle of another
//! entry point, caller unknown or watched or without a word of its own, size not small, no leaf, a stale entry) ends in the
//! same place: [`crate::cold::slow::note`], which does the same without haste.
//!
//! Assembly, because a stub is where everything is at hand: the return address is where rsp points, rbp is still the caller's,
//! and the allocation stays in rax from the real call's return to ours. A compiler moves all that into the registers of a function,
//! for most calls in vain, and folds no atomic load into a comparison: 73 instructions a pair with free instead of 61.
//!
//! | register | holds                                     | register | holds, behind wrappers                          |
//! |----------|-------------------------------------------|----------|-------------------------------------------------|
//! | rax      | the allocation                            | r10      | rsp in the frame at hand                        |
//! | rsi      | its size                                  | r11      | rbp there                                       |
//! | rsp      | where the return address lies, in stubs   | edx      | callers that may still be looked at             |
//! | rbp      | the caller's, in stubs                    | rcx      | the rule of a wrapper, or anything              |
//! | rdi      | the caller cache                          |          |                                                 |
//! | r8       | a caller's address, then what is known    | rdx      | the tables, where an entry is looked for        |
//! | r9       | this thread's counters                    |          |                                                 |
//!
//! Label 2 is where everything unusual leaves. (A label that a function lacks would be found in the next one: every piece says which
//! it needs.)
#![allow(unsafe_code)]

/// A function in assembly, with all that the pieces below name. (A named operand has to be used, hence the comment.)
macro_rules! assembly {
    ([$($line:expr),* $(,)?] $($operands:tt)*) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            $($line,)*
            ".cfi_endproc",
            "/* {tables} {top} {size_limit} {counters} {caller_cache} {turn} {sites_end} {max_callers} {frame} {last} \
             {last_saved} {saved_from} {cfa_bits} {others_from} {lowest} {leaf_shift} {last_leaf} {granule_shift} {last_entry} \
             {site_bits} {allocated_bytes} {allocs} {counters_shift} {phase} {off} {slow} {behind_wrappers} */",
            tables = sym $crate::hot::tables::TABLES,
            top = const core::mem::offset_of!($crate::hot::tables::Tables, top),
            size_limit = const core::mem::offset_of!($crate::hot::thread::Own, size_limit),
            counters = const core::mem::offset_of!($crate::hot::thread::Own, counters),
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
            leaf_shift = const $crate::hot::live::LEAF_SHIFT,
            last_leaf = const $crate::hot::live::LEAVES - 1,
            granule_shift = const $crate::hot::live::GRANULE_SHIFT,
            last_entry = const $crate::hot::live::LEAF_ENTRIES - 1,
            site_bits = const $crate::hot::live::SITE_BITS,
            allocated_bytes = const core::mem::offset_of!(edleak_session::counters::Counters, allocated_bytes),
            allocs = const core::mem::offset_of!(edleak_session::counters::Counters, allocs),
            counters_shift = const size_of::<edleak_session::counters::Counters>().trailing_zeros(),
            phase = sym $crate::cold::lifecycle::PHASE,
            off = const $crate::cold::lifecycle::OFF,
            slow = sym $crate::cold::slow::note,
            behind_wrappers = sym $crate::arch::note::behind_wrappers,
            $($operands)*
        )
    };
}

/// What this thread may do (`thread::Own`): to label 2 unless the size is small and it may count at all. Then rdx: the tables.
///
/// The counters before the limit: a signal handler may fork in between, and the child, which finds both wiped, must not pass.
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

/// The address r8 and the word at its place make what is known of a caller (`session::caller`): below, it is a site.
macro_rules! known {
    () => {
        "movzx ecx, r8w
        rol r8, {turn}
        xor r8, qword ptr [rdi + 8 * rcx]
        cmp r8, {sites_end}"
    };
}

/// Steps over a wrapper and its callers until one is a site, at label 7; to label 2 where nothing is known. Needs `step_aside`.
///
/// A rule stands in the word of the address that it was compiled for, so what it names is on the stack, and one from rsp comes
/// further with each step.
///
/// What a hand-made stack ends in is no address (`caller::LOWEST`). It is told from a site at the end; as a rule it leads
/// nowhere, until there have been too many.
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

/// The ways that rules about rbp go in between: that of a frame pointer, those that find it on the stack, and others. A meaning whose
/// lower bits are 0 is no rule.
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

/// Finds the entry of the allocation (`live::entry_of`), counts at the site r8 and writes the entry; to label 2 where there is
/// no leaf or a stale entry. rdx: the tables.
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
        and edx, {last_entry}
        cmp dword ptr [rcx + 4 * rdx], 0
        jne 2f
        add qword ptr [r9 + r8 + {allocated_bytes}], rsi
        inc qword ptr [r9 + r8 + {allocs}]
        shr r8d, {counters_shift}
        shl esi, {site_bits}
        or esi, r8d
        mov dword ptr [rcx + 4 * rdx], esi"
    };
}

/// How a stub leaves for `slow::note`; in a process that is not recorded it returns to its caller instead.
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

/// Calls, and keeps a register for that long, which comes back in rsi: the size.
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

/// An entry stub. `before` makes the real call and fills rax and rsi; `after` is what it jumps to, from label 4 on; the rest are
/// operands of the two.
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

/// Where the stubs go on if their caller is a wrapper, or nothing is known of it.
///
/// # Safety
/// Jumped to by the stubs, with registers as above.
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

/// The same as in the stubs for those hooks that are functions: notes an allocation that `caller` and `rbp` from their stub asked for,
/// and hands it on.
///
/// # Safety
/// `caller` and `rbp` come from an entry stub whose frame is still there.
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
