//! Finds the instructions that a jump at the entry of a function replaces.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use std::fmt;

/// Number of bytes of the jump (`jmp rel32`).
pub(crate) const JUMP_BYTES: u64 = 5;
/// The first byte of a jump.
pub(crate) const JUMP: u8 = 0xe9;

/// The reason why a function cannot get a detour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Obstacle {
    /// The loader chooses one of several versions of the function when it loads the module (IFUNC).
    LoadTimeChoice,
    /// The file does not contain the function's code.
    NoCode,
    /// Another function, or data, begins within the bytes that a jump would replace.
    TooShort,
    /// The bytes that a jump would replace are not instructions that can be moved to another address.
    Unmovable,
    /// Another instruction jumps into the bytes that a jump would replace.
    BranchInto,
    /// The function has several names that have different shapes in the table of allocators.
    Ambiguous,
    /// The function calls no function outside its module. So the compiler may have compiled callers that rely
    /// on registers that this function leaves unchanged. edleak's hook could change a register on which a
    /// caller relies, so the function gets no detour.
    Closed,
    /// The function is a sized free (a free that gets a size), and the allocator has no plain free that can
    /// replace this function.
    NoPlainFree,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::LoadTimeChoice => "is chosen while the module is loaded",
            Obstacle::NoCode => "has no code in the file",
            Obstacle::TooShort => "is shorter than a jump",
            Obstacle::Unmovable => "begins with an instruction that cannot be moved",
            Obstacle::BranchInto => "is jumped into behind its first instruction",
            Obstacle::Ambiguous => "has names of different functions",
            Obstacle::Closed => {
                "calls no other module, so that its callers may rely on registers that a hook changes"
            }
            Obstacle::NoPlainFree => "frees by size, with no plain free beside it",
        })
    }
}

/// The instructions that a jump at the entry of a function replaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Displaced {
    /// The link-time address of the jump: the entry of the function, or the address after the `endbr64` at
    /// the entry. The `endbr64` must stay, because a processor with CET allows an indirect call only to an
    /// `endbr64`.
    pub(crate) at: u64,
    /// The bytes of the replaced instructions, and of the padding after the last of these instructions.
    pub(crate) original: Vec<u8>,
    /// Number of bytes of `original` that are instructions to move; the other bytes of `original` are
    /// padding.
    pub(crate) moved: usize,
    /// Whether the last replaced instruction always jumps, returns or traps, so that the trampoline needs no
    /// jump back to the function.
    pub(crate) ends: bool,
}

impl Displaced {
    /// The moved instructions, decoded at `address`.
    pub(crate) fn instructions(&self, address: u64) -> Vec<Instruction> {
        Decoder::with_ip(64, &self.original[..self.moved], address, DecoderOptions::NONE)
            .into_iter()
            .collect()
    }
}

/// The instructions that a jump at `start` would replace, or the reason why no jump is possible. `bytes` is
/// the code from `start` on. `end` is the end of the function, and `next` is the start of the next function.
pub(crate) fn displaced(bytes: &[u8], start: u64, end: u64, next: u64) -> Result<Displaced, Obstacle> {
    const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    let skipped = if bytes.starts_with(&ENDBR64) { ENDBR64.len() } else { 0 };
    let at = start + skipped as u64;
    let code = bytes.get(skipped..).ok_or(Obstacle::NoCode)?;
    let mut decoder = Decoder::with_ip(64, code, at, DecoderOptions::NONE);
    let mut length = 0;
    let mut ends = false;
    while length < JUMP_BYTES && !ends {
        if at + length >= end {
            return Err(Obstacle::TooShort);
        }
        let instruction = decoder.decode();
        let is_last = length + instruction.len() as u64 >= JUMP_BYTES;
        if !is_movable(&instruction, is_last) {
            return Err(Obstacle::Unmovable);
        }
        length += instruction.len() as u64;
        ends = leads_elsewhere(&instruction);
    }
    let moved = length as usize;
    if length < JUMP_BYTES {
        // The function is shorter than the jump. The bytes after the function must be padding.
        let padding = code.get(moved..JUMP_BYTES as usize).ok_or(Obstacle::TooShort)?;
        if !is_padding(padding, &code[moved..]) {
            return Err(Obstacle::TooShort);
        }
        length = JUMP_BYTES;
    }
    if next < at + JUMP_BYTES {
        return Err(Obstacle::TooShort);
    }
    let original = code.get(..length as usize).ok_or(Obstacle::NoCode)?.to_vec();
    Ok(Displaced { at, original, moved, ends })
}

/// Whether an instruction has the same effect at another address. A moved call still returns to the address
/// after the original call. So the jump must not replace the instruction after a call, and only the last
/// replaced instruction may be a call.
fn is_movable(instruction: &Instruction, is_last: bool) -> bool {
    match instruction.mnemonic() {
        Mnemonic::INVALID | Mnemonic::Xbegin | Mnemonic::Int3 => false,
        // After a signal, the kernel may let a thread repeat its system call at the original address, where
        // the jump is now.
        Mnemonic::Syscall => false,
        Mnemonic::Call => is_last && call_as_jump(instruction).is_some(),
        // The instructions `loop` and `jrcxz` exist only with an offset of one byte, so a moved copy could
        // not reach the old target of the jump.
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jrcxz | Mnemonic::Jecxz => false,
        _ => true,
    }
}

/// Turns a call into a jump to the same function. The trampoline pushes the return address of the original
/// call, and then jumps. So the called function returns into the original code, for which unwind rules exist.
/// For the trampoline, no unwind rules exist.
pub(crate) fn call_as_jump(call: &Instruction) -> Option<Instruction> {
    let mut jump = *call;
    jump.set_code(match call.code() {
        Code::Call_rel32_64 => Code::Jmp_rel32_64,
        // An operand relative to the stack pointer would be wrong after the trampoline has pushed the return
        // address.
        Code::Call_rm64 if !uses_stack_pointer(call) => Code::Jmp_rm64,
        _ => return None,
    });
    if call.code() == Code::Call_rel32_64 {
        jump.set_op0_kind(OpKind::NearBranch64);
    }
    Some(jump)
}

fn uses_stack_pointer(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Memory && instruction.memory_base() == Register::RSP
        || instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP
}

/// Whether an instruction always jumps, returns or traps, so that the processor never continues with the
/// instruction after it.
pub(crate) fn leads_elsewhere(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Jmp | Mnemonic::Ret | Mnemonic::Retf | Mnemonic::Ud2 | Mnemonic::Hlt
    )
}

/// Whether all bytes of `padding` are traps, zeros, or instructions that do nothing.
fn is_padding(padding: &[u8], code: &[u8]) -> bool {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut at = 0;
    while at < padding.len() {
        if padding[at..].iter().all(|&byte| byte == 0) {
            return true;
        }
        let instruction = decoder.decode();
        // Compilers pad with `nop`, `xchg ax, ax` and `int3`.
        let is_idle = matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
            || instruction.code() == Code::Xchg_rm16_r16
                && instruction.op0_register() == instruction.op1_register();
        if !is_idle {
            return false;
        }
        at += instruction.len();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Displaced, Obstacle> {
        let end = 0x1000 + bytes.len() as u64;
        displaced(bytes, 0x1000, end, end)
    }

    #[test]
    fn whole_instructions_are_displaced() {
        // push rbp; mov rbp, rsp; push rbx; ret
        let found = of(&[0x55, 0x48, 0x89, 0xe5, 0x53, 0xc3]).expect("it can be moved");
        assert_eq!((found.at, found.moved, found.ends), (0x1000, 5, false));
        // sub rsp, 8; mov rax, [rip + 0x10]; ret
        let found = of(&[0x48, 0x83, 0xec, 8, 0x48, 0x8b, 5, 0x10, 0, 0, 0, 0xc3]).expect("it can be moved");
        assert_eq!((found.original.len(), found.moved), (11, 11));
    }

    #[test]
    fn endbr64_stays_at_the_entry() {
        let found =
            of(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x53, 0xc3]).expect("it can be moved");
        assert_eq!((found.at, found.moved), (0x1004, 5));
    }

    #[test]
    fn a_short_function_gives_its_padding() {
        // jmp short; nop word ptr [rax + rax]
        let bytes = [0xeb, 0x20, 0x66, 0x0f, 0x1f, 0x44, 0, 0];
        let found = displaced(&bytes, 0x1000, 0x1002, 0x1010).expect("padding follows");
        assert_eq!((found.moved, found.ends, found.original.len()), (2, true, 5));
        let close = displaced(&bytes, 0x1000, 0x1002, 0x1004);
        assert_eq!(close, Err(Obstacle::TooShort), "another function begins there");
        assert_eq!(
            displaced(&[0xeb, 0x20, 0x55, 0x53, 0x41, 0x54], 0x1000, 0x1002, 0x1010),
            Err(Obstacle::TooShort)
        );
        assert_eq!(
            displaced(&[0x90, 0x90], 0x1000, 0x1002, 0x1010),
            Err(Obstacle::TooShort),
            "it runs into the next one"
        );
    }

    #[test]
    fn calls_and_loops_are_moved_only_where_that_is_safe() {
        assert!(of(&[0xe8, 1, 0, 0, 0, 0xc3]).is_ok(), "call rel32");
        assert!(of(&[0xff, 0x15, 1, 0, 0, 0, 0xc3]).is_ok(), "call [rip + 1]");
        assert_eq!(
            of(&[0xff, 0xd0, 0x55, 0x53, 0x50, 0xc3]),
            Err(Obstacle::Unmovable),
            "call rax, two bytes"
        );
        assert_eq!(
            of(&[0x50, 0x52, 0x51, 0xff, 0x54, 0x24, 8, 0xc3]),
            Err(Obstacle::Unmovable),
            "call [rsp + 8]"
        );
        assert_eq!(of(&[0xe2, 0xfe, 0x55, 0x53, 0x50, 0xc3]), Err(Obstacle::Unmovable), "loop");
        assert_eq!(
            of(&[0x06, 0x55, 0x53, 0x50, 0x51, 0xc3]),
            Err(Obstacle::Unmovable),
            "no instruction at all"
        );
    }
}
