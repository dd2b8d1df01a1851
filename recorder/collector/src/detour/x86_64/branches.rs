//! Proves that no instruction jumps into the middle of the bytes that a detour replaces. A jump to the first
//! replaced byte is allowed.
//!
//! | kind of jump                    | where the search looks for such jumps                         |
//! |---------------------------------|---------------------------------------------------------------|
//! | offset of 4 bytes, or a call    | at every byte of all code; may find too many, never too few   |
//! | offset of 1 byte                | in the functions around the entry, instruction by instruction |
//! | jump through a table            | in the jump tables of the function                            |
//!
//! The search does not look for pointers to the middle of a function, because compilers do not create such
//! pointers.

use crate::detour::arch::prologue::JUMP_BYTES;
use edleak_binary::elf::Elf;
use edleak_binary::functions::FunctionTable;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use std::collections::BTreeSet;

/// Searches the code of one file for jumps into the bytes that detours replace.
pub(crate) struct Branches<'a, 'data> {
    elf: &'a Elf<'data>,
    functions: &'a FunctionTable<'a>,
}

impl<'a, 'data> Branches<'a, 'data> {
    /// Prepares a search in `elf`. `functions` are all functions of `elf`, sorted by address.
    pub(crate) fn of(elf: &'a Elf<'data>, functions: &'a FunctionTable<'a>) -> Branches<'a, 'data> {
        Branches { elf, functions }
    }

    /// Returns the addresses of `places` at which no detour is possible, because some instruction jumps to
    /// the second or a later byte that the detour would replace.
    pub(crate) fn behind(&self, places: &BTreeSet<u64>) -> BTreeSet<u64> {
        let mut found = self.far(places);
        found.extend(
            places.iter().copied().filter(|&at| self.is_jumped_into_near(at) || self.has_table_into(at)),
        );
        found
    }

    /// Whether the code at `address`, or a function that this code calls, makes a call through a pointer or
    /// into another module. If the result is `true`, the compiler did not know every function that this code
    /// calls. Then the callers of the code at `address` rely only on the registers that every function
    /// preserves. (If GCC knows all called functions, its option `-fipa-ra` lets callers rely on other
    /// registers, too.)
    pub(crate) fn calls_unknown(&self, address: u64) -> bool {
        const MOST_FUNCTIONS: usize = 400;
        let mut known = BTreeSet::from([address]);
        let mut rest = vec![address];
        while let Some(address) = rest.pop() {
            // Code without a name is a stub for a function of another module, or is part of an allocator that
            // calls other modules.
            let Some((start, end)) = self.function_around(address) else { return true };
            for instruction in self.decode(start, end) {
                let is_call = instruction.mnemonic() == Mnemonic::Call;
                let is_jump = !is_call && instruction.op0_kind() == OpKind::NearBranch64;
                if instruction.code() == Code::Call_rm64 || is_leaving_jump(&instruction) {
                    return true;
                }
                let target = instruction.near_branch_target();
                let leads_out = is_call || is_jump && !(start..end).contains(&target);
                if leads_out && target != 0 && known.len() < MOST_FUNCTIONS && known.insert(target) {
                    rest.push(target);
                }
            }
        }
        false
    }

    /// Returns the addresses of `places` at which the detour would replace the target of a branch with an
    /// offset of four bytes. The search does not decode instructions: any four bytes of the code after an
    /// opcode of a branch may be such an offset.
    fn far(&self, places: &BTreeSet<u64>) -> BTreeSet<u64> {
        let (Some(&first), Some(&last)) = (places.first(), places.last()) else { return BTreeSet::new() };
        let span = last + JUMP_BYTES - first;
        let mut found = BTreeSet::new();
        for (start, bytes) in self.elf.code_segments() {
            for (index, word) in bytes.windows(4).enumerate() {
                let displacement = i64::from(i32::from_le_bytes([word[0], word[1], word[2], word[3]]));
                let target = (start + index as u64 + 4).wrapping_add_signed(displacement);
                if target.wrapping_sub(first) >= span {
                    continue;
                }
                let Some(&place) = places.range(..target).next_back() else { continue };
                if target < place + JUMP_BYTES && is_branch(&bytes[..index]) {
                    found.insert(place);
                }
            }
        }
        found
    }

    /// Whether a short jump (two bytes long) leads to the second or a later byte that the detour at `at`
    /// replaces.
    fn is_jumped_into_near(&self, at: u64) -> bool {
        const REACH: u64 = 130;
        let from = at.saturating_sub(REACH);
        let Some((first, bytes)) = self.bytes_around(from, at + JUMP_BYTES + REACH) else { return true };
        (0..bytes.len().saturating_sub(1)).any(|index| {
            let (opcode, displacement) = (bytes[index], i64::from(bytes[index + 1] as i8));
            let address = first + index as u64;
            let target = (address + 2).wrapping_add_signed(displacement);
            let is_short_branch = matches!(opcode, 0x70..=0x7f | 0xe0..=0xe3 | 0xeb);
            is_short_branch && target > at && target < at + JUMP_BYTES && self.is_instruction(address, at)
        })
    }

    /// Whether an instruction begins at `address`. The result is `false` if the detour at `at` replaces this
    /// instruction, and `true` if the function that contains `address` is unknown.
    fn is_instruction(&self, address: u64, at: u64) -> bool {
        if (at..at + JUMP_BYTES).contains(&address) {
            return false; // the detour moves this jump together with its target
        }
        let Some((start, end)) = self.function_around(address) else { return true };
        self.decode(start, end).any(|instruction| instruction.ip() == address)
    }

    /// Link-time start and end of the function that contains `address`.
    fn function_around(&self, address: u64) -> Option<(u64, u64)> {
        let offset = self.elf.offset_of(address)?;
        let after = self.functions.functions.partition_point(|function| function.start <= offset);
        let around =
            self.functions.functions[..after].iter().rev().take(64).find(|function| offset < function.end)?;
        let base = self.elf.link_base();
        Some((base + u64::from(around.start), base + u64::from(around.end)))
    }

    fn decode(&self, start: u64, end: u64) -> impl Iterator<Item = Instruction> + use<'data> {
        let bytes = self.elf.loaded_from(start).unwrap_or_default();
        let length = bytes.len().min((end - start) as usize);
        let mut decoder = Decoder::with_ip(64, &bytes[..length], start, DecoderOptions::NONE);
        std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
    }

    fn bytes_around(&self, from: u64, to: u64) -> Option<(u64, &'data [u8])> {
        self.elf.code_segments().find_map(|(start, bytes)| {
            let first = from.max(start);
            let end = (to - start).min(bytes.len() as u64) as usize;
            Some((first, bytes.get((first - start) as usize..end)?)).filter(|(_, bytes)| !bytes.is_empty())
        })
    }

    /// Whether a jump table leads to the second or a later byte that the detour at `at` replaces. The search
    /// covers the jump tables of the function that contains `at`.
    fn has_table_into(&self, at: u64) -> bool {
        let Some((start, end)) = self.function_around(at) else { return true };
        let mut jumps = false;
        let mut tables = Vec::new();
        for instruction in self.decode(start, end) {
            jumps |= is_table_jump(&instruction);
            let is_address =
                instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand();
            if is_address || instruction.code() == Code::Jmp_rm64 && instruction.op0_kind() == OpKind::Memory
            {
                tables.push(if is_address {
                    instruction.ip_rel_memory_address()
                } else {
                    instruction.memory_displacement64()
                });
            }
        }
        let is_inside = |target: u64| target > at && target < at + JUMP_BYTES;
        let is_near = |target: u64| (start..end).contains(&target);
        jumps
            && tables.into_iter().any(|table| {
                let Some(bytes) = self.elf.loaded_from(table) else { return false };
                let relative = bytes.chunks_exact(4).map(|word| {
                    let offset = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    table.wrapping_add_signed(offset.into())
                });
                let absolute = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
                relative.take_while(|&target| is_near(target)).any(is_inside)
                    || absolute.take_while(|&target| is_near(target)).any(is_inside)
            })
    }
}

/// Whether the last bytes of `code` are the opcode of a jump or call with an offset of four bytes.
fn is_branch(code: &[u8]) -> bool {
    matches!(code, [.., 0xe8 | 0xe9] | [.., 0x0f, 0x80..=0x8f])
}

/// Whether an instruction jumps through a pointer that is not in a table. A jump through a single pointer
/// leads to another module, or is a tail call.
fn is_leaving_jump(instruction: &Instruction) -> bool {
    instruction.code() == Code::Jmp_rm64
        && instruction.op0_kind() == OpKind::Memory
        && instruction.memory_index() == Register::None
}

/// Whether an instruction jumps to an address that a register or a table holds.
fn is_table_jump(instruction: &Instruction) -> bool {
    instruction.code() == Code::Jmp_rm64
        && (instruction.op0_kind() == OpKind::Register || instruction.memory_index() != Register::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_binary::BinaryFile;
    use std::path::Path;
    use std::process::Command;

    /// Compiles an assembly file. Returns the name of each function whose first instructions contain the
    /// target of a branch.
    fn jumped_into(assembly: &str) -> Vec<String> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let source = std::env::temp_dir().join(format!("edleak-branches-{}-{number}.s", std::process::id()));
        let library = source.with_extension("so");
        std::fs::write(&source, format!(".intel_syntax noprefix\n.text\n{assembly}\n")).expect("writable");
        let built =
            Command::new("gcc").args(["-shared", "-nostdlib", "-o"]).arg(&library).arg(&source).status();
        assert!(built.expect("gcc is there").success(), "{assembly}");
        let binary = BinaryFile::open(Path::new(&library)).expect("gcc has made it");
        let elf = binary.elf().expect("a sound file");
        let table = FunctionTable::of(&elf);
        let place = |start: u32| elf.link_base() + u64::from(start);
        let places: BTreeSet<u64> = table.functions.iter().map(|function| place(function.start)).collect();
        let found = Branches::of(&elf, &table).behind(&places);
        let mut names: Vec<String> = table
            .functions
            .iter()
            .filter(|function| found.contains(&place(function.start)))
            .map(|function| function.name.to_owned())
            .collect();
        names.dedup();
        std::fs::remove_file(&source).expect("ours");
        std::fs::remove_file(&library).expect("ours");
        names
    }

    /// Compiles a program with a function `f` of ten bytes and with code before and after `f`. Returns the
    /// name of each function whose first instructions contain the target of a branch.
    fn with(before: &str, body: &str, after: &str) -> Vec<String> {
        let function = |name: &str, body: &str| {
            format!(
                ".globl {name}\n.hidden {name}\n.type {name}, @function\n{name}:\n{body}\n\
                 .size {name}, .-{name}\n"
            )
        };
        let entry = format!("push rbx\n1: mov rbx, rdi\n2: nop\n3: mov rax, rbx\n{body}\npop rbx\nret");
        jumped_into(&format!("{before}\n{}\n{after}", function("f", &entry)))
    }

    #[test]
    fn jumps_behind_the_first_instruction_are_found() {
        assert_eq!(with("", "", ""), [""; 0]);
        assert_eq!(with("", "test rdi, rdi\njne 1b", ""), ["f"], "its own loop");
        assert_eq!(with("", "test rdi, rdi\njne 3b", ""), [""; 0], "behind the jump that is written");
        assert_eq!(with("", "jmp f", ""), [""; 0], "its beginning is no harm");
        let cold = ".type f.cold, @function\nf.cold:\n.skip 300, 0x90\njmp f + 1\n.size f.cold, .-f.cold";
        assert_eq!(with("", "", cold), ["f"], "from far away");
        let near = ".type g, @function\ng:\nnop\njmp f + 1\n.size g, .-g";
        assert_eq!(with(near, "", ""), ["f"], "from the function before");
    }

    #[test]
    fn bytes_that_only_look_like_a_jump_are_none() {
        // mov eax, 0x000103eb: the operand contains the opcode of a short jump that would lead into `f`.
        let looks = ".type g, @function\ng:\nmov eax, 0x000103eb\n.size g, .-g";
        assert_eq!(with(looks, "", ""), [""; 0]);
    }

    #[test]
    fn tables_of_jumps_are_followed() {
        let table = |target: &str| {
            format!("{}\n.section .rodata\n.balign 4\nt: .long f + 12 - t, {target} - t\n.text", ".hidden t")
        };
        let body = "lea rcx, [rip + t]\nmovsxd rax, dword ptr [rcx + 4 * rdi]\nadd rax, rcx\njmp rax";
        assert_eq!(with("", body, &table("f + 4")), ["f"]);
        assert_eq!(with("", body, &table("f + 8")), [""; 0]);
    }
}
