//! The four counters of one site in one shard; each thread counts in one shard.

use crate::atomic::{AtomicU64, Ordering};
use crate::site::MAX_SITES;

/// The counters count from the time at which the target attached, and never decrease. The four counters take
/// half a cache line, so that one allocation writes to only one cache line of counters.
///
/// Only the owner of a shard writes to the shard, so the owner uses plain adds. The last shard is an
/// exception: several threads share the last shard and use atomic adds. For each slice, the collector reads
/// the field `frees` of all counters before the field `allocs` of any counter. The target counts an
/// allocation before malloc returns the address of the allocation. So if the collector has read the free of
/// an allocation, the collector also reads the allocation. Therefore the number of live allocations (`allocs`
/// − `frees`) is never negative.
#[repr(C, align(32))]
#[derive(Default)]
pub struct Counters {
    /// Sum of the requested bytes of all allocations.
    pub allocated_bytes: AtomicU64,
    /// Number of allocations.
    pub allocs: AtomicU64,
    /// Sum of the requested bytes of all freed allocations.
    pub freed_bytes: AtomicU64,
    /// Number of frees.
    pub frees: AtomicU64,
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<Counters>() == 32);

/// The offset in bytes of a site's counters from the start of a shard. The hot path uses a site's offset
/// instead of the site's id: to find the counters by the id, the hot path would need a multiplication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteOffset(usize);

impl SiteOffset {
    /// The size of a shard in bytes. Every `SiteOffset` is less than `END`.
    pub const END: usize = MAX_SITES * size_of::<Counters>();

    /// The offset of the counters of the site `id`, which must be an id of the site table.
    #[inline(always)]
    pub const fn of(id: u32) -> SiteOffset {
        SiteOffset(id as usize * size_of::<Counters>())
    }

    /// The offset of `bytes` bytes from the start of a shard; `None`: the offset lies beyond the shard. The
    /// function does not check whether `bytes` is a multiple of the size of a site's counters.
    #[inline(always)]
    pub const fn from_bytes(bytes: usize) -> Option<SiteOffset> {
        if bytes < Self::END { Some(SiteOffset(bytes)) } else { None }
    }

    /// The offset in bytes from the start of a shard.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        self.0
    }

    /// The site's id.
    #[inline(always)]
    pub const fn id(self) -> u32 {
        (self.0 / size_of::<Counters>()) as u32
    }
}

impl Counters {
    /// Counts one allocation with plain adds, without the prefix `lock`. Only the single writer of a shard
    /// may call this function.
    #[inline(always)]
    pub fn add_allocation_owned(&self, bytes: u64) {
        bump(&self.allocated_bytes, bytes);
        bump(&self.allocs, 1);
    }

    /// Counts one free. Only the single writer of a shard may call this function.
    #[inline(always)]
    pub fn add_free_owned(&self, bytes: u64) {
        bump(&self.freed_bytes, bytes);
        bump(&self.frees, 1);
    }

    /// Counts one allocation in the shard to which several threads write.
    pub fn add_allocation_shared(&self, bytes: u64) {
        self.allocated_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.allocs.fetch_add(1, Ordering::Release);
    }

    /// Counts one free in the shard to which several threads write.
    pub fn add_free_shared(&self, bytes: u64) {
        self.freed_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.frees.fetch_add(1, Ordering::Release);
    }
}

// On x86-64, a relaxed load, an add and a release store become one plain `add [mem], reg`. On x86-64, the
// release ordering costs nothing. On other machines, the release ordering makes the collector see the stores
// of one thread in the order in which the thread made them.
#[inline(always)]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
}
