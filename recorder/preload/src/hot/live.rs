//! HOT: the side table: address → (site, size) of every live allocation.
//!
//! The table has two levels. The upper level has 2²¹ pointers, one for each 64 MiB of address space. Each
//! pointer leads to a leaf, which has one entry of 4 bytes for each 32 bytes of addresses. glibc's blocks are
//! at least 32 bytes apart, and edleak requests at least 32 bytes from other allocators (`real`). So each
//! entry belongs to at most one allocation. The table takes at most 1/8 of the heap's size, and takes memory
//! only for addresses that the heap uses.
//!
//! The lower 32 bits of an address, divided by 32, are the index of the address's entry. So in most leaves,
//! the first entry has an index other than 0. Therefore the upper level holds not the address of each leaf,
//! but the *origin* of the leaf: the address at which the entry with index 0 would lie. So a lookup needs
//! no instruction that masks the index.
//!
//! | bits   | field | content for a small allocation; its free is only counted                              |
//! |--------|-------|---------------------------------------------------------------------------------------|
//! | 0..16  | site  | the site's id, never 0; the whole entry is 0 where there is no allocation             |
//! | 16..31 | size  | requested bytes, below [`LARGE`]                                                      |
//! | 31     | slow  | 0                                                                                     |
//!
//! | bits   | field | content for a large or special allocation, whose free is handled by `slow`            |
//! |--------|-------|---------------------------------------------------------------------------------------|
//! | 0..19  | site  | the id of the site or of the cell                                                     |
//! | 19..31 | size  | requested bytes; 4,095: 4,095 bytes or more, the size is in the next four entries     |
//! | 31     | slow  | 1                                                                                     |
//!
//! The size of a large allocation is in four entries, which have the slow bit and the site 0. No allocation
//! has site 0. Each of these four entries holds twelve bits of the size; bit 47 of the size marks a special
//! allocation. So if a size entry stays in the table after its allocation was freed, the library never
//! treats this entry as an allocation.
#![allow(unsafe_code)]

mod made;
mod scan;

use crate::cold::sys;
use crate::hot::tables::{LEAF_SHIFT, LEAVES, TABLES, Top};
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use edleak_session::counters::SiteOffset;
use edleak_session::site::MAX_SITES;
use edleak_session::stack::MAX_CELLS;
use made::MADE;
pub(crate) use scan::for_each;

/// An allocation of 32 KiB or more does not fit into a small entry.
pub(crate) const LARGE: usize = 1 << 15;
pub(crate) const SITE_BITS: u32 = 16;
const _: () = assert!(MAX_SITES <= 1 << SITE_BITS);
const SLOW: u32 = 1 << 31;
const _: () = assert!(LARGE << SITE_BITS == SLOW as usize);
const SLOW_SITE_BITS: u32 = 19;
const _: () = assert!(MAX_SITES + MAX_CELLS <= 1 << SLOW_SITE_BITS);
const SLOW_SIZE_BITS: u32 = 12;
/// If an entry has the slow bit, it can store a size of less than 4,095 bytes. A size of 4,095 bytes or
/// more is stored in the next [`SIZE_ENTRIES`] entries. No other allocation uses the size entries of an
/// allocation, because the allocation itself covers their addresses.
const SLOW_LARGE: usize = (1 << SLOW_SIZE_BITS) - 1;
const SIZE_ENTRIES: usize = 4;
const LARGE_IS_SPECIAL: usize = 1 << 47;
const _: () = assert!(LARGE_IS_SPECIAL << 1 == 1 << (SIZE_ENTRIES as u32 * SLOW_SIZE_BITS));
const _: () = assert!(SIZE_ENTRIES << GRANULE_SHIFT < SLOW_LARGE);
/// An entry holds a small allocation if and only if the value of the entry minus 1 is less than `SMALL`. So
/// one comparison finds out whether an entry holds a small allocation.
pub(crate) const SMALL: u32 = SLOW - 1;
pub(crate) const GRANULE_SHIFT: usize = 5;
const LEAF_ENTRIES: usize = 1 << (LEAF_SHIFT - GRANULE_SHIFT);
const LEAF_BYTES: usize = LEAF_ENTRIES * 4;

/// The lowest index of an entry in the leaf of a region.
fn first_index(region: usize) -> usize {
    index_of(region << LEAF_SHIFT)
}

/// The index of the entry of an address. The entry lies at the origin of the address's leaf plus the index.
#[inline(always)]
fn index_of(address: usize) -> usize {
    (address as u32 >> GRANULE_SHIFT) as usize
}

/// The leaf of a region; null: the region has no leaf.
fn leaf_of(region: usize) -> *mut AtomicU32 {
    let origin = TABLES.top.0[region].load(Ordering::Acquire);
    if origin.is_null() { ptr::null_mut() } else { origin.wrapping_add(first_index(region)) }
}

/// One entry of the side table.
#[derive(Clone, Copy)]
pub(crate) struct Entry(*const AtomicU32);

/// The content of an entry of the side table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found(u32);

/// The value of a small entry, minus 1. If an entry holds a small allocation, the value of the entry minus
/// 1 is less than [`SMALL`], because the slow bit is 0 and the site is not 0. For an empty entry or an
/// entry with the slow bit, the value minus 1 is [`SMALL`] or more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Small(u32);

impl Found {
    /// Whether this entry of the side table is empty.
    #[inline(always)]
    pub(crate) fn is_absent(self) -> bool {
        self.0 == 0
    }

    /// The content of a small allocation's entry; `None`: the entry is empty, large or special. One
    /// comparison excludes empty, large and special entries. `small` is [`SMALL`]; if the thread must not
    /// take the fast path, `small` is 0, and the result is always `None`.
    #[inline(always)]
    pub(crate) fn small(self, small: u32) -> Option<Small> {
        let less = self.0.wrapping_sub(1);
        if less < small { Some(Small(less)) } else { None }
    }

    fn is_slow(self) -> bool {
        self.0 & SLOW != 0
    }

    fn slow_site(self) -> u32 {
        self.0 & ((1 << SLOW_SITE_BITS) - 1)
    }

    fn slow_size(self) -> usize {
        ((self.0 & !SLOW) >> SLOW_SITE_BITS) as usize
    }

    fn is_large(self) -> bool {
        self.is_slow() && self.slow_size() == SLOW_LARGE
    }

    /// The allocation at `address` with this entry; `None`: the entry belongs to no allocation. The size of a
    /// large allocation is stored in the next four entries.
    fn allocation_at(self, address: usize) -> Option<Allocation> {
        if self.is_absent() {
            return None;
        }
        if let Some(small) = self.small(SMALL) {
            return Some(small.into());
        }
        if self.slow_site() == 0 {
            return None; // the entry holds a part of a size, or is the entry of null
        }
        if !self.is_large() {
            return Some(Allocation { site: self.slow_site(), size: self.slow_size(), special: true });
        }
        let size = (0..SIZE_ENTRIES).try_fold(0, |size, n| {
            let part = size_entry(address, n)?.load().slow_size();
            Some(size | part << (n as u32 * SLOW_SIZE_BITS))
        })?;
        let special = size & LARGE_IS_SPECIAL != 0;
        Some(Allocation { site: self.slow_site(), size: size & !LARGE_IS_SPECIAL, special })
    }
}

impl Small {
    /// The site of the allocation.
    #[inline(always)]
    pub(crate) fn site(self) -> SiteOffset {
        SiteOffset::of((self.0 & ((1 << SITE_BITS) - 1)) + 1)
    }

    /// The size of the allocation in bytes.
    #[inline(always)]
    pub(crate) fn size(self) -> usize {
        (self.0 >> SITE_BITS) as usize
    }
}

impl From<Small> for Allocation {
    fn from(small: Small) -> Allocation {
        Allocation { site: small.site().id(), size: small.size(), special: false }
    }
}

/// The entry that holds part number `n` of the size of a large allocation.
fn size_entry(address: usize, n: usize) -> Option<Entry> {
    entry_of((address + ((n + 1) << GRANULE_SHIFT)) as *const u8)
}

impl Entry {
    /// The value that is stored in this entry of the side table.
    #[inline(always)]
    pub(crate) fn load(self) -> Found {
        // SAFETY: an `Entry` is made by `entry_of` or `entry_or_leaf` and lies in a leaf; leaves are never
        // unmapped.
        Found(unsafe { &*self.0 }.load(Ordering::Relaxed))
    }

    /// Makes the first access to the entry's page a write, even if the entry keeps its content. If the first
    /// access were a read, the kernel would map its shared page of zeros, and the later write would cause a
    /// second page fault.
    fn touch(self) {
        // SAFETY: an `Entry` lies in a leaf, and leaves are never unmapped.
        let _ = unsafe { &*self.0 }.compare_exchange(0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Removes a small allocation from the table.
    #[inline(always)]
    pub(crate) fn clear(self) {
        // SAFETY: an `Entry` lies in a leaf, and leaves are never unmapped.
        unsafe { &*self.0 }.store(0, Ordering::Relaxed);
    }

    /// Stores a small allocation; `size` must be less than [`LARGE`].
    #[inline(always)]
    pub(crate) fn store_small(self, site: SiteOffset, size: usize) {
        self.store(site.id() | (size as u32) << SITE_BITS);
    }

    #[inline(always)]
    fn store(self, raw: u32) {
        // SAFETY: an `Entry` lies in a leaf, and leaves are never unmapped.
        unsafe { &*self.0 }.store(raw, Ordering::Relaxed);
    }
}

/// The entry of an address; `None`: the table has no leaf for this address. A target may pass null or any
/// other number to free; the library treats every such number as an address.
#[inline(always)]
pub(crate) fn entry_of(allocation: *const u8) -> Option<Entry> {
    let address = allocation as usize;
    // SAFETY: the index is masked to the table's size.
    let origin =
        unsafe { TABLES.top.0.get_unchecked((address >> LEAF_SHIFT) & (LEAVES - 1)) }.load(Ordering::Relaxed);
    if origin.is_null() {
        return None;
    }
    Some(Entry(origin.wrapping_add(index_of(address))))
}

/// The entry of an address. The function maps the leaf if needed. `None`: there is no memory for the leaf.
fn entry_or_leaf(address: usize) -> Option<Entry> {
    if let Some(entry) = entry_of(address as *const u8) {
        return Some(entry);
    }
    entry_in_new_leaf(address)
}

#[cold]
fn entry_in_new_leaf(address: usize) -> Option<Entry> {
    let region = (address >> LEAF_SHIFT) & (LEAVES - 1);
    let top = &TABLES.top.0[region];
    let leaf = sys::map_private(LEAF_BYTES)?.cast::<AtomicU32>();
    let origin = leaf.wrapping_sub(first_index(region));
    if origin.is_null() {
        // The kernel has mapped the leaf in the first 512 MiB of the address space, at the only address whose
        // origin cannot be distinguished from a missing leaf.
        sys::unmap(leaf.cast(), LEAF_BYTES);
        return None;
    }
    // If a program is linked at a low fixed address, the entries of its heap may lie in the leaf that also
    // contains the entry of the address 0 (null).
    mark_null(leaf, region);
    MADE.add(region);
    if let Err(theirs) = top.compare_exchange(ptr::null_mut(), origin, Ordering::AcqRel, Ordering::Acquire) {
        debug_assert!(!theirs.is_null());
        sys::unmap(leaf.cast(), LEAF_BYTES);
    }
    entry_of(address as *const u8)
}

/// Removes every allocation from the table. Call this function only while no thread counts. The leaves stay
/// mapped.
#[cold]
pub(crate) fn clear() {
    for region in MADE.regions() {
        let leaf = leaf_of(region);
        if !leaf.is_null() {
            sys::clear_pages(leaf.cast(), LEAF_BYTES);
            mark_null(leaf, region);
        }
    }
}

/// If `leaf` contains the entry of the address 0 (null), stores the slow bit in this entry. So the fast
/// path never takes this entry for a small allocation or for an empty entry.
fn mark_null(leaf: *const AtomicU32, region: usize) {
    if region == 0 {
        Entry(leaf).store(SLOW);
    }
}

/// Asks the kernel not to use huge pages for the upper level, because a program with few allocations touches
/// only a small part of the upper level.
#[cold]
pub(crate) fn keep_small() {
    sys::no_huge_pages((&raw const TABLES.top).cast(), size_of::<Top>());
}

/// An allocation that is stored in the side table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allocation {
    /// The id of the allocation's site.
    pub site: u32,
    /// Number of bytes that the program requested.
    pub size: usize,
    /// Whether the library has further work, in addition to counting, when the target frees this
    /// allocation.
    pub special: bool,
}

/// Stores an allocation of any size. If another allocation is still stored at this address, because no hook
/// saw its free, the function returns that allocation. `Err`: there is no memory for the table.
pub(crate) fn insert(address: *const u8, allocation: Allocation) -> Result<Option<Allocation>, ()> {
    let entry = entry_or_leaf(address as usize).ok_or(())?;
    let stale = take(address);
    if !allocation.special && allocation.size < LARGE {
        entry.store_small(SiteOffset::of(allocation.site), allocation.size);
    } else if allocation.size < SLOW_LARGE {
        entry.store(allocation.site | (allocation.size as u32) << SLOW_SITE_BITS | SLOW);
    } else {
        let flag = if allocation.special { LARGE_IS_SPECIAL } else { 0 };
        for n in 0..SIZE_ENTRIES {
            let part = (allocation.size | flag) >> (n as u32 * SLOW_SIZE_BITS) & SLOW_LARGE;
            let at = address as usize + ((n + 1) << GRANULE_SHIFT);
            entry_or_leaf(at).ok_or(())?.store(SLOW | (part as u32) << SLOW_SITE_BITS);
        }
        entry.store(allocation.site | (SLOW_LARGE as u32) << SLOW_SITE_BITS | SLOW);
    }
    Ok(stale)
}

/// Removes stale allocations from the table: all allocations whose entries or size entries the new
/// allocation at `address` will overwrite. Passes each stale allocation to `visit`. An allocation is stale
/// if the library has missed its free, and malloc has given its memory out again.
pub(crate) fn take_covered(address: *const u8, allocation: Allocation, mut visit: impl FnMut(Allocation)) {
    let is_small = !allocation.special && allocation.size < LARGE;
    let entries = if is_small || allocation.size < SLOW_LARGE { 1 } else { 1 + SIZE_ENTRIES };
    entry_of(address).into_iter().for_each(Entry::touch);
    for n in 0..entries {
        let at = (address as usize).wrapping_add(n << GRANULE_SHIFT);
        let stale = if n == 0 { None } else { take(at as *const u8) };
        stale.or_else(|| take_owner(at)).into_iter().for_each(&mut visit);
    }
}

/// If the entry of `address` is a size entry of a large allocation, removes this large allocation from the
/// table.
fn take_owner(address: usize) -> Option<Allocation> {
    let part = entry_of(address as *const u8)?.load();
    if address >> GRANULE_SHIFT == 0 || !part.is_slow() || part.slow_site() != 0 {
        return None;
    }
    (1..=SIZE_ENTRIES).find_map(|n| {
        let owner = address.checked_sub(n << GRANULE_SHIFT)? as *const u8;
        let found = entry_of(owner)?.load();
        if found.is_large() && found.slow_site() != 0 { take(owner) } else { None }
    })
}

/// Removes the allocation at an address from the table and returns the allocation.
pub(crate) fn take(address: *const u8) -> Option<Allocation> {
    if address.is_null() {
        return None;
    }
    let entry = entry_of(address)?;
    let found = entry.load();
    let was = found.allocation_at(address as usize)?;
    if found.is_large() {
        (0..SIZE_ENTRIES).filter_map(|n| size_entry(address as usize, n)).for_each(Entry::clear);
    }
    entry.clear();
    Some(was)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: usize) -> *const u8 {
        address as *const u8
    }

    fn allocation(site: u32, size: usize) -> Allocation {
        Allocation { site, size, special: false }
    }

    // The tests need no memory at these addresses, because the side table never touches the allocations that
    // the table describes. Tests run in parallel, so each test has its own addresses.
    const BASE: usize = 0x1234_0000_0000;

    #[test]
    fn the_entries_of_a_region_are_its_leaf() {
        // The four regions have all values of the two highest bits of the lower 32 bits.
        for address in [0x3000_1000_0000_usize, 0x3000_5000_0000, 0x3000_9000_0000, 0x3000_f000_0000] {
            let (region, last) = (address >> LEAF_SHIFT, address + (1 << LEAF_SHIFT) - 1);
            let first_entry = entry_or_leaf(address).expect("memory").0;
            let last_entry = entry_of(at(last)).expect("the same leaf").0;
            assert_eq!(first_entry, leaf_of(region).cast_const());
            assert_eq!(last_entry, first_entry.wrapping_add(LEAF_ENTRIES - 1));
        }
    }

    #[test]
    fn every_size_comes_back_across_the_boundary_of_large() {
        for (i, size) in
            [0, 1, 31, 4094, 4095, 4096, 32_766, 32_767, 32_768, 65_536, u32::MAX as usize, (1 << 47) - 1]
                .into_iter()
                .enumerate()
        {
            for (site, special) in
                [(1 + i as u32, false), ((1 << SITE_BITS) - 1, false), ((1 << SLOW_SITE_BITS) - 1, true)]
            {
                let address = at(BASE + (30 << LEAF_SHIFT) + i * (1 << 20));
                let allocation = Allocation { site, size, special };
                assert_eq!(insert(address, allocation), Ok(None));
                assert_eq!(take(address), Some(allocation));
                assert_eq!(take(address), None);
                assert_eq!(take(at(address as usize + 32)), None, "a large size leaves nothing behind");
            }
        }
    }

    #[test]
    fn a_large_allocation_may_end_a_leaf() {
        let address = at(BASE + (3 << LEAF_SHIFT) - 32);
        assert_eq!(insert(address, allocation(9, 50_000)), Ok(None));
        assert_eq!(take(address), Some(allocation(9, 50_000)));
    }

    // This test models a forked child that counts the allocations of its parent. The size entries of an
    // allocation at the end of a leaf lie in the next leaf.
    #[test]
    fn every_allocation_is_shown_once_and_may_be_inserted_anew() {
        let base = BASE + (9 << LEAF_SHIFT);
        let mine = |address: *const u8| (base..base + (2 << LEAF_SHIFT)).contains(&(address as usize));
        let all = [
            (base, Allocation { site: 3, size: 10, special: false }),
            (base + 32, Allocation { site: 4, size: 4094, special: true }),
            (base + 4160, Allocation { site: 5, size: 1 << 33, special: true }),
            ((base + (1 << LEAF_SHIFT)) - 32, Allocation { site: 6, size: 50_000, special: false }),
            (base + (1 << LEAF_SHIFT) + 51_200, Allocation { site: 7, size: 0, special: false }),
        ];
        for (address, allocation) in all {
            assert_eq!(insert(at(address), allocation), Ok(None));
        }
        let mut shown = std::vec::Vec::new();
        for_each(|address, allocation| {
            if mine(address) {
                shown.push((address as usize, allocation));
                let plain = Allocation { site: allocation.site + 100, special: false, ..allocation };
                assert_eq!(insert(address, plain), Ok(Some(allocation)));
            }
        });
        assert_eq!(shown, all);
        for (address, was) in all {
            assert_eq!(take(at(address)), Some(Allocation { site: was.site + 100, special: false, ..was }));
        }
    }

    #[test]
    fn null_is_never_an_allocation() {
        assert_eq!(insert(at(0x40_0000), allocation(2, 64)), Ok(None));
        let null = entry_of(ptr::null()).expect("its leaf is mapped").load();
        assert!(null.small(SMALL).is_none() && !null.is_absent());
        assert_eq!(take(ptr::null()), None);
        assert_eq!(take(at(0x40_0000)), Some(allocation(2, 64)));
    }

    // In this test, the hooks have missed the free of a large block, and malloc has given out the memory of
    // this block again at a slightly higher address.
    #[test]
    fn size_word_of_a_freed_block_is_not_an_allocation() {
        let address = BASE + 0xa0_0000;
        assert_eq!(insert(at(address), allocation(8, 0x1234_5678_9abc)), Ok(None));
        for n in 1..8 {
            assert_eq!(take(at(address + 32 * n)), None);
            assert_eq!(insert(at(address + 32 * n), allocation(9, 20)), Ok(None));
        }
    }

    #[test]
    fn a_large_allocation_is_forgotten_with_its_size_where_its_memory_comes_again() {
        let covered = |address: usize, new: Allocation| {
            let mut gone = std::vec::Vec::new();
            take_covered(at(address), new, |stale| gone.push(stale));
            gone
        };
        let base = BASE + 0xb0_0000;
        let large = allocation(8, 0x1234_5678_9abc);
        for n in 1..=4 {
            assert_eq!(insert(at(base), large), Ok(None));
            assert_eq!(covered(base + 32 * n, allocation(9, 20)), [large], "part {n}");
            assert_eq!(take(at(base)), None);
        }
        // The test inserts a large allocation at `base` + 64 and a small allocation at `base` + 32. The
        // size entries of a new large allocation at `base` overwrite both allocations.
        assert_eq!(insert(at(base + 64), large), Ok(None));
        assert_eq!(insert(at(base + 32), allocation(7, 5)), Ok(None));
        assert_eq!(covered(base, allocation(9, 50_000)), [allocation(7, 5), large]);
        assert_eq!(covered(base, allocation(9, 50_000)), []);
        // A new large allocation at `base` does not overwrite an allocation at `base` + 160, so that
        // allocation stays in the table.
        assert_eq!(insert(at(base + 160), large), Ok(None));
        assert_eq!(covered(base, allocation(9, 50_000)), []);
        assert_eq!(covered(base + 320, allocation(9, 20)), []);
        assert_eq!(take(at(base + 160)), Some(large));
    }

    #[test]
    fn neighbours_of_32_bytes_do_not_meet() {
        for i in 0..64 {
            assert_eq!(insert(at(BASE + 0x40_0010 + i * 32), allocation(i as u32 + 1, i)), Ok(None));
        }
        for i in 0..64 {
            assert_eq!(take(at(BASE + 0x40_0010 + i * 32)), Some(allocation(i as u32 + 1, i)));
        }
    }

    #[test]
    fn unfreed_allocation_is_reported_when_its_address_returns() {
        let address = at(BASE + 0x80_0000);
        assert_eq!(insert(address, allocation(3, 100)), Ok(None));
        assert_eq!(insert(address, allocation(4, 50_000)), Ok(Some(allocation(3, 100))));
        assert_eq!(insert(address, allocation(5, 10)), Ok(Some(allocation(4, 50_000))));
        assert_eq!(take(address), Some(allocation(5, 10)));
    }

    #[test]
    fn one_comparison_tells_small_from_absent_large_and_special() {
        let address = at(BASE + 0xc0_0000);
        let entry = || entry_of(address).expect("its leaf is mapped");
        for (size, special, small) in [
            (0, false, true),
            (LARGE - 1, false, true),
            (LARGE, false, false),
            (0, true, false),
            (LARGE - 1, true, false),
        ] {
            for site in [1, (1 << SITE_BITS) - 1] {
                insert(address, Allocation { site, size, special }).expect("there is memory");
                assert_eq!(entry().load().small(SMALL).is_some(), small, "size {size}, special {special}");
                assert!(entry().load().small(0).is_none());
                take(address);
                assert!(entry().load().small(SMALL).is_none(), "absent");
            }
        }
    }
}
