//! The length of a tick.

use edleak_format::{Counters, SiteId, SliceHeader, SliceVisitor, Trace};

/// Nanoseconds from tick to tick; 0: unknown.
///
/// If damage destroyed the record with the length of a tick, the slices give the length: each slice has its
/// tick and its time. With a length of 0 every rate would be 0, and so within any budget.
pub fn tick_ns(trace: &Trace) -> f64 {
    let said = trace.start().tick_ns;
    if said != 0 {
        return said as f64;
    }
    let mut newest = Newest(SliceHeader::default());
    for block in (0..trace.blocks().len()).rev() {
        // The index has already counted the unsound part of the block.
        let _ = trace.replay_block(block, &mut newest);
        if newest.0.tick > 0 {
            return newest.0.time_ns as f64 / newest.0.tick as f64;
        }
    }
    0.0
}

struct Newest(SliceHeader);

impl SliceVisitor for Newest {
    fn slice(&mut self, header: &SliceHeader, _: &[(SiteId, Counters)]) {
        self.0 = *header;
    }
}
