//! COLD: visits every allocation in the side table.
#![allow(unsafe_code)]

use super::made::MADE;
use super::{Allocation, Entry, GRANULE_SHIFT, LEAF_ENTRIES, leaf_of};
use crate::cold::sys;
use crate::hot::tables::LEAF_SHIFT;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use edleak_session::layout::PAGE_BYTES;

/// Passes every allocation in the table and its address to `visit`; `visit` may store the allocation again. A
/// leaf has 8 MiB, but for a small heap, the library has touched only some pages of the leaf. A read of an
/// untouched page would make the kernel map this page, so the library asks the kernel which pages exist.
#[cold]
pub(crate) fn for_each(mut visit: impl FnMut(*const u8, Allocation)) {
    let pagemap = sys::open(b"/proc/self/pagemap\0", false);
    for region in MADE.regions() {
        let leaf = leaf_of(region);
        if leaf.is_null() {
            continue;
        }
        for first in (0..LEAF_PAGES).step_by(PAGES_AT_A_TIME) {
            let flags = page_flags(pagemap, leaf.wrapping_add(first * PAGE_ENTRIES));
            let is_there = |page: usize| match &flags {
                Some(flags) => flags.as_chunks().0.get(page).is_some_and(|&flags| is_present(flags)),
                None => true,
            };
            for page in (0..PAGES_AT_A_TIME).filter(|&page| is_there(page)) {
                let first = (first + page) * PAGE_ENTRIES;
                for pair in (first..first + PAGE_ENTRIES).step_by(2) {
                    // Most entries are empty, so the code reads two entries with one load.
                    // SAFETY: the index is below the leaf's size, and a pair of entries is aligned.
                    let both = unsafe { &*leaf.wrapping_add(pair).cast::<AtomicU64>() };
                    if both.load(Ordering::Relaxed) == 0 {
                        continue;
                    }
                    for index in [pair, pair + 1] {
                        let address = region << LEAF_SHIFT | index << GRANULE_SHIFT;
                        // SAFETY: the index is below the leaf's size.
                        let found = Entry(unsafe { leaf.add(index) }).load();
                        if let Some(allocation) = found.allocation_at(address) {
                            visit(address as *const u8, allocation);
                        }
                    }
                }
            }
        }
    }
    if let Some(pagemap) = pagemap {
        sys::close(pagemap);
    }
}

const PAGE_ENTRIES: usize = PAGE_BYTES / size_of::<AtomicU32>();
const LEAF_PAGES: usize = LEAF_ENTRIES / PAGE_ENTRIES;
const PAGES_AT_A_TIME: usize = 256;
const _: () = assert!(LEAF_PAGES.is_multiple_of(PAGES_AT_A_TIME));
/// Bits 62 and 63 of an entry of /proc/PID/pagemap. Bit 62 is set if the page is swapped out, and bit 63 is
/// set if the page is in memory.
const THERE: u64 = 3 << 62;

const FLAG_BYTES: usize = size_of::<u64>();

fn is_present(flags: [u8; FLAG_BYTES]) -> bool {
    u64::from_ne_bytes(flags) & THERE != 0
}

/// The entries of /proc/PID/pagemap for [`PAGES_AT_A_TIME`] pages, beginning with the page at the address
/// `from`. `None`: this process may not read the entries.
#[cold]
fn page_flags(pagemap: Option<usize>, from: *const AtomicU32) -> Option<[u8; PAGES_AT_A_TIME * FLAG_BYTES]> {
    let mut flags = [0; PAGES_AT_A_TIME * FLAG_BYTES];
    let read = sys::read_at(pagemap?, &mut flags, from.addr() / PAGE_BYTES * FLAG_BYTES);
    (read == flags.len()).then_some(flags)
}
