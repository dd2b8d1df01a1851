//! The first page of a session: handshake, geometry, and everything the target could not do.

use crate::atomic::{AtomicU32, AtomicU64};
use crate::stack::Next;

/// "edlksess", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"edlksess");

/// The first page of a session. The collector writes the first group before it offers the session; the target writes
/// the second when it attaches and the counts of the third whenever something could not be done.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`crate::VERSION`].
    pub version: AtomicU32,
    /// Shards of counters; the last one is shared by the threads that found no other.
    pub shards: AtomicU32,
    /// Size of the whole session.
    pub total_bytes: AtomicU64,
    /// How long the target may wait, once, when it attaches, for `ready`; microseconds.
    pub patience_us: AtomicU32,
    /// Set by the collector when the wrapper ranges of the modules in `maps` are in place; a futex.
    pub ready: AtomicU32,
    /// Ranges in the wrapper table; the table is replaced only while this is 0.
    pub wrapper_ranges: AtomicU32,
    /// Modules in the table of unwind rules; the table is replaced only while this is 0.
    pub rule_tables: AtomicU32,
    /// Mapped ranges published; they are replaced only while this is 0.
    pub bounds: AtomicU32,
    /// 1: every site is watched from its first allocation on.
    pub watch_all: AtomicU32,
    /// Current birth epoch of watched allocations.
    pub epoch: AtomicU32,

    /// [`FRESH`] or [`ATTACHED`]; a futex.
    pub state: AtomicU32,
    /// The process, as the collector's /proc has it.
    pub pid: AtomicU32,
    /// Bytes of the memory map that are in `maps`.
    pub maps_bytes: AtomicU32,
    /// 1: `tid` in a shard's owner is the kernel's thread id, so that dead owners can be told.
    pub tids_known: AtomicU32,
    /// The next site id to give out.
    pub next_site: AtomicU32,
    /// Module events written since the target attached.
    pub events_written: AtomicU32,
    /// Module events the collector has read.
    pub events_read: AtomicU32,
    /// Module events that found the ring full.
    pub events_lost: AtomicU32,
    /// Stacks, return addresses and cells given out.
    pub stacks: Next,
    /// 1: some thread counts in the shared shard. Before that nobody has touched it, and reading it would cost memory.
    pub shared_in_use: AtomicU32,
    /// 1: a forked child has allocated something, which nobody records.
    pub has_forked: AtomicU32,
    /// Forked children that were to be recorded and could not reach the collector.
    pub lost_children: AtomicU32,
    /// Where the first stack of the image began, as /proc/PID/stat has it (`startstack`); 0: not known.
    pub stack_start: AtomicU64,

    /// Frees of addresses that no hook ever handed out.
    pub unknown_frees: AtomicU64,
    /// Allocations whose site found no place in the site table.
    pub other_site_allocs: AtomicU64,
    /// Allocations that found no place in the side table.
    pub untracked_allocs: AtomicU64,
    /// Distinct stacks that found no place in the stack table.
    pub lost_stacks: AtomicU64,
}
const _: () = assert!(core::mem::size_of::<Header>() <= 4096);

/// No target has attached yet.
pub const FRESH: u32 = 0;
/// The target counts.
pub const ATTACHED: u32 = 1;
