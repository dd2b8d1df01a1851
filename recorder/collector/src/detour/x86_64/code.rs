//! Compiles the code of detours: trampolines, stubs and jumps.
//!
//! A stub may use rax, r10 and r11, because no function gets an argument in these registers. The stub passes
//! these values to its hook:
//!
//! | register | content                                                  |
//! |----------|----------------------------------------------------------|
//! | r11      | the address of the trampoline                            |
//! | r10      | the requested size, if the function allocates            |
//! | rax      | the old address, or the address of the result variable   |

use crate::detour::arch::prologue::{Displaced, JUMP_BYTES, call_as_jump};
use crate::detour::table::{Shape, Size};
use edleak_session::detour::{Hook, SPACING};
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, IcedError, Instruction, InstructionBlock, MemoryOperand,
    Mnemonic, Register,
};

/// The instruction int3, which stops a thread that executes it.
pub(crate) const TRAP: u8 = 0xcc;

const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
const ARGUMENTS_32: [Register; 6] =
    [Register::EDI, Register::ESI, Register::EDX, Register::ECX, Register::R8D, Register::R9D];

/// The lowest number of a label. No code has an address as high as this number, so a label is never mistaken
/// for an address of code.
const LABELS: u64 = 0xffff_f000_0000_0000;

/// Instructions that are encoded one after the other, beginning at one address.
struct Block {
    instructions: Vec<Instruction>,
    labels: u64,
}

impl Block {
    fn new() -> Block {
        Block { instructions: Vec::new(), labels: 0 }
    }

    fn add(&mut self, instruction: Result<Instruction, IcedError>) -> Result<(), IcedError> {
        self.instructions.push(instruction?);
        Ok(())
    }

    /// Makes a new label. [`add_at`](Self::add_at) gives the label to an instruction.
    fn label(&mut self) -> u64 {
        self.labels += 1;
        LABELS + self.labels
    }

    fn branch(&mut self, code: Code, to: u64) -> Result<(), IcedError> {
        self.add(Instruction::with_branch(code, to))
    }

    /// Adds an instruction at a label.
    fn add_at(&mut self, label: u64, instruction: Result<Instruction, IcedError>) -> Result<(), IcedError> {
        let mut instruction = instruction?;
        instruction.set_ip(label);
        self.instructions.push(instruction);
        Ok(())
    }

    fn encode(&self, address: u64) -> Result<Vec<u8>, IcedError> {
        let block = InstructionBlock::new(&self.instructions, address);
        Ok(BlockEncoder::encode(64, block, BlockEncoderOptions::NONE)?.code_buffer)
    }
}

/// A memory operand that is encoded relative to rip. `address` must be less than 2 GiB away from the
/// instruction.
fn at(address: u64) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RIP, address as i64)
}

/// Offset, in a trampoline, at which a return address is stored. If the last moved instruction is a call, the
/// trampoline pushes this return address.
const RETURN_ADDRESS_AT: usize = 64;

/// Compiles the trampoline at `address`. The trampoline consists of the replaced instructions, which were at
/// `original`, and of a jump to the first instruction after the replaced instructions. `None`: an instruction
/// cannot be encoded at `address`.
pub(crate) fn trampoline(displaced: &Displaced, original: u64, address: u64) -> Option<Vec<u8>> {
    let mut block = Block::new();
    let rest = original + displaced.moved as u64;
    let mut calls = false;
    for instruction in displaced.instructions(original) {
        if instruction.mnemonic() != Mnemonic::Call {
            block.instructions.push(instruction);
            continue;
        }
        // The return address of the original call is stored in memory after the code of the trampoline, and
        // the trampoline pushes this address.
        calls = true;
        let mut push = Instruction::with1(Code::Push_rm64, at(address + RETURN_ADDRESS_AT as u64)).ok()?;
        push.set_ip(instruction.ip());
        block.instructions.push(push);
        let mut jump = call_as_jump(&instruction)?;
        jump.set_ip(0);
        block.instructions.push(jump);
    }
    if !calls && !displaced.ends {
        block.branch(Code::Jmp_rel32_64, rest).ok()?;
    }
    let mut code = block.encode(address).ok()?;
    if calls {
        if code.len() > RETURN_ADDRESS_AT {
            return None;
        }
        code.resize(RETURN_ADDRESS_AT, TRAP);
        code.extend(rest.to_le_bytes());
    }
    Some(code)
}

/// How the stub of a sized free handles a size of less than [`SPACING`] bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SmallFree {
    /// The stub calls the trampoline of a plain free.
    Plain(u64),
    /// The stub calls the trampoline of a `realloc` with size 0, which frees the allocation.
    Reallocated(u64),
    /// The stub calls the trampoline of the sized free with [`SPACING`] as the size.
    Raised,
}

/// The reason why two allocations always start at least [`SPACING`] bytes apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spacing {
    /// The allocator itself (for example glibc's malloc) never starts two allocations closer together than
    /// `SPACING` bytes. The stubs leave sizes unchanged.
    Kept,
    /// The stubs request at least [`SPACING`] bytes.
    Requested,
}

/// The addresses of a module and of the code of its detours in a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    /// Number of bytes to add to a link-time address of the module to get the address in the process.
    pub(crate) bias: u64,
    /// The address of the code of the detours.
    pub(crate) address: u64,
    /// Whether the stubs must request larger allocations, so that allocations do not start too close
    /// together.
    pub(crate) spacing: Spacing,
    /// The address and the size of the module's own code. edleak does not record the calls of mmap and of
    /// similar functions that the module itself makes.
    pub(crate) own_code: (u64, u32),
    /// Whether the module's `realloc` is jemalloc's and frees an allocation if the new size is 0.
    pub(crate) realloc_frees: bool,
}

/// Compiles the stub at `address` for a function of this shape.
pub(crate) fn stub(
    shape: Shape,
    trampoline: u64,
    small_free: SmallFree,
    placement: &Placement,
    address: u64,
) -> Result<Vec<u8>, IcedError> {
    let Placement { address: hooks, spacing, .. } = *placement;
    let mut block = Block::new();
    let end = block.label();
    let hook = match shape {
        Shape::Allocate(size) => {
            raise(&mut block, size, None, spacing, end)?;
            Hook::Allocate
        }
        Shape::PosixMemalign => {
            block.add(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, ARGUMENTS[0]))?;
            raise(&mut block, Size::Argument(2), None, spacing, end)?;
            Hook::PosixMemalign
        }
        Shape::Reallocate { old, size, frees_on_failure } => {
            let old = ARGUMENTS[usize::from(old)];
            block.add(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, old))?;
            raise(&mut block, size, Some(Register::RAX), spacing, end)?;
            if frees_on_failure { Hook::ReallocateOrFree } else { Hook::Reallocate }
        }
        Shape::Resize => {
            block.add(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, ARGUMENTS[0]))?;
            block.add(Instruction::with2(Code::Mov_r64_rm64, Register::R10, ARGUMENTS[1]))?;
            Hook::Resize
        }
        Shape::Free => Hook::Free,
        Shape::FreeSized { .. } if spacing == Spacing::Kept => Hook::Free,
        Shape::FreeSized { size, flags } => {
            let (size, size_32) = (usize::from(size), usize::from(size));
            block.add(Instruction::with2(Code::Cmp_rm64_imm8, ARGUMENTS[size], SPACING as i32))?;
            block.branch(Code::Jae_rel8_64, end)?;
            match small_free {
                SmallFree::Raised => {
                    block.add(Instruction::with2(
                        Code::Mov_r32_imm32,
                        ARGUMENTS_32[size_32],
                        SPACING as i32,
                    ))?;
                }
                SmallFree::Reallocated(realloc) => {
                    block.add(Instruction::with2(Code::Xor_r32_rm32, Register::ESI, Register::ESI))?;
                    block.add(Instruction::with2(Code::Lea_r64_m, Register::R11, at(realloc)))?;
                    let hook = hooks + 8 * Hook::Free as u64;
                    block.add(Instruction::with1(Code::Jmp_rm64, at(hook)))?;
                }
                SmallFree::Plain(plain) => {
                    if let Some(flags) = flags {
                        let flags = ARGUMENTS_32[usize::from(flags)];
                        block.add(Instruction::with2(Code::Mov_r32_rm32, ARGUMENTS_32[size_32], flags))?;
                    }
                    block.add(Instruction::with2(Code::Lea_r64_m, Register::R11, at(plain)))?;
                    let hook = hooks + 8 * Hook::Free as u64;
                    block.add(Instruction::with1(Code::Jmp_rm64, at(hook)))?;
                }
            }
            Hook::Free
        }
        Shape::Mapping(hook) => {
            pass_over_own_calls(&mut block, placement.own_code, trampoline, end)?;
            hook
        }
    };
    block.add_at(end, Instruction::with2(Code::Lea_r64_m, Register::R11, at(trampoline)))?;
    block.add(Instruction::with1(Code::Jmp_rm64, at(hooks + 8 * hook as u64)))?;
    block.encode(address)
}

/// Compiles the first part of the stub of a function that maps memory. If the module's own code made the
/// call, the compiled part jumps to the original function; for all other calls, it jumps to `end`. So edleak
/// does not count the memory that libc maps for malloc and for threads. The code leaves rax unchanged,
/// because a variadic function may read rax.
fn pass_over_own_calls(
    block: &mut Block,
    (start, bytes): (u64, u32),
    trampoline: u64,
    end: u64,
) -> Result<(), IcedError> {
    let return_address = MemoryOperand::with_base(Register::RSP);
    block.add(Instruction::with2(Code::Mov_r64_rm64, Register::R10, return_address))?;
    block.add(Instruction::with2(Code::Mov_r64_imm64, Register::R11, start))?;
    block.add(Instruction::with2(Code::Sub_r64_rm64, Register::R10, Register::R11))?;
    block.add(Instruction::with2(Code::Cmp_rm64_imm32, Register::R10, bytes as i32))?;
    block.branch(Code::Jae_rel8_64, end)?;
    block.branch(Code::Jmp_rel32_64, trampoline)
}

/// Compiles code that puts the requested size into r10. If `spacing` is [`Spacing::Requested`] and the size
/// is smaller than [`SPACING`], the code raises the size argument to [`SPACING`]. If the code leaves the
/// argument unchanged, it continues at `end`. `old` is the register with the old address, if the function
/// reallocates. A reallocation to size 0 may free the old allocation, so the code leaves a size of 0
/// unchanged if the old address is not null.
fn raise(
    block: &mut Block,
    size: Size,
    old: Option<Register>,
    spacing: Spacing,
    end: u64,
) -> Result<(), IcedError> {
    let (Size::Argument(first) | Size::Product(first, _)) = size;
    let first = usize::from(first);
    block.add(Instruction::with2(Code::Mov_r64_rm64, Register::R10, ARGUMENTS[first]))?;
    if let Size::Product(_, second) = size {
        block.add(Instruction::with2(Code::Imul_r64_rm64, Register::R10, ARGUMENTS[usize::from(second)]))?;
        block.branch(Code::Jo_rel8_64, end)?;
    }
    if spacing == Spacing::Kept {
        return Ok(());
    }
    block.add(Instruction::with2(Code::Cmp_rm64_imm8, Register::R10, SPACING as i32))?;
    block.branch(Code::Jae_rel8_64, end)?;
    if matches!(size, Size::Product(..)) {
        // If one of the two factors is negative as a signed number, the unsigned product has overflowed, even
        // if the signed product is small. The allocator must refuse this size, so the code leaves the factors
        // unchanged.
        block.add(Instruction::with2(Code::Test_rm64_r64, ARGUMENTS[first], ARGUMENTS[first]))?;
        block.branch(Code::Js_rel8_64, end)?;
    }
    let raised = block.label();
    if let Some(old) = old {
        block.add(Instruction::with2(Code::Test_rm64_r64, Register::R10, Register::R10))?;
        block.branch(Code::Jne_rel8_64, raised)?;
        block.add(Instruction::with2(Code::Test_rm64_r64, old, old))?;
        block.branch(Code::Jne_rel8_64, end)?;
    }
    match size {
        Size::Argument(_) => {
            block.add_at(raised, Instruction::with2(Code::Mov_r32_imm32, ARGUMENTS_32[first], SPACING as i32))
        }
        Size::Product(_, second) => {
            let second = ARGUMENTS_32[usize::from(second)];
            block.add_at(raised, Instruction::with2(Code::Mov_r32_imm32, ARGUMENTS_32[first], 1))?;
            block.add(Instruction::with2(Code::Mov_r32_imm32, second, SPACING as i32))
        }
    }
}

/// Compiles the jump from an entry to its stub; `None`: the stub is out of the range of a jump.
pub(crate) fn jump(from: u64, to: u64) -> Option<[u8; JUMP_BYTES as usize]> {
    let displacement = i32::try_from(to.wrapping_sub(from + JUMP_BYTES) as i64).ok()?;
    let [a, b, c, d] = displacement.to_le_bytes();
    Some([0xe9, a, b, c, d])
}
