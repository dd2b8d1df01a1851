//! The offset in bytes of each region of a session.
//!
//! Only the number of shards varies between sessions. The sizes of all other regions are constants, so the
//! hot path need not load the offset of a region from memory. A session is a sparse file in memory: a page
//! of the session takes memory only after a process has touched this page.

use crate::atomic::AtomicU64;
use crate::caller::CALLERS;
use crate::counters::Counters;
use crate::detour::{self, DetourModule, Patch};
use crate::event::{MAX_EVENTS, ModuleEvent};
use crate::mapping::{self, MappingSlot};
use crate::mark::{MAX_IDS, MAX_NAMES, MarkName, MarkState, RING_WORDS, Seen};
use crate::pool::{self, PoolSlot, PoolState};
use crate::site::{MAX_SITES, SLOTS, SiteInfo, SiteSlot};
use crate::stack::{self, Bound, Cell, RuleRow, RuleTable, StackInfo};
use crate::wrapper::{MAX_RANGES, WrapperRange};
use core::mem::size_of;

/// Number of bytes of a page of memory. Every x86-64 kernel uses pages of 4 KiB.
pub const PAGE_BYTES: usize = 4096;
/// The maximum number of shards of a session.
pub const MAX_SHARDS: usize = 64;
/// Number of bytes reserved for the target's memory map. The target stores its memory map when it attaches.
pub const MAPS_BYTES: usize = 256 << 10;
/// Size in bytes of one shard of counters.
pub const SHARD_BYTES: usize = MAX_SITES * size_of::<Counters>();

/// The thread that owns a shard, in one word: the thread pointer shifted right by 6 bits (bits 22..64 of the
/// word) and the thread id (bits 0..22). 0: no thread owns the shard.
///
/// Two live threads never have the same thread pointer. If a new thread finds its own thread pointer in the
/// owner word of a shard, the thread that stored this word has ended. The new thread then becomes the owner
/// of this shard. The collector uses the thread id to free the shards of ended threads.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Shard {
    /// The owner word; see [`Shard`].
    pub owner: AtomicU64,
}

/// Number of bits of a thread id; the kernel's limit is 2²² (`PID_MAX_LIMIT`).
pub const TID_BITS: u32 = 22;

/// The owner word of a shard that belongs to the thread with this thread pointer and this thread id.
pub const fn owner_word(thread_pointer: u64, tid: u32) -> u64 {
    (thread_pointer >> 6) << TID_BITS | (tid & ((1 << TID_BITS) - 1)) as u64
}

/// The thread id in an owner word; 0: unknown.
pub const fn owner_tid(owner: u64) -> u32 {
    (owner & ((1 << TID_BITS) - 1)) as u32
}

/// The thread pointer in an owner word, shifted right by 6 bits.
pub const fn owner_thread(owner: u64) -> u64 {
    owner >> TID_BITS
}

/// Offset in bytes of the owners of the shards.
pub const SHARDS_AT: usize = PAGE_BYTES;
/// Offset of the first table in a session (the site infos). The pages before this offset hold the header of
/// the session and the owners of the shards.
pub const FIRST_TABLE_AT: usize = page(SHARDS_AT + MAX_SHARDS * size_of::<Shard>());
/// Offset of the site infos. The site infos, the words of the caller cache and the first slots of the site
/// table lie within 2 MiB, so the kernel needs few page tables for the session of a small program.
pub const INFOS_AT: usize = FIRST_TABLE_AT;
/// Offset of the words of the caller cache.
pub const CALLERS_AT: usize = page(INFOS_AT + MAX_SITES * size_of::<SiteInfo>());
/// Offset of the site table.
pub const SLOTS_AT: usize = page(CALLERS_AT + CALLERS * size_of::<AtomicU64>());
/// Offset of the wrapper ranges.
pub const WRAPPERS_AT: usize = page(SLOTS_AT + SLOTS * size_of::<SiteSlot>());
/// Offset of the target's memory map.
pub const MAPS_AT: usize = page(WRAPPERS_AT + MAX_RANGES * size_of::<WrapperRange>());
/// Offset of the module events.
pub const EVENTS_AT: usize = page(MAPS_AT + MAPS_BYTES);
/// Offset of the hash table of watched stacks.
pub const STACK_SLOTS_AT: usize = page(EVENTS_AT + MAX_EVENTS * size_of::<ModuleEvent>());
/// Offset of the watched stacks.
pub const STACKS_AT: usize = page(STACK_SLOTS_AT + stack::SLOTS * size_of::<AtomicU64>());
/// Offset of the return addresses of watched stacks.
pub const FRAMES_AT: usize = page(STACKS_AT + stack::MAX_STACKS * size_of::<StackInfo>());
/// Offset of the cells of watched stacks.
pub const CELLS_AT: usize = page(FRAMES_AT + stack::MAX_ADDRESSES * size_of::<AtomicU64>());
/// Offset of the modules' unwind tables.
pub const TABLES_AT: usize = page(CELLS_AT + stack::MAX_CELLS * size_of::<Cell>());
/// Offset of the rows of the unwind tables.
pub const ROWS_AT: usize = page(TABLES_AT + stack::MAX_TABLES * size_of::<RuleTable>());
/// Offset of the mapped ranges that may contain a stack.
pub const BOUNDS_AT: usize = page(ROWS_AT + stack::MAX_ROWS * size_of::<RuleRow>());
/// Offset of the state of the marks.
pub const MARKS_AT: usize = page(BOUNDS_AT + stack::MAX_BOUNDS * size_of::<Bound>());
/// Offset of the names of the marks.
pub const MARK_NAMES_AT: usize = page(MARKS_AT + size_of::<MarkState>());
/// Offset of an array with one entry for each ID (of a site or of a cell): the counts of this ID in the
/// latest slice of a mark that contains this ID.
pub const MARK_SEEN_AT: usize = page(MARK_NAMES_AT + MAX_NAMES * size_of::<MarkName>());
/// Offset of the ring of slices taken at marks.
pub const MARK_RING_AT: usize = page(MARK_SEEN_AT + MAX_IDS * size_of::<Seen>());
/// Offset of the ring of mapping events.
pub const MAPPINGS_AT: usize = page(MARK_RING_AT + RING_WORDS * size_of::<AtomicU64>());
/// Offset of the state of the ring of pool events.
pub const POOLS_AT: usize = page(MAPPINGS_AT + mapping::MAX_EVENTS * size_of::<MappingSlot>());
/// Offset of the names of pools.
pub const POOL_NAMES_AT: usize = page(POOLS_AT + size_of::<PoolState>());
/// Offset of the ring of pool events.
pub const POOL_RING_AT: usize = page(POOL_NAMES_AT + pool::MAX_NAMES * size_of::<MarkName>());
/// Offset of the table of modules with detours.
pub const DETOUR_MODULES_AT: usize = page(POOL_RING_AT + pool::MAX_EVENTS * size_of::<PoolSlot>());
/// Offset of the table of the jumps that the target writes into its modules.
pub const DETOUR_PATCHES_AT: usize =
    page(DETOUR_MODULES_AT + detour::MAX_MODULES * size_of::<DetourModule>());
/// Offset of the code to which the jumps of all modules lead.
pub const DETOUR_CODE_AT: usize = page(DETOUR_PATCHES_AT + detour::MAX_PATCHES * size_of::<Patch>());
/// Offset of the counters, which are indexed by shard and then by site. The counters are the last region
/// because only their size varies.
pub const COUNTERS_AT: usize = page(DETOUR_CODE_AT + detour::CODE_BYTES);

/// Size in bytes of a session with `shards` shards.
pub const fn total_bytes(shards: usize) -> usize {
    COUNTERS_AT + shards * SHARD_BYTES
}

const fn page(offset: usize) -> usize {
    offset.next_multiple_of(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_words_tell_threads_apart_and_keep_the_tid() {
        let a = owner_word(0x7fff_1234_5640, 4_194_303);
        let b = owner_word(0x7fff_1234_5680, 4_194_303);
        assert_ne!(owner_thread(a), owner_thread(b));
        assert_eq!(owner_tid(a), 4_194_303);
        assert_eq!(owner_thread(a), 0x7fff_1234_5640 >> 6);
        assert_ne!(owner_word(0x1000, 0), 0);
    }
}
