//! Marks: named instants of the target. At some marks, the thread that sets the mark also takes a slice,
//! which is a copy of the counters.
//!
//! Each mark has a name, and setting a mark adds one to the count of the name. At some counts, a slice is
//! due: the thread that sets the mark copies the counters of sites into a ring, which the collector reads.
//! The slice contains all sites whose counters changed since the previous slice. So the counters in the
//! slice are exact for the instant of the mark, even if the time between two marks is short. A slice is due
//! at each of the first 64 marks of a name. From then on, 32 slices are due until the number of marks of
//! this name has doubled, and again 32 slices until it has doubled again. So a million marks of one name
//! cause about 500 slices.
//!
//! The counters of mapped memory and of pools are not in the session: the collector computes these counters
//! from two rings of events. So the thread that takes a slice also adds an event to the ring of mapping
//! events and to the ring of pool events. This event contains the position of the slice in the ring of
//! marks. When the collector reads this event from one of the two rings, it has read all earlier events of
//! that ring. So the collector's counters of mapped memory or of pools are then exact for the instant of
//! the mark.
//!
//! A thread that sets a mark never waits. If another thread is taking a slice, or if the ring is full, the
//! next mark of the same name takes the slice. Counters are cumulative, so the slice at the next mark still
//! counts every allocation.
//!
//! | word of a slice in the ring | content |
//! |---|---|
//! | 0 | index of the name (low half), number of changed ids (high half) |
//! | 1 | count of the name |
//! | 2 + 5 n | id: a site, or [`MAX_SITES`] plus the number of a cell |
//! | 3 + 5 n .. 7 + 5 n | allocations, frees, allocated bytes, freed bytes |

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::counters::Counters;
use crate::site::MAX_SITES;
use crate::stack::{Cell, MAX_CELLS};

/// Maximum number of different names of marks.
pub const MAX_NAMES: usize = 256;
/// Number of bytes of a name that the session stores.
pub const MAX_NAME_BYTES: usize = 96;
/// Maximum number of IDs in a slice. IDs below `MAX_SITES` stand for sites. All other IDs stand for cells; a
/// cell holds the counts of one stack in one span of time.
pub const MAX_IDS: usize = MAX_SITES + MAX_CELLS;
/// Number of words of 8 bytes in the ring.
pub const RING_WORDS: usize = 1 << 19;
/// Number of words of a slice before its first ID.
pub const HEAD_WORDS: usize = 2;
/// Number of words that a slice has for each ID.
pub const ID_WORDS: usize = 5;
/// Up to 64 marks of a name, a slice is due at each mark of this name.
const ALL_DUE: u64 = 64;
/// Number of slices that are due each time that the count of a name doubles, after the first `ALL_DUE`
/// counts.
const DUE_IN_A_DOUBLING: u64 = 32;

/// The count of a mark's name at which the next slice is due, after a slice was due at `count`. From a
/// power of two to the next power of two, `in_a_doubling` slices are due.
pub const fn due_after(count: u64, in_a_doubling: u64) -> u64 {
    if count < ALL_DUE {
        return count + 1;
    }
    let stride = (1 << count.ilog2()) / in_a_doubling;
    (count / stride + 1) * stride
}

/// The state that all marks of a session share.
#[repr(C)]
#[derive(Default)]
pub struct MarkState {
    /// 1: a thread is taking a slice.
    pub busy: AtomicU32,
    /// 1: the program has set a mark. While `named` is 0, the collector must not read the names of marks,
    /// because the kernel would then allocate memory pages for the names.
    pub named: AtomicU32,
    /// Number of words that the target has written into the ring since the target attached.
    pub written: AtomicU64,
    /// Number of words that the collector has read from the ring.
    pub read: AtomicU64,
    /// If the ring had too little room for a slice: the value that `read` had at that time, plus 1. Until
    /// `read` changes, the ring has no more room, so no thread tries to write a slice.
    pub full_at: AtomicU64,
    /// Number of marks that were not counted, because the table of names had no free entry for the name.
    pub unnamed: AtomicU64,
    /// Number of times that a slice was due and a mark could not take the slice.
    pub put_off: AtomicU64,
}

/// One name of marks, with the number of its marks and the count at which the next slice is due.
#[repr(C, align(64))]
pub struct MarkName {
    /// Hash of the name. Two names with the same hash count as one name. 0: this entry of the table is free.
    pub hash: AtomicU64,
    /// Number of marks of this name.
    pub count: AtomicU64,
    /// The count at which the next slice is due.
    pub due: AtomicU64,
    /// Number of bytes in `bytes`, plus 1. The thread that stores a name stores `length` last, so `length`
    /// is 0 until the name is complete.
    pub length: AtomicU32,
    /// 1: the name is longer than [`MAX_NAME_BYTES`], and only its first bytes are stored.
    pub is_cut: AtomicU32,
    /// The first bytes of the name, at most [`MAX_NAME_BYTES`].
    pub bytes: [AtomicU8; MAX_NAME_BYTES],
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<MarkName>() == 128);

/// The counts that one ID (of a site or of a cell) had in the latest slice that contains this ID.
#[repr(C)]
#[derive(Default)]
pub struct Seen {
    /// Number of allocations.
    pub allocs: AtomicU64,
    /// Number of frees.
    pub frees: AtomicU64,
}

/// The name that the caller of `edleak_mark` passes, shortened to at most [`MAX_NAME_BYTES`] bytes.
#[derive(Clone, Copy)]
pub struct GivenName<'n> {
    /// The bytes of the name, at most [`MAX_NAME_BYTES`].
    pub bytes: &'n [u8],
    /// Hash of `bytes`. If two names differ only after the first [`MAX_NAME_BYTES`] bytes, they count as the
    /// same mark.
    pub hash: u64,
    /// Whether the name is longer than `bytes`.
    pub is_cut: bool,
}

/// Adds a byte to the hash of a name.
#[inline(always)]
pub fn mix(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01B3)
}

/// The hash of an empty name.
pub const EMPTY_HASH: u64 = 0xCBF2_9CE4_8422_2325;

/// The tables of the session for marks.
#[derive(Clone, Copy)]
pub struct Marks<'s> {
    /// The state that all marks share.
    pub state: &'s MarkState,
    /// One entry for each name of a mark.
    pub names: &'s [MarkName],
    /// For each ID of a site or of a cell: the numbers of allocations and frees in the latest slice that
    /// contains this ID.
    pub seen: &'s [Seen],
    /// The ring of slices.
    pub ring: &'s [AtomicU64],
}

/// The counters that a thread copies into a slice when it sets a mark.
#[derive(Clone, Copy)]
pub struct Counted<'s> {
    /// Counters of all shards that have a single owner: [`MAX_SITES`] counters for each shard.
    pub shards: &'s [Counters],
    /// Counters of the last shard if several threads share this shard; otherwise empty.
    pub shared: &'s [Counters],
    /// Number of site ids that are in use.
    pub sites: usize,
    /// The cells that are in use. A cell holds the counters of one stack in one epoch.
    pub cells: &'s [Cell],
}

/// The sum of one ID's counters in all shards.
#[derive(Clone, Copy, Default)]
struct Sum {
    allocs: u64,
    frees: u64,
    allocated_bytes: u64,
    freed_bytes: u64,
}

impl Sum {
    /// Adds up one ID's counters of all shards. The function loads the counts of frees before the counts of
    /// allocations, and the target counts an allocation before it counts the free of this allocation. So if
    /// the sum contains a free, the sum also contains the freed allocation, and the number of live bytes is
    /// never negative.
    fn of<'c>(all: impl Iterator<Item = &'c Counters> + Clone) -> Sum {
        let mut sum = Sum::default();
        for counters in all.clone() {
            sum.frees = sum.frees.wrapping_add(counters.frees.load(Ordering::Acquire));
            sum.freed_bytes = sum.freed_bytes.wrapping_add(counters.freed_bytes.load(Ordering::Acquire));
        }
        for counters in all {
            sum.allocs = sum.allocs.wrapping_add(counters.allocs.load(Ordering::Acquire));
            sum.allocated_bytes =
                sum.allocated_bytes.wrapping_add(counters.allocated_bytes.load(Ordering::Acquire));
        }
        sum
    }
}

impl Counted<'_> {
    fn sum(&self, id: usize) -> Sum {
        match id.checked_sub(MAX_SITES) {
            Some(cell) => Sum::of(self.cells.get(cell).map(|cell| &cell.counters).into_iter()),
            None => {
                let owned = self.shards.chunks(MAX_SITES).filter_map(|shard| shard.get(id));
                Sum::of(owned.chain(self.shared.get(id)))
            }
        }
    }

    fn ids(&self) -> impl Iterator<Item = usize> {
        (0..self.sites).chain((0..self.cells.len()).map(|cell| MAX_SITES + cell))
    }
}

/// The index and the entry of a name in a table. If the table has no entry for the name, the function creates
/// the entry. `None`: the table has no free entry. The function takes no lock.
pub(crate) fn place_of<'n>(names: &'n [MarkName], name: GivenName<'_>) -> Option<(usize, &'n MarkName)> {
    let hash = name.hash.max(1);
    for probe in 0..names.len() {
        let index = (hash as usize).wrapping_add(probe) % names.len();
        let place = names.get(index)?;
        let mut found = place.hash.load(Ordering::Acquire);
        if found == 0 {
            match place.hash.compare_exchange(0, hash, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    for (to, &byte) in place.bytes.iter().zip(name.bytes) {
                        to.store(byte, Ordering::Relaxed);
                    }
                    place.is_cut.store(u32::from(name.is_cut), Ordering::Relaxed);
                    place.length.store(name.bytes.len() as u32 + 1, Ordering::Release);
                    return Some((index, place));
                }
                Err(theirs) => found = theirs,
            }
        }
        if found == hash {
            return Some((index, place));
        }
    }
    None
}

impl Marks<'_> {
    /// Sets a mark, without a lock. Calls `counted`, which returns the current counters, only if a slice is
    /// due. Before the function publishes a slice, it calls `note` with the position of the slice in the
    /// ring.
    pub fn set<'c>(
        &self,
        name: GivenName<'_>,
        counted: impl FnOnce() -> Counted<'c>,
        note: impl FnOnce(u64),
    ) {
        let Some((index, place)) = place_of(self.names, name) else {
            self.state.unnamed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if self.state.named.load(Ordering::Relaxed) == 0 {
            self.state.named.store(1, Ordering::Relaxed);
        }
        let count = place.count.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if count < place.due.load(Ordering::Relaxed) {
            return;
        }
        if !self.take_slice(index, place, count, counted, note) {
            self.state.put_off.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a slice. `false`: the mark would have to wait for another thread, or for room in the ring.
    fn take_slice<'c>(
        &self,
        index: usize,
        place: &MarkName,
        count: u64,
        counted: impl FnOnce() -> Counted<'c>,
        note: impl FnOnce(u64),
    ) -> bool {
        let state = self.state;
        let read = state.read.load(Ordering::Acquire);
        if state.full_at.load(Ordering::Relaxed) == read.wrapping_add(1)
            || state.busy.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return false;
        }
        // Meanwhile, another thread that set a mark of the same name may already have taken the slice that
        // was due, so check again whether a slice is due.
        let is_due = count >= place.due.load(Ordering::Relaxed);
        let is_taken = !is_due || self.write_slice(index, count, read, &counted(), note);
        if is_due && is_taken {
            place.due.store(due_after(count, DUE_IN_A_DOUBLING), Ordering::Relaxed);
        }
        state.busy.store(0, Ordering::Release);
        is_taken
    }

    /// Writes a slice into the ring. `false`: the ring has too little room, and the function has published
    /// nothing.
    fn write_slice(
        &self,
        index: usize,
        count: u64,
        read: u64,
        counted: &Counted<'_>,
        note: impl FnOnce(u64),
    ) -> bool {
        let state = self.state;
        let start = state.written.load(Ordering::Relaxed);
        let room = (self.ring.len() as u64).saturating_sub(start.wrapping_sub(read));
        let word = |at: u64| self.ring.get(at as usize % self.ring.len().max(1));
        let mut at = HEAD_WORDS as u64;
        for id in counted.ids() {
            let Some(seen) = self.seen.get(id) else { break };
            let sum = counted.sum(id);
            if sum.allocs == seen.allocs.load(Ordering::Relaxed)
                && sum.frees == seen.frees.load(Ordering::Relaxed)
            {
                continue;
            }
            if at + ID_WORDS as u64 > room {
                state.full_at.store(read.wrapping_add(1), Ordering::Relaxed);
                return false;
            }
            let words = [id as u64, sum.allocs, sum.frees, sum.allocated_bytes, sum.freed_bytes];
            for (offset, value) in words.into_iter().enumerate() {
                if let Some(word) = word(start.wrapping_add(at + offset as u64)) {
                    word.store(value, Ordering::Relaxed);
                }
            }
            at += ID_WORDS as u64;
        }
        if at > room {
            state.full_at.store(read.wrapping_add(1), Ordering::Relaxed);
            return false;
        }
        let ids = (at - HEAD_WORDS as u64) / ID_WORDS as u64;
        for (offset, value) in [index as u64 | ids << 32, count].into_iter().enumerate() {
            if let Some(word) = word(start.wrapping_add(offset as u64)) {
                word.store(value, Ordering::Relaxed);
            }
        }
        let load = |at: u64| word(start.wrapping_add(at)).map_or(0, |word| word.load(Ordering::Relaxed));
        for nth in 0..ids {
            let at = HEAD_WORDS as u64 + nth * ID_WORDS as u64;
            if let Some(seen) = self.seen.get(load(at) as usize) {
                seen.allocs.store(load(at + 1), Ordering::Relaxed);
                seen.frees.store(load(at + 2), Ordering::Relaxed);
            }
        }
        note(start);
        state.written.store(start.wrapping_add(at), Ordering::Release);
        true
    }
}

#[cfg(all(test, not(edleak_loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    struct Owned {
        state: MarkState,
        names: Vec<MarkName>,
        seen: Vec<Seen>,
        ring: Vec<AtomicU64>,
        counters: Vec<Counters>,
        noted: std::sync::Mutex<Vec<u64>>,
    }

    impl Owned {
        fn new(names: usize, ring_words: usize) -> Owned {
            let name = || MarkName {
                hash: 0.into(),
                count: 0.into(),
                due: 0.into(),
                length: 0.into(),
                is_cut: 0.into(),
                bytes: [const { AtomicU8::new(0) }; MAX_NAME_BYTES],
            };
            Owned {
                state: MarkState::default(),
                names: (0..names).map(|_| name()).collect(),
                seen: (0..MAX_SITES).map(|_| Seen::default()).collect(),
                ring: (0..ring_words).map(|_| AtomicU64::new(0)).collect(),
                counters: (0..2 * MAX_SITES).map(|_| Counters::default()).collect(),
                noted: std::sync::Mutex::default(),
            }
        }

        fn set(&self, name: &str) {
            let hash = name.bytes().fold(EMPTY_HASH, mix);
            let marks = Marks { state: &self.state, names: &self.names, seen: &self.seen, ring: &self.ring };
            let counted = || Counted { shards: &self.counters, shared: &[], sites: 8, cells: &[] };
            marks.set(GivenName { bytes: name.as_bytes(), hash, is_cut: false }, counted, |slice| {
                self.noted.lock().expect("no test panics here").push(slice);
            });
        }

        /// The slices in the ring: the count, then the live bytes of each ID.
        fn read(&self) -> Vec<(u64, Vec<(u64, u64)>)> {
            let mut all = Vec::new();
            let mut at = self.state.read.load(Ordering::Relaxed);
            let word = |at: u64| self.ring[at as usize % self.ring.len()].load(Ordering::Relaxed);
            while at < self.state.written.load(Ordering::Acquire) {
                let ids = word(at) >> 32;
                let of = |nth: u64| at + HEAD_WORDS as u64 + nth * ID_WORDS as u64;
                let live = (0..ids).map(|nth| (word(of(nth)), word(of(nth) + 3) - word(of(nth) + 4)));
                all.push((word(at + 1), live.collect()));
                at = of(ids);
            }
            self.state.read.store(at, Ordering::Release);
            all
        }
    }

    #[test]
    fn the_first_marks_are_all_due_and_later_ones_32_in_each_doubling() {
        let due: Vec<u64> = std::iter::successors(Some(1), |&count| Some(due_after(count, 32)))
            .take_while(|&n| n <= 1 << 20)
            .collect();
        assert_eq!(due[..64], (1..=64).collect::<Vec<_>>());
        assert_eq!(due[64..67], [66, 68, 70]);
        assert_eq!(due.len(), 64 + 14 * 32);
        assert!(due.ends_with(&[1 << 20]));
    }

    #[test]
    fn a_slice_has_the_counters_of_the_instant_summed_over_shards() {
        let owned = Owned::new(16, 1024);
        owned.counters[3].add_allocation_owned(100);
        owned.counters[MAX_SITES + 3].add_allocation_owned(20);
        owned.set("a");
        owned.counters[3].add_free_owned(100);
        owned.counters[5].add_allocation_owned(7);
        owned.set("a");
        owned.set("a");
        let expected = [(1, vec![(3, 120)]), (2, vec![(3, 20), (5, 7)]), (3, vec![])];
        assert_eq!(owned.read(), expected);
    }

    #[test]
    fn a_full_ring_puts_slices_off_and_loses_no_count() {
        let owned = Owned::new(16, 16);
        for _ in 0..10 {
            owned.counters[3].add_allocation_owned(1);
            owned.set("a");
        }
        let first = owned.read();
        assert_eq!(first, [(1, vec![(3, 1)]), (2, vec![(3, 2)])]);
        let words = (HEAD_WORDS + ID_WORDS) as u64;
        assert_eq!(*owned.noted.lock().expect("no test panics here"), [0, words], "one event for each slice");
        assert_eq!(owned.state.put_off.load(Ordering::Relaxed), 8);
        owned.set("a");
        assert_eq!(owned.read(), [(11, vec![(3, 10)])]);
    }

    #[test]
    fn names_beyond_the_table_are_counted_and_those_in_it_go_on() {
        let owned = Owned::new(2, 1024);
        for name in ["a", "b", "c", "a"] {
            owned.set(name);
        }
        assert_eq!(owned.state.unnamed.load(Ordering::Relaxed), 1);
        let mut counts: Vec<_> = owned.names.iter().map(|name| name.count.load(Ordering::Relaxed)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2]);
    }

    #[test]
    fn threads_that_mark_at_once_lose_no_mark() {
        let owned = Owned::new(16, 1 << 16);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| owned.set("a")));
            }
        });
        let count: u64 = owned.names.iter().map(|name| name.count.load(Ordering::Relaxed)).sum();
        assert_eq!(count, 4000);
        let slices = owned.read();
        assert!(slices.is_sorted_by_key(|(count, _)| *count), "each slice is later than the one before");
        assert!(slices.last().is_some_and(|(count, _)| *count > 3000));
    }
}
