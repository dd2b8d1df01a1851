//! Finds the positions in machine code at which a call instruction may be, without disassembling the code.
//!
//! A stack contains only return addresses, and a return address follows a call. So no address on a stack is
//! in code that has no call, and edleak needs no unwind rule for such code. Prologues, epilogues and leaf
//! functions have no call, and most rows of an unwind table describe such code. The search for calls may
//! report bytes that only look like a call, but it never misses a call.

use crate::elf::Elf;

/// The code of one file.
pub struct Code<'elf, 'data> {
    elf: &'elf Elf<'data>,
    extent: i64,
    /// The segment of the last lookup: the offset of its first byte, and its bytes.
    segment: (u32, &'data [u8]),
}

impl<'elf, 'data> Code<'elf, 'data> {
    /// Gives access to the code of the file `elf`.
    pub fn new(elf: &'elf Elf<'data>) -> Code<'elf, 'data> {
        Code { elf, extent: i64::try_from(elf.extent()).unwrap_or(i64::MAX), segment: (0, &[]) }
    }

    /// Whether the last byte of a call instruction may be in `start..end`; the instruction may begin before
    /// `start`. The result is also `true` if the file does not contain the bytes of `start..end`.
    pub fn may_call(&mut self, start: u32, end: u32) -> bool {
        let Some(last) = end.checked_sub(1).filter(|last| start <= *last) else { return false };
        if self.bytes_from(start).is_none_or(|bytes| bytes.len() <= (last - start) as usize) {
            let Some(address) = self.elf.link_base().checked_add(start.into()) else { return true };
            let Some(bytes) = self.elf.loaded_from(address) else { return true };
            self.segment = (start, bytes);
        }
        let (from, bytes) = self.segment;
        let at = (start - from) as usize;
        let arch = self.elf.arch();
        // `bytes` begins at the first range that was looked up in this segment. A call instruction that
        // begins before `bytes` belongs to another function, so the search does not look there.
        let before = at.min(arch.max_call() - 1);
        let Some(code) = bytes.get(at - before..at + (end - start) as usize) else { return true };
        let first = i64::from(start) - before as i64;
        arch.may_call(code, before, |target| (0..self.extent).contains(&(first + target)))
    }

    fn bytes_from(&self, offset: u32) -> Option<&'data [u8]> {
        self.segment.1.get(offset.checked_sub(self.segment.0)? as usize..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary_file::BinaryFile;
    use std::path::Path;

    // The test compares `may_call` with a simple implementation that checks each byte of a range.
    #[test]
    fn code_range_may_call_if_one_of_its_bytes_ends_a_call() {
        let file = BinaryFile::open(Path::new("/proc/self/exe")).expect("a process can read its own file");
        let elf = file.elf().expect("it runs, so it is sound");
        let (address, _) = elf.section(".text").expect("a program has code");
        let first = u32::try_from(address - elf.link_base()).expect("a small program");
        let mut code = Code::new(&elf);
        assert!(code.may_call(first, first + 20_000));
        let ends: Vec<bool> = (first..first + 20_000).map(|last| code.may_call(last, last + 1)).collect();
        assert!(ends.contains(&true) && ends.contains(&false));
        for (start, length) in (0..19_900).step_by(7).zip([1u32, 2, 3, 5, 8, 13, 40, 99].into_iter().cycle())
        {
            let expected = ends[start as usize..(start + length) as usize].contains(&true);
            assert_eq!(code.may_call(first + start, first + start + length), expected, "{start} + {length}");
        }
    }
}
