//! The machines on which edleak can record. All code of this crate that depends on registers or on machine
//! code is in the folders beside this file, one folder for each machine.
//!
//! To support another machine, add a folder beside `x86_64` and a variant of [`Arch`].

mod registers;
mod x86_64;

use object::elf;
pub(crate) use registers::Registers;
use std::borrow::Cow;

/// A machine on which edleak records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arch {
    X86_64,
}

impl Arch {
    /// The machine with the number `machine` in ELF headers (`e_machine`). `None`: edleak cannot record on
    /// this machine.
    pub(crate) fn of(machine: u16) -> Option<Arch> {
        match elf::Machine(machine) {
            elf::EM_X86_64 => Some(Arch::X86_64),
            _ => None,
        }
    }

    pub(crate) fn registers(self) -> Registers {
        match self {
            Arch::X86_64 => x86_64::unwind::REGISTERS,
        }
    }

    /// Length of the machine's longest call instruction, in bytes.
    pub(crate) fn max_call(self) -> usize {
        match self {
            Arch::X86_64 => x86_64::calls::MAX_CALL,
        }
    }

    /// Whether the last byte of a call instruction may be in `code[from..]`. `is_code` gets an offset from
    /// the start of `code` and tells whether the file has code at this offset. Bytes that look like a direct
    /// call count as a call only if their destination is code.
    pub(crate) fn may_call(self, code: &[u8], from: usize, is_code: impl Fn(i64) -> bool) -> bool {
        match self {
            Arch::X86_64 => x86_64::calls::may_call(code, from, is_code),
        }
    }
}

/// The name of a machine, for messages to the user; `class` and `machine` are the numbers in the
/// ELF header.
pub(crate) fn machine_name(class: u8, machine: u16) -> Cow<'static, str> {
    match (class, elf::Machine(machine)) {
        (1, elf::EM_386) => "32-bit x86".into(),
        (1, elf::EM_X86_64) => "x32 (x86-64 with 32-bit pointers)".into(),
        (_, elf::EM_X86_64) => "x86-64".into(),
        (_, elf::EM_AARCH64) => "aarch64".into(),
        (_, elf::EM_ARM) => "32-bit arm".into(),
        (_, elf::EM_RISCV) => "risc-v".into(),
        (_, elf::EM_PPC64) => "powerpc64".into(),
        (_, elf::EM_S390) => "s390".into(),
        (_, elf::EM_MIPS) => "mips".into(),
        _ => format!("machine {machine}").into(),
    }
}
