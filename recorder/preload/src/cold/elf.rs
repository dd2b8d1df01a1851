//! COLD: reads the ELF headers and the build ID of a loaded module from memory.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU8, Ordering};
use edleak_session::event::BUILD_ID_BYTES;
use edleak_session::layout::PAGE_BYTES;

/// Whether an address lies in this library. The function does not compare with the address of a symbol that
/// the library exports: if the program defines a symbol of the same name, the loader uses the program's
/// definition.
pub(crate) fn is_own(address: usize) -> bool {
    unsafe extern "C" {
        static __ehdr_start: u8;
    }
    let base = (&raw const __ehdr_start) as usize;
    // SAFETY: the linker defines this symbol at the start of this library's mapping.
    address >= base && unsafe { elf_extent(base) }.is_some_and(|(end, _)| address < end)
}

/// Copies the GNU build ID of a mapped module. Returns the length of the build ID in bytes; 0: the module has
/// no build ID that can be read.
///
/// # Safety
/// The module at `base` is mapped up to `end`.
pub(crate) unsafe fn copy_build_id(base: usize, end: usize, to: &[AtomicU8; BUILD_ID_BYTES]) -> u32 {
    // SAFETY: the caller of this function guarantees that the module is mapped.
    let Some((at, length)) = (unsafe { build_id_at(base, end) }) else { return 0 };
    for (index, byte) in to.iter().enumerate().take(length) {
        // SAFETY: `build_id_at` has found this many bytes in a readable segment.
        byte.store(unsafe { (at as *const u8).wrapping_add(index).read() }, Ordering::Relaxed);
    }
    length.min(BUILD_ID_BYTES) as u32
}

/// The address and the length of a mapped module's build ID.
///
/// # Safety
/// The module at `base` is mapped up to `end`.
pub(crate) unsafe fn build_id_at(base: usize, end: usize) -> Option<(usize, usize)> {
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    const PF_R: u32 = 4;
    const NT_GNU_BUILD_ID: u32 = 3;
    const NOTE_HEADER_BYTES: usize = 16; // including the name `GNU`
    // SAFETY: all reads are in the first page, or in a note that lies in a segment.
    let half = |at: usize| unsafe { (at as *const u32).read_unaligned() };
    // SAFETY: all reads are in the first page, or in a note that lies in a segment.
    let word = |at: usize| unsafe { (at as *const usize).read_unaligned() };
    let headers = word(base + 32);
    let count = half(base + 56) as usize & 0xffff;
    if headers > 2048 || count > 32 {
        return None;
    }
    let header = |index: usize| base + headers + index * 56;
    let within_page = (0..count).take_while(|&index| header(index) + 56 <= base + PAGE_BYTES);
    let notes = within_page.clone().filter(|&index| half(header(index)) == PT_NOTE);
    for note in notes.map(header) {
        let (from, bytes) = (word(note + 16), word(note + 32));
        let is_in = |segment: usize| {
            let (start, length) = (word(segment + 16), word(segment + 32));
            half(segment) == PT_LOAD
                && half(segment + 4) & PF_R != 0
                && from >= start
                && bytes <= length
                && from - start <= length - bytes
        };
        if !within_page.clone().map(header).any(is_in) || base.checked_add(from)?.checked_add(bytes)? > end {
            continue;
        }
        let (mut at, note_end) = (base + from, base + from + bytes);
        let align = if word(note + 48) == 8 { 8 } else { 4 };
        while at + NOTE_HEADER_BYTES <= note_end {
            let (name_bytes, length) = (half(at) as usize, half(at + 4) as usize);
            let desc = at.checked_add(12)?.checked_add(name_bytes.next_multiple_of(align))?;
            let next = desc.checked_add(length.checked_next_multiple_of(align)?)?;
            if half(at + 8) == NT_GNU_BUILD_ID
                && name_bytes == 4
                && half(at + 12) == u32::from_le_bytes(*b"GNU\0")
            {
                return (length > 0 && desc + length <= note_end).then_some((desc, length));
            }
            at = next;
        }
    }
    None
}

/// The end of the last segment of a mapped ELF file, and a hash of the first 1,024 bytes of the file. The
/// first segment of the file begins at `base`.
///
/// # Safety
/// A page is mapped at `base`.
pub(crate) unsafe fn elf_extent(base: usize) -> Option<(usize, u64)> {
    const HASHED: usize = 1024;
    let byte = |offset: usize| {
        // SAFETY: the caller guarantees that the page at `base` is mapped, and the offset stays within this
        // page.
        unsafe { ((base + offset) as *const u8).read() }
    };
    let word = |offset: usize| (0..8).fold(0u64, |word, i| word | u64::from(byte(offset + i)) << (8 * i));
    if base == 0 || !base.is_multiple_of(PAGE_BYTES) || word(0) as u32 != u32::from_le_bytes(*b"\x7fELF") {
        return None;
    }
    let headers = word(32) as usize;
    let count = usize::from(byte(56)) | usize::from(byte(57)) << 8;
    if headers > 2048 || count > 32 {
        return None;
    }
    let mut end = 0;
    for index in 0..count {
        let at = headers + index * 56;
        if at + 56 > PAGE_BYTES {
            return None;
        }
        const PT_LOAD: u32 = 1;
        if word(at) as u32 == PT_LOAD {
            end = end.max(word(at + 16).wrapping_add(word(at + 40)) as usize);
        }
    }
    let identity = (0..HASHED).fold(0xcbf2_9ce4_8422_2325u64, |hash, offset| {
        (hash ^ u64::from(byte(offset))).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (end > 0 && end < 1 << 40).then(|| (base + end, identity))
}
