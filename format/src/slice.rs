//! One slice: the counters of every site at one instant.

use crate::ids::{AreaId, SiteId};
use crate::memory::AreaBytes;

/// What was counted at one site since the recording began.
///
/// The numbers come from shared memory that the target can write to, so they may be anything; arithmetic on them wraps
/// or saturates and never panics.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Requested bytes of all allocations.
    pub allocated_bytes: u64,
    /// Allocations.
    pub allocs: u64,
    /// Requested bytes of all allocations that were freed.
    pub freed_bytes: u64,
    /// Allocations that were freed.
    pub frees: u64,
}

impl Counters {
    /// The counters of a site that has done nothing.
    pub const ZERO: Counters = Counters { allocated_bytes: 0, allocs: 0, freed_bytes: 0, frees: 0 };

    /// What was counted at both of two sites.
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

/// When a slice was taken, and the process's own size at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceHeader {
    /// Which tick of the recording this slice belongs to; strictly increasing within a trace.
    pub tick: u64,
    /// When it was really taken, nanoseconds since the recording began.
    pub time_ns: u64,
    /// RssAnon of the process.
    pub rss_anon_bytes: u64,
    /// VmSwap of the process.
    pub swap_bytes: u64,
}

/// Receives the slices of one block, in order.
pub trait SliceVisitor {
    /// The areas of memory of the slice that comes next, with absolute values: for the first slice of a block every one that is not
    /// zero, later those that changed. Not called where there is none.
    fn memory(&mut self, header: &SliceHeader, changed: &[(AreaId, AreaBytes)]) {
        let _not_wanted = (header, changed);
    }

    /// One slice. `changed` holds absolute counters, by ascending id; the first call of a block holds every site whose
    /// counters are not zero, later calls those that changed since the slice before.
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]);
}
