//! A reader of debug information (DWARF) that stops when its budget of reads is used up. So a damaged or
//! hostile file cannot cost much time or memory. The number of reads in the budget is proportional to
//! the size of the file.
//!
//! In a DWARF file, a few bytes can cause much work. For example, a damaged file may have a thousand units
//! that share one range list, or inlined functions that are nested one level deeper every few bytes. All work
//! of the crate addr2line consists of reads, so each read costs one unit of the budget. A read fails if the
//! budget is used up or if the call stack is too deep. If a read fails, the lookup of the address ends with
//! an error, and edleak takes the function's name from the symbol table. The lookups in a file that is not
//! damaged use about 1/8 of the budget.

use gimli::{EndianSlice, Error, Reader, ReaderOffsetId, Result, RunTimeEndian};
use std::borrow::Cow;
use std::cell::Cell;

/// Number of reads that a lookup may make for each byte of debug information. Undamaged files of C, C++ and
/// Rust programs need less than one read for each byte. Each read may make the lookup keep about 20 bytes of
/// memory, so the number of reads also limits the memory.
const READS_PER_BYTE: u64 = 8;

/// Number of reads that every budget contains, even that of the smallest file.
const READS_AT_LEAST: u64 = 1 << 20;

/// Budget for names and paths: number of bytes for each address, on average over all addresses that one guard
/// covers. 32 KiB for each address are enough for the names of a hundred inlined C++ frames.
const TEXT_PER_ADDRESS: u64 = 32 << 10;

/// The greatest depth of the call stack, in bytes. addr2line calls itself once for each level of inlining. A
/// thread has 2 MiB of stack, and uses little of this stack before a lookup begins.
const MAX_STACK_BYTES: usize = 768 << 10;

/// The budget for reads and names of one addr2line context. All readers that belong to the context
/// share one budget.
#[derive(Debug)]
pub(crate) struct Guard {
    reads_left: Cell<u64>,
    text_left: Cell<u64>,
    stack_base: usize,
}

impl Guard {
    /// Makes a budget for the lookups of `addresses` addresses. The lookups must run on the thread that calls
    /// this function, and must begin at about the same stack depth as this call.
    pub(crate) fn new(addresses: usize) -> Self {
        Guard {
            reads_left: Cell::new(READS_AT_LEAST),
            text_left: Cell::new((addresses as u64).saturating_mul(TEXT_PER_ADDRESS)),
            stack_base: stack_address(),
        }
    }

    /// Adds to the budget the reads for `bytes` bytes of debug information.
    pub(crate) fn admit(&self, bytes: u64) {
        let budget = bytes.saturating_mul(READS_PER_BYTE);
        self.reads_left.set(self.reads_left.get().saturating_add(budget));
    }

    /// Takes the length of a name or path from the budget for text. Without the budget for text, a hostile
    /// file could make every lookup return the same long text and so fill the memory.
    pub(crate) fn charge_text(&self, length: usize) -> Result<()> {
        let left = self.text_left.get().checked_sub(length as u64).ok_or_else(|| spent_slow(self))?;
        self.text_left.set(left);
        Ok(())
    }

    /// Takes `cost` reads from the budget.
    #[inline]
    fn charge(&self, cost: u64) -> Result<()> {
        match self.reads_left.get().checked_sub(cost) {
            Some(left) => {
                self.reads_left.set(left);
                Ok(())
            }
            None => Err(spent_slow(self)),
        }
    }

    #[inline]
    fn is_too_deep(&self) -> bool {
        // On some machines the stack grows to higher addresses, so the code uses the absolute distance.
        self.stack_base.abs_diff(stack_address()) > MAX_STACK_BYTES
    }
}

#[cold]
#[inline(never)]
fn spent_slow(guard: &Guard) -> Error {
    // Set the budget to 0, so that every further read fails. If some budget were left, a later and
    // smaller read could still succeed.
    guard.reads_left.set(0);
    Error::UnexpectedEof(ReaderOffsetId(0))
}

/// The address of a variable in the current stack frame, which shows how deep the call stack is.
#[inline]
fn stack_address() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

/// A part of the bytes of a section, with the budget that each read of these bytes reduces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundedSlice<'a> {
    slice: EndianSlice<'a, RunTimeEndian>,
    guard: &'a Guard,
}

impl<'a> BoundedSlice<'a> {
    pub(crate) fn new(bytes: &'a [u8], endian: RunTimeEndian, guard: &'a Guard) -> Self {
        BoundedSlice { slice: EndianSlice::new(bytes, endian), guard }
    }

    /// The bytes of the slice, which stay valid as long as the file is open.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.slice.slice()
    }
}

impl Reader for BoundedSlice<'_> {
    type Endian = RunTimeEndian;
    type Offset = usize;

    #[inline]
    fn endian(&self) -> RunTimeEndian {
        self.slice.endian()
    }

    #[inline]
    fn len(&self) -> usize {
        self.slice.len()
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.slice.is_empty()
    }

    // Every entry of a DWARF tree begins with a LEB128 number, and the code that reads this number calls
    // `read_u8`. So only `read_u8` needs to check the depth of the call stack, and the other read
    // functions do not.
    #[inline]
    fn read_u8(&mut self) -> Result<u8> {
        self.guard.charge(1)?;
        if self.guard.is_too_deep() {
            return Err(spent_slow(self.guard));
        }
        self.slice.read_u8()
    }

    #[inline]
    fn empty(&mut self) {
        self.slice.empty();
    }

    #[inline]
    fn truncate(&mut self, len: usize) -> Result<()> {
        self.slice.truncate(len)
    }

    #[inline]
    fn offset_from(&self, base: &Self) -> usize {
        self.slice.offset_from(base.slice)
    }

    #[inline]
    fn offset_id(&self) -> ReaderOffsetId {
        self.slice.offset_id()
    }

    #[inline]
    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        self.slice.lookup_offset_id(id)
    }

    #[inline]
    fn find(&self, byte: u8) -> Result<usize> {
        let at = Reader::find(&self.slice, byte)?;
        self.guard.charge(1 + at as u64 / 16)?;
        Ok(at)
    }

    #[inline]
    fn skip(&mut self, len: usize) -> Result<()> {
        self.guard.charge(1)?;
        self.slice.skip(len)
    }

    #[inline]
    fn split(&mut self, len: usize) -> Result<Self> {
        self.guard.charge(1)?;
        Ok(BoundedSlice { slice: self.slice.split(len)?, guard: self.guard })
    }

    #[inline]
    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        self.slice.to_slice()
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        self.guard.charge(self.slice.len() as u64)?;
        Reader::to_string(&self.slice)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        self.guard.charge(self.slice.len() as u64)?;
        Reader::to_string_lossy(&self.slice)
    }

    #[inline]
    fn read_slice(&mut self, buf: &mut [u8]) -> Result<()> {
        self.guard.charge(1)?;
        Reader::read_slice(&mut self.slice, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_ends_every_read() {
        let guard = Guard::new(1);
        let mut reader = BoundedSlice::new(&[1, 2, 3], RunTimeEndian::Little, &guard);
        assert_eq!(reader.read_u8(), Ok(1));
        assert!(guard.charge(READS_AT_LEAST).is_err());
        assert!(reader.read_u8().is_err());
        assert!(reader.skip(1).is_err());
        guard.admit(1);
        assert_eq!(reader.read_u8(), Ok(2));
    }

    #[test]
    fn a_read_too_deep_in_the_stack_fails() {
        fn deeper(reader: BoundedSlice<'_>, levels: usize) -> Result<u8> {
            let padding = std::hint::black_box([0_u8; 4096]);
            let result = if levels == 0 { { reader }.read_u8() } else { deeper(reader, levels - 1) };
            std::hint::black_box(&padding);
            result
        }
        let guard = Guard::new(1);
        let reader = BoundedSlice::new(&[1], RunTimeEndian::Little, &guard);
        assert_eq!(deeper(reader, 10), Ok(1));
        assert!(deeper(reader, MAX_STACK_BYTES / 4096).is_err());
    }
}
