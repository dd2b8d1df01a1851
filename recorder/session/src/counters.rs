//! The four counters of one site in one shard.

use crate::atomic::{AtomicU64, Ordering};
use crate::site::MAX_SITES;

/// The counters are cumulative since the target attached. The four counters take half a cache line, so that
/// one allocation writes to only one cache line of counters.
///
/// A shard has one writer, which uses plain adds. Several threads share the last shard, so they update it
/// with atomic adds. The collector reads all `frees` of a slice before any `allocs`. The target counts an
/// allocation before malloc returns its address. So for every free that the collector has read, the collector
/// also reads the allocation. Therefore the live count is never negative.
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

/// The offset in bytes of a site's counters from the start of a shard. The hot path uses this offset instead
/// of the site's id, because an id would need a multiplication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteOffset(usize);

impl SiteOffset {
    /// The size of a shard in bytes. Every offset is less than this size.
    pub const END: usize = MAX_SITES * size_of::<Counters>();

    /// The offset of the site with this id, which must be an id of the site table.
    #[inline(always)]
    pub const fn of(id: u32) -> SiteOffset {
        SiteOffset(id as usize * size_of::<Counters>())
    }

    /// The offset of `bytes` bytes from the start of a shard; `None`: the offset lies beyond the shard. For
    /// the offset of a site, `bytes` is a multiple of the size of a site's counters.
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
    /// Counts one allocation with a plain add, without `lock`. Only the single writer of a shard may call
    /// this function.
    #[inline(always)]
    pub fn add_owned(&self, bytes: u64) {
        bump(&self.allocated_bytes, bytes);
        bump(&self.allocs, 1);
    }

    /// Counts one free. Only the single writer of a shard may call this function.
    #[inline(always)]
    pub fn sub_owned(&self, bytes: u64) {
        bump(&self.freed_bytes, bytes);
        bump(&self.frees, 1);
    }

    /// Counts one allocation in a shard with several writers.
    pub fn add_shared(&self, bytes: u64) {
        self.allocated_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.allocs.fetch_add(1, Ordering::Release);
    }

    /// Counts one free in a shard with several writers.
    pub fn sub_shared(&self, bytes: u64) {
        self.freed_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.frees.fetch_add(1, Ordering::Release);
    }
}

// On x86-64, a relaxed load, an add and a release store become one plain `add [mem], reg`. On x86-64, the
// release ordering costs nothing. On other machines, the release ordering makes the collector see the stores
// of one thread in their order.
#[inline(always)]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
}
