//! HOT: the entry stubs in assembly.
//!
//! Each macro is the body of one naked function in `entry/exports.rs`. A stub calls the real function and
//! then notes the allocation ([`super::note`]).

/// Passes two more arguments (the address of the return address, and the frame pointer), and jumps to the
/// hook.
macro_rules! jump_with_caller {
    ($hook:path; $_1:ident) => {
        $crate::arch::stubs::jump_with_caller!($hook => "rsi", "rdx")
    };
    ($hook:path; $_1:ident $_2:ident) => {
        $crate::arch::stubs::jump_with_caller!($hook => "rdx", "rcx")
    };
    ($hook:path; $_1:ident $_2:ident $_3:ident) => {
        $crate::arch::stubs::jump_with_caller!($hook => "rcx", "r8")
    };
    // Only six arguments fit into registers, so the frame pointer is passed on the stack.
    ($hook:path; $_1:ident $_2:ident $_3:ident $_4:ident $_5:ident) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "mov r9, rsp",
            "sub rsp, 16",
            ".cfi_adjust_cfa_offset 16",
            "push rbp",
            ".cfi_adjust_cfa_offset 8",
            "call {hook}",
            "add rsp, 24",
            ".cfi_adjust_cfa_offset -24",
            "ret",
            ".cfi_endproc",
            hook = sym $hook,
        )
    };
    ($hook:path => $caller:literal, $rbp:literal) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            concat!("mov ", $caller, ", rsp"),
            concat!("mov ", $rbp, ", rbp"),
            "jmp {hook}",
            ".cfi_endproc",
            hook = sym $hook,
        )
    };
}

/// malloc(size). The argument of the macro is the pointer to the real malloc.
macro_rules! malloc {
    ($real:path) => {
        $crate::arch::note::note_in_stub!(
            [$crate::arch::note::call_keeping!("rdi", "qword ptr [rip + {real}]")],
            [],
            real = sym $real,
        )
    };
}

/// free(allocation). The argument of the macro is the pointer to the function that handles the free.
macro_rules! free {
    ($entry:path) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "jmp qword ptr [rip + {entry}]",
            ".cfi_endproc",
            entry = sym $entry,
        )
    };
}

/// calloc(count, size). The argument of the macro is the pointer to the real calloc. If count × size
/// overflows, the real calloc has failed, so the stub computes the product without a check.
macro_rules! calloc {
    ($real:path) => {
        $crate::arch::note::note_in_stub!(
            [
                "mov rax, rdi",
                "imul rax, rsi",
                $crate::arch::note::call_keeping!("rax", "qword ptr [rip + {real}]"),
            ],
            [],
            real = sym $real,
        )
    };
}

/// realloc(old, size). The argument of the macro is the function that removes the old address from the side
/// table and calls the real realloc.
macro_rules! realloc {
    ($reallocate:path) => {
        $crate::arch::note::note_in_stub!(
            [
                $crate::arch::note::call_keeping!("rsi", "{reallocate}"),
                "test rax, rax",
                "jz 4f",
            ],
            ["4: ret"],
            reallocate = sym $reallocate,
        )
    };
}

/// reallocarray(old, count, size). The macro `reallocarray` works as the macro `realloc`, but calls a second
/// function if count × size overflows.
macro_rules! reallocarray {
    ($reallocate:path, $overflow:path) => {
        $crate::arch::note::note_in_stub!(
            [
                "mov rcx, rdx",
                "mov rax, rsi",
                "mul rcx",
                "jo 5f",
                "mov rsi, rax",
                $crate::arch::note::call_keeping!("rsi", "{reallocate}"),
                "test rax, rax",
                "jz 4f",
            ],
            ["4: ret", "5: mov rdx, rcx", "jmp {overflow}"],
            reallocate = sym $reallocate,
            overflow = sym $overflow,
        )
    };
}

/// operator new(size). If the program uses the default operator new (`$new_is` equals `$default`), the stub
/// calls the real malloc. In all other cases (the program has replaced operator new, edleak does not know
/// this yet, or malloc fails), the stub jumps to `$real_new`.
macro_rules! new {
    ($new_is:path, $default:path, $malloc:path, $real_new:path) => {
        $crate::arch::note::note_in_stub!(
            [
                "cmp dword ptr [rip + {new_is}], {default}",
                "jne 5f",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "cmp rdi, 1",
                "adc rdi, 0",
                "call qword ptr [rip + {real}]",
                "pop rsi",
                ".cfi_adjust_cfa_offset -8",
                "test rax, rax",
                "jz 4f",
            ],
            ["4: mov rdi, rsi", "5: mov rsi, rsp", "mov rdx, rbp", "jmp {real_new}"],
            new_is = sym $new_is,
            default = const $default,
            real = sym $malloc,
            real_new = sym $real_new,
        )
    };
}

/// Calls the hook of a function that has six arguments. The hook gets the caller's frame and the caller's
/// frame pointer as its seventh and eighth argument. The calling convention passes the seventh and the eighth
/// argument on the stack.
macro_rules! call_with_caller {
    ($hook:path) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "mov rax, rsp",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "push rbp",
            ".cfi_adjust_cfa_offset 8",
            "push rax",
            ".cfi_adjust_cfa_offset 8",
            "call {hook}",
            "add rsp, 24",
            ".cfi_adjust_cfa_offset -24",
            "ret",
            ".cfi_endproc",
            hook = sym $hook,
        )
    };
}

pub(crate) use {call_with_caller, calloc, free, jump_with_caller, malloc, new, realloc, reallocarray};
