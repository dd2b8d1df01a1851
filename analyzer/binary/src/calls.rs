//! Where calls may be in machine code, found without disassembling it.
//!
//! A return address follows a call, so code without one needs no unwind rule: prologues, epilogues and leaves, which are
//! most rows of a table. Bytes that merely look like a call are taken for one; a call is never missed.

use crate::file::Elf;
use memchr::memchr2_iter;

/// The code of one file.
pub struct Code<'elf, 'data> {
    elf: &'elf Elf<'data>,
    extent: i64,
    /// The segment looked at last: the offset it begins at, and its bytes.
    segment: (u32, &'data [u8]),
}

impl<'elf, 'data> Code<'elf, 'data> {
    /// The code of `elf`.
    pub fn new(elf: &'elf Elf<'data>) -> Code<'elf, 'data> {
        Code { elf, extent: i64::try_from(elf.extent()).unwrap_or(i64::MAX), segment: (0, &[]) }
    }

    /// Whether a call may end in `start..end` (its last byte, that is; it may begin before). True for code that is not
    /// in the file.
    pub fn may_call(&mut self, start: u32, end: u32) -> bool {
        let Some(last) = end.checked_sub(1).filter(|last| start <= *last) else { return false };
        if self.bytes_from(start).is_none_or(|bytes| bytes.len() <= (last - start) as usize) {
            let Some(address) = self.elf.link_base().checked_add(start.into()) else { return true };
            let Some(bytes) = self.elf.loaded_from(address) else { return true };
            self.segment = (start, bytes);
        }
        let (from, bytes) = self.segment;
        let at = (start - from) as usize;
        // A call that begins before the segment was first looked at is another function's.
        let before = at.min(MAX_CALL - 1);
        let Some(code) = bytes.get(at - before..at + (end - start) as usize) else { return true };
        memchr2_iter(CALL, GROUP_5, code).any(|i| {
            let offset = i64::from(start) + i as i64 - before as i64;
            let lengths = self.call_lengths(&code[i..], offset);
            lengths.iter().any(|length| (before..code.len()).contains(&(i + length - 1)))
        })
    }

    fn bytes_from(&self, offset: u32) -> Option<&'data [u8]> {
        self.segment.1.get(offset.checked_sub(self.segment.0)? as usize..)
    }

    /// How long a call may be that `code` at `offset` begins with; none: it begins with no call.
    fn call_lengths(&self, code: &[u8], offset: i64) -> &'static [usize] {
        match *code {
            [CALL, a, b, c, d, ..] => {
                let target = offset + 5 + i64::from(i32::from_le_bytes([a, b, c, d]));
                if (0..self.extent).contains(&target) { &[5] } else { &[] }
            }
            // FF /2: the length follows from how the operand is addressed.
            [GROUP_5, operand, ..] if operand & 0x38 == 0x10 => INDIRECT_LENGTHS[usize::from(operand >> 6)],
            _ => &[],
        }
    }
}

/// call rel32.
const CALL: u8 = 0xe8;
/// The opcode of indirect calls, jumps and pushes; ModRM says which.
const GROUP_5: u8 = 0xff;
/// Bytes of the longest call: FF, ModRM, SIB and a displacement of four. (Prefixes stand before it.)
const MAX_CALL: usize = 7;
/// Lengths of FF /2 by the mode bits of ModRM: no displacement (or four bytes, for rip and for no base), one byte, four
/// bytes, a register; with and without SIB.
const INDIRECT_LENGTHS: [&[usize]; 4] = [&[2, 3, 6, 7], &[3, 4], &[6, 7], &[2]];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::FileBytes;
    use std::path::Path;

    // The oracle: every byte of a stretch, one after the other.
    #[test]
    fn a_stretch_may_call_exactly_where_one_of_its_bytes_ends_a_call() {
        let bytes = FileBytes::open(Path::new("/proc/self/exe")).expect("a process can read its own file");
        let elf = Elf::parse(&bytes).expect("it runs, so it is sound");
        let (address, text) = elf.section(".text").expect("a program has code");
        let first = u32::try_from(address - elf.link_base()).expect("a small program");
        let mut code = Code::new(&elf);
        let ends: Vec<bool> = (0..20_000usize)
            .map(|last| {
                (last.saturating_sub(MAX_CALL - 1)..=last).any(|i| {
                    let lengths = code.call_lengths(&text[i..], i64::from(first) + i as i64);
                    lengths.contains(&(last + 1 - i))
                })
            })
            .collect();
        assert!(code.may_call(first, first + 20_000));
        for (start, length) in (0..19_900).step_by(7).zip([1u32, 2, 3, 5, 8, 13, 40, 99].into_iter().cycle())
        {
            let expected = ends[start as usize..(start + length) as usize].contains(&true);
            assert_eq!(code.may_call(first + start, first + start + length), expected, "{start} + {length}");
        }
    }

    #[test]
    fn every_kind_of_call_is_seen() {
        let bytes = FileBytes::open(Path::new("/proc/self/exe")).expect("a process can read its own file");
        let elf = Elf::parse(&bytes).expect("it runs, so it is sound");
        let code = Code::new(&elf);
        let is_call = |bytes: &[u8]| {
            (0..bytes.len())
                .any(|i| code.call_lengths(&bytes[i..], 64 + i as i64).contains(&(bytes.len() - i)))
        };
        for call in [
            &[0xe8, 0x10, 0, 0, 0][..],      // call rel32
            &[0xff, 0xd0],                   // call rax
            &[0x41, 0xff, 0xd4],             // call r12
            &[0xff, 0x10],                   // call [rax]
            &[0xff, 0x50, 0x18],             // call [rax+0x18]
            &[0x41, 0xff, 0x54, 0x24, 0x08], // call [r12+8]
            &[0xff, 0x90, 0, 1, 0, 0],       // call [rax+0x100]
            &[0xff, 0x15, 1, 2, 3, 0],       // call [rip+…]
            &[0xff, 0x14, 0xc5, 0, 0, 0, 0], // call [rax*8+0]
            &[0x3e, 0xff, 0xd0],             // notrack call rax
            &[0x67, 0xe8, 0x10, 0, 0, 0],    // addr32 call, as the linker pads
        ] {
            assert!(is_call(call), "{call:x?}");
        }
        for other in [
            &[0xe8, 0, 0, 0, 0x70][..], // far outside of the file
            &[0xff, 0xe0],              // jmp rax
            &[0xff, 0x25, 0, 0, 0, 0],  // jmp [rip]
            &[0x55, 0x48, 0x89, 0xe5],  // push rbp; mov rbp, rsp
            &[0xc3],
            &[],
        ] {
            assert!(!is_call(other), "{other:x?}");
        }
    }
}
