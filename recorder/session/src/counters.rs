//! The four counters of one site in one shard.

use crate::atomic::{AtomicU64, Ordering};
use crate::site::MAX_SITES;

/// Cumulative since the target attached. Half a cache line, so that one allocation touches one line of counters.
///
/// A shard has one writer, which adds plainly; only the last shard, shared by the threads that found no other, is added
/// to atomically. The collector reads all `frees` of a slice before any `allocs`: a block is counted as allocated before
/// its address leaves malloc, so what the collector has seen freed it will also see allocated, and live is never negative.
#[repr(C, align(32))]
#[derive(Default)]
pub struct Counters {
    /// Requested bytes of all allocations.
    pub allocated_bytes: AtomicU64,
    /// Allocations.
    pub allocs: AtomicU64,
    /// Requested bytes of all frees.
    pub freed_bytes: AtomicU64,
    /// Frees.
    pub frees: AtomicU64,
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<Counters>() == 32);

/// Where the counters of a site lie in every shard: bytes from its start, and so a site's id in the form in which the hot path
/// needs no arithmetic to count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteOffset(usize);

impl SiteOffset {
    /// Beyond every offset: the size of a shard.
    pub const END: usize = MAX_SITES * size_of::<Counters>();

    /// That of the site with this id, one of the table's.
    #[inline(always)]
    pub const fn of(id: u32) -> SiteOffset {
        SiteOffset(id as usize * size_of::<Counters>())
    }

    /// The offset in bytes; `None`: it is beyond a shard. `bytes` is a multiple of a site's counters wherever it is a site's offset.
    #[inline(always)]
    pub const fn from_bytes(bytes: usize) -> Option<SiteOffset> {
        if bytes < Self::END { Some(SiteOffset(bytes)) } else { None }
    }

    /// Bytes from the start of a shard.
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
    /// Counts one allocation. Only for the one writer of a shard: a plain add, no `lock`.
    #[inline(always)]
    pub fn add_owned(&self, bytes: u64) {
        bump(&self.allocated_bytes, bytes);
        bump(&self.allocs, 1);
    }

    /// Counts one free. Only for the one writer of a shard.
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

// A relaxed load, an add and a release store: on x86-64 one plain `add [mem], reg`. The release is free there and
// orders the counters of one thread for a collector on a machine where it is not.
#[inline(always)]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
}
