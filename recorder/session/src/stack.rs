//! Watched stacks: every distinct stack of a watched site, the counts of the allocations that each stack made
//! in each epoch, and the unwind tables.
//!
//! ```text
//!  slots   hash of (site, frames) → stack      read without a lock, written once
//!  stacks  site, frames, the cell of the current epoch
//!  frames  return addresses of all stacks, innermost first
//!  cells   (stack, birth epoch) → counters of the site's allocations
//!  tables  module → its unwind rows            compiled by the collector
//!  rows    code offset → rule
//!  bounds  mapped memory ranges that may contain a stack
//! ```
//!
//! Each stack has one cell (a set of counters) for each epoch, so an allocation updates only one cell. The
//! live bytes of the cells show in which epochs the live allocations of the stack were made. For a watched
//! allocation, the side table stores the id of the cell, which is [`MAX_SITES`] or more.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::counters::Counters;
use crate::rule::{Kind, Rule};
use crate::site::MAX_SITES;

/// Maximum number of return addresses of a stack. If a stack has more than 128 return addresses, the walk
/// stops after 128, and the library marks the stack as cut.
pub const MAX_FRAMES: usize = 128;
/// Maximum number of distinct stacks.
pub const MAX_STACKS: usize = 1 << 15;
/// Number of slots in the hash table of stacks.
pub const SLOTS: usize = MAX_STACKS * 4;
/// Maximum number of return addresses of all stacks together.
pub const MAX_ADDRESSES: usize = 1 << 20;
/// Maximum number of cells. The ids of watched allocations begin at [`MAX_SITES`] and have 19 bits.
pub const MAX_CELLS: usize = (1 << 18) - MAX_SITES;
/// Maximum number of unwind rows in a session.
pub const MAX_ROWS: usize = 1 << 22;
/// Maximum number of modules whose unwind rows the collector publishes in the session.
pub const MAX_TABLES: usize = 1 << 10;
/// Maximum number of mapped ranges that the collector publishes in the session.
pub const MAX_BOUNDS: usize = 1 << 12;
const _: () = assert!(MAX_SITES + MAX_CELLS < 1 << 19);

/// One stack of a watched site, different from all other stacks.
#[repr(C)]
#[derive(Default)]
pub struct StackInfo {
    /// Hash of the site and the frames. The library recognizes a stack by its hash alone.
    pub hash: AtomicU64,
    /// The cell that counts the stack's allocations of the current epoch. The high half is the number of the
    /// epoch. The low half is the id of the cell (0: no cell).
    pub current: AtomicU64,
    /// The id of the watched site to which the stack belongs.
    pub site: AtomicU32,
    /// The index of the stack's first return address in the table of frames.
    pub frames_at: AtomicU32,
    /// Number of frames of the stack. If the highest bit is set, the walk stopped before the outermost frame.
    pub frames: AtomicU32,
    /// Number of module events before the library first saw the stack. From this number, the collector finds
    /// the modules that contained the stack's addresses.
    pub events_before: AtomicU32,
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<StackInfo>() == 32);

/// A bit of [`StackInfo::frames`]: the walk stopped before the outermost frame.
pub const CUT: u32 = 1 << 31;

/// The counts of the allocations that one stack made in one epoch (a span of time).
#[repr(C, align(64))]
#[derive(Default)]
pub struct Cell {
    /// The counters of the allocations that the stack made in the cell's epoch, and of the frees of these
    /// allocations until now.
    pub counters: Counters,
    /// Index of the cell's stack, plus 1. When the library creates a cell, it stores the index of the stack
    /// last.
    pub stack: AtomicU32,
    /// The epoch in which the allocations of this cell were made.
    pub epoch: AtomicU32,
    /// The epoch of the latest free of an allocation in this cell, plus 1. 0: no allocation of the cell was
    /// freed yet.
    pub freed_in: AtomicU32,
    _reserved: u32,
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<Cell>() == 64);

/// The unwind rows of one module; each row gives the rule for a range of the module's code.
#[repr(C)]
#[derive(Default)]
pub struct RuleTable {
    /// First address of the module.
    pub start: AtomicU64,
    /// The address after the last byte of the module.
    pub end: AtomicU64,
    /// The index of the module's first row in the table of all unwind rows.
    pub rows_at: AtomicU32,
    /// Number of rows of the module.
    pub rows: AtomicU32,
}

/// One unwind row of a module. The rule of a row is valid from the offset of this row up to the offset of the
/// next row.
#[repr(C)]
#[derive(Default)]
pub struct RuleRow {
    /// The low half is the row's offset from the start of the module; the high half is the rule.
    pub offset_and_rule: AtomicU64,
}

/// A mapped range that may contain a stack.
#[repr(C)]
#[derive(Default)]
pub struct Bound {
    /// The first address of the mapped range.
    pub start: AtomicU64,
    /// The address after the last byte of the mapped range.
    pub end: AtomicU64,
}

/// Adds a frame to the hash of a stack, with one multiplication and one rotation. If two stacks had equal
/// hashes, the library would count them as one stack. Two equal hashes are extremely unlikely, because a
/// session has at most 2¹⁵ stacks and a hash has 64 bits.
#[inline(always)]
pub fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// The tables of watched stacks.
#[derive(Clone, Copy)]
pub struct Stacks<'s> {
    /// The hash table of stacks. A slot contains the index of the stack plus 1 (low half) and the upper half
    /// of the hash; 0: the slot is empty.
    pub slots: &'s [AtomicU64],
    /// The stacks of watched sites, without their frames.
    pub infos: &'s [StackInfo],
    /// The return addresses of all stacks.
    pub frames: &'s [AtomicU64],
    /// The cells: each cell counts the allocations of one stack in one epoch.
    pub cells: &'s [Cell],
    /// For stacks, frames and cells: the index of the next unused entry of their table.
    pub next: &'s Next,
    /// Number of module events that the target has written.
    pub module_events: &'s AtomicU32,
}

/// For stacks, frames and cells: the index of the next unused entry of their table.
#[repr(C)]
#[derive(Default)]
pub struct Next {
    /// Index of the next unused stack.
    pub stack: AtomicU32,
    /// Index of the next unused return address.
    pub address: AtomicU32,
    /// Index of the next unused cell. The first cell is never used, so that 0 can mean that there is no cell.
    pub cell: AtomicU32,
}

impl Stacks<'_> {
    /// The id of the cell that counts the allocations of the stack `frames` in `epoch`. `cell` creates the
    /// stack and the cell if they do not exist, and takes no lock.
    ///
    /// `None`: there is no room for a new stack or a new cell.
    pub fn cell(&self, site: u32, frames: &[u64], hash: u64, cut: bool, epoch: u32) -> Option<u32> {
        let index = self.find_or_make(site, frames, hash, cut)?;
        let info = self.infos.get(index as usize)?;
        let mut current = info.current.load(Ordering::Acquire);
        loop {
            if current as u32 != 0 && (current >> 32) as u32 == epoch {
                return Some(current as u32);
            }
            let cell = give(&self.next.cell, 1, self.cells.len())?.max(1);
            let made = self.cells.get(cell as usize)?;
            made.epoch.store(epoch, Ordering::Relaxed);
            made.stack.store(index + 1, Ordering::Release);
            let new = u64::from(epoch) << 32 | u64::from(cell);
            match info.current.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(cell),
                // Another thread stored its cell for this stack first, so the cell of this thread is never
                // used.
                Err(theirs) => current = theirs,
            }
        }
    }

    fn find_or_make(&self, site: u32, frames: &[u64], hash: u64, cut: bool) -> Option<u32> {
        const MAX_PROBES: usize = 64;
        let mask = self.slots.len() - 1;
        let mut made = None;
        for probe in 0..MAX_PROBES {
            let slot = self.slots.get((hash as usize).wrapping_add(probe) & mask)?;
            let mut word = slot.load(Ordering::Acquire);
            if word == 0 {
                let index = match made {
                    Some(index) => index,
                    None => self.make(site, frames, hash, cut)?,
                };
                made = Some(index);
                let new = hash & !u64::from(u32::MAX) | u64::from(index + 1);
                match slot.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Some(index),
                    Err(theirs) => word = theirs,
                }
            }
            if word >> 32 == hash >> 32 {
                let index = (word as u32).wrapping_sub(1);
                if self.infos.get(index as usize)?.hash.load(Ordering::Relaxed) == hash {
                    return Some(index);
                }
            }
        }
        None
    }

    fn make(&self, site: u32, frames: &[u64], hash: u64, cut: bool) -> Option<u32> {
        let at = give(&self.next.address, frames.len() as u32, self.frames.len())?;
        let index = give(&self.next.stack, 1, self.infos.len())?;
        for (to, &from) in self.frames.get(at as usize..)?.iter().zip(frames) {
            to.store(from, Ordering::Relaxed);
        }
        let info = self.infos.get(index as usize)?;
        info.hash.store(hash, Ordering::Relaxed);
        info.frames_at.store(at, Ordering::Relaxed);
        info.frames.store(frames.len() as u32 | if cut { CUT } else { 0 }, Ordering::Relaxed);
        info.events_before.store(self.module_events.load(Ordering::Relaxed), Ordering::Relaxed);
        // The collector treats a stack as complete once the library has set the site of the stack.
        info.site.store(site, Ordering::Release);
        Some(index)
    }
}

/// Takes `count` consecutive indexes from the table, which has `all` indexes.
fn give(next: &AtomicU32, count: u32, all: usize) -> Option<u32> {
    let first = next.load(Ordering::Relaxed);
    if first as usize + count as usize > all {
        return None; // tested before the addition, so that `next` does not grow while the table is full
    }
    let first = next.fetch_add(count, Ordering::Relaxed);
    (first as usize + count as usize <= all).then_some(first)
}

/// The unwind rule for a code address (`pc`), from the tables that the collector has published. `None`: no
/// module contains the address, or the module has no unwind row for the address.
///
/// If the byte before a function is not code, this byte gets [`Rule::END`]. No call returns to the first byte
/// of a function. So if the stack holds the address of a function's first byte as a return address, the
/// program itself has put this address there, as the start of a stack that the program built. (makecontext
/// does this, and glibc's own rules for this address are wrong.)
pub fn find_rule(tables: &[RuleTable], rows: &[RuleRow], pc: u64) -> Option<Rule> {
    let after = tables.partition_point(|table| table.start.load(Ordering::Relaxed) <= pc);
    let table = tables.get(after.checked_sub(1)?)?;
    if pc >= table.end.load(Ordering::Relaxed) {
        return None;
    }
    let offset = u32::try_from(pc - table.start.load(Ordering::Relaxed)).ok()?;
    let first = table.rows_at.load(Ordering::Relaxed) as usize;
    let rows = rows.get(first..first + table.rows.load(Ordering::Relaxed) as usize)?;
    let after = rows.partition_point(|row| row.offset_and_rule.load(Ordering::Relaxed) as u32 <= offset);
    let parts = |index: usize| {
        let word = rows.get(index)?.offset_and_rule.load(Ordering::Relaxed);
        Some((word as u32, Rule((word >> 32) as u32)))
    };
    let (_, rule) = parts(after.checked_sub(1)?)?;
    let begins_function = |(start, _): (u32, Rule)| Some(start) == offset.checked_add(1);
    if rule.kind() == Kind::Unknown && parts(after).is_some_and(begins_function) {
        return Some(Rule::END);
    }
    Some(rule)
}

/// The end of the mapped range that contains `address`.
pub fn find_bound(bounds: &[Bound], address: u64) -> Option<u64> {
    let after = bounds.partition_point(|bound| bound.start.load(Ordering::Relaxed) <= address);
    let end = bounds.get(after.checked_sub(1)?)?.end.load(Ordering::Relaxed);
    (address < end).then_some(end)
}

#[cfg(all(test, not(edleak_loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    struct Owned {
        slots: Vec<AtomicU64>,
        infos: Vec<StackInfo>,
        frames: Vec<AtomicU64>,
        cells: Vec<Cell>,
        next: Next,
        module_events: AtomicU32,
    }

    impl Owned {
        fn new(stacks: usize) -> Owned {
            fn many<T: Default>(count: usize) -> Vec<T> {
                (0..count).map(|_| T::default()).collect()
            }
            let next = Next::default();
            next.cell.store(1, Ordering::Relaxed);
            Owned {
                slots: many(stacks * 4),
                infos: many(stacks),
                frames: many(stacks * 8),
                cells: many(stacks * 4),
                next,
                module_events: AtomicU32::new(0),
            }
        }

        fn get(&self) -> Stacks<'_> {
            let Owned { slots, infos, frames, cells, next, module_events } = self;
            Stacks { slots, infos, frames, cells, next, module_events }
        }
    }

    fn hash(site: u32, frames: &[u64]) -> u64 {
        frames.iter().fold(u64::from(site), |hash, &frame| mix(hash, frame))
    }

    #[test]
    fn a_stack_has_one_cell_an_epoch() {
        let owned = Owned::new(16);
        let (a, b) = ([1, 2, 3], [1, 2, 4]);
        let cell =
            |frames: &[u64], epoch| owned.get().cell(5, frames, hash(5, frames), false, epoch).expect("room");
        let first = cell(&a, 0);
        assert_eq!(cell(&a, 0), first);
        let other = cell(&b, 0);
        let later = cell(&a, 7);
        assert!(first != other && first != later && other != later && first != 0);
        let info = &owned.infos[owned.cells[later as usize].stack.load(Ordering::Relaxed) as usize - 1];
        assert_eq!(info.site.load(Ordering::Relaxed), 5);
        let at = info.frames_at.load(Ordering::Relaxed) as usize;
        let kept: Vec<u64> = owned.frames[at..at + 3].iter().map(|f| f.load(Ordering::Relaxed)).collect();
        assert_eq!(kept, a);
        assert_eq!(owned.next.stack.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn full_tables_report_it_and_still_find_known_stacks() {
        let owned = Owned::new(4);
        let cell = |n: u64, epoch| owned.get().cell(1, &[n], hash(1, &[n]), false, epoch);
        for n in 0..4 {
            assert!(cell(n, 0).is_some());
        }
        assert_eq!(cell(9, 0), None);
        assert!(cell(2, 0).is_some());
        let cells: Vec<_> = (1..100).map(|epoch| cell(2, epoch)).collect();
        assert_eq!(cells.iter().flatten().count(), 16 - 1 - 4);
    }

    #[test]
    fn threads_agree_on_stacks_and_cells() {
        let owned = Owned::new(1024);
        let all: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..200u64)
                            .map(|n| {
                                owned
                                    .get()
                                    .cell(3, &[n, n + 1], hash(3, &[n, n + 1]), false, 1)
                                    .expect("room")
                            })
                            .collect()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
        });
        assert!(all.iter().all(|one| one == &all[0]));
    }

    #[test]
    fn rules_and_bounds_are_found_by_address() {
        let rule = |cfa| Rule::pack(Kind::Sp, cfa, None).expect("fits");
        let row =
            |offset: u64, rule: Rule| RuleRow { offset_and_rule: (offset | u64::from(rule.0) << 32).into() };
        let rows = [row(0x10, rule(8)), row(0x20, rule(16)), row(0x00, rule(24)), row(0x08, Rule::UNKNOWN)];
        let table = |start: u64, end: u64, at: u32| RuleTable {
            start: start.into(),
            end: end.into(),
            rows_at: at.into(),
            rows: 2.into(),
        };
        let tables = [table(0x1000, 0x1100, 0), table(0x2000, 0x2100, 2)];
        assert_eq!(find_rule(&tables, &rows, 0x0fff), None);
        assert_eq!(find_rule(&tables, &rows, 0x1005), None);
        assert_eq!(find_rule(&tables, &rows, 0x1010), Some(rule(8)));
        assert_eq!(find_rule(&tables, &rows, 0x10ff), Some(rule(16)));
        assert_eq!(find_rule(&tables, &rows, 0x1100), None);
        assert_eq!(find_rule(&tables, &rows, 0x2007), Some(rule(24)));
        assert_eq!(find_rule(&tables, &rows, 0x2008), Some(Rule::UNKNOWN));
        let rows = [row(0x00, rule(8)), row(0x08, Rule::UNKNOWN), row(0x10, rule(16))];
        let tables = [RuleTable { rows: 3.into(), ..table(0x1000, 0x1100, 0) }];
        assert_eq!(find_rule(&tables, &rows, 0x100e), Some(Rule::UNKNOWN));
        assert_eq!(find_rule(&tables, &rows, 0x100f), Some(Rule::END));
        let bounds = [Bound { start: 16.into(), end: 32.into() }, Bound { start: 64.into(), end: 96.into() }];
        assert_eq!(find_bound(&bounds, 15), None);
        assert_eq!(find_bound(&bounds, 31), Some(32));
        assert_eq!(find_bound(&bounds, 32), None);
        assert_eq!(find_bound(&bounds, 64), Some(96));
    }
}
