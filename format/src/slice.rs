//! One slice: the counters of every site at one instant.

use crate::ids::{AreaId, SiteId};
use crate::memory::AreaBytes;
use bincode::{Decode, Encode};

/// The counters of one site since the recording began.
///
/// The target can write to the shared memory that holds the counters, so a counter may have any value. So
/// arithmetic on the counters wraps or saturates and never panics.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Counters {
    /// Requested bytes of all allocations.
    pub allocated_bytes: u64,
    /// Number of allocations.
    pub allocs: u64,
    /// Requested bytes of all allocations that were freed.
    pub freed_bytes: u64,
    /// Number of allocations that were freed.
    pub frees: u64,
}

impl Counters {
    /// The counters of a site without allocations.
    pub const ZERO: Counters = Counters { allocated_bytes: 0, allocs: 0, freed_bytes: 0, frees: 0 };

    /// Adds the counters of two sites.
    pub fn plus(self, other: Counters) -> Counters {
        Counters {
            allocated_bytes: self.allocated_bytes.wrapping_add(other.allocated_bytes),
            allocs: self.allocs.wrapping_add(other.allocs),
            freed_bytes: self.freed_bytes.wrapping_add(other.freed_bytes),
            frees: self.frees.wrapping_add(other.frees),
        }
    }

    /// Bytes allocated and not yet freed.
    pub fn live_bytes(&self) -> u64 {
        self.allocated_bytes.saturating_sub(self.freed_bytes)
    }

    /// Allocations not yet freed.
    pub fn live_count(&self) -> u64 {
        self.allocs.saturating_sub(self.frees)
    }
}

/// The time of a slice, and the size of the process at that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceHeader {
    /// The tick for which the slice was due; ticks strictly increase within a trace.
    pub tick: u64,
    /// Time at which the slice was taken, in nanoseconds since the recording began.
    pub time_ns: u64,
    /// RssAnon of the process, in bytes.
    pub rss_anon_bytes: u64,
    /// VmSwap of the process, in bytes.
    pub swap_bytes: u64,
}

/// Receives the slices of one block, in order.
pub trait SliceVisitor {
    /// Receives the memory areas of the next slice, with absolute values. For the first slice of a block,
    /// `changed` holds every area that is not zero. For each later slice, `changed` holds the areas that
    /// changed since the previous slice. The reader does not call this function if `changed` would be empty.
    fn memory(&mut self, header: &SliceHeader, changed: &[(AreaId, AreaBytes)]) {
        let _not_wanted = (header, changed);
    }

    /// Receives one slice. `changed` holds absolute counters by ascending id. For the first slice of a block,
    /// `changed` holds every site whose counters are not zero. For each later slice of the block, `changed`
    /// holds the sites that changed since the previous slice.
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]);
}
