//! The length of a tick.

use edleak_format::{Counters, SiteId, SliceHeader, SliceVisitor, Trace};

/// Number of nanoseconds from one tick to the next; 0: unknown.
///
/// If the record with the length of a tick is damaged, the length is computed from the slices, because each
/// slice has its tick and its time. Without this computation, the length would be 0 and so would every rate,
/// so every leak would be within any budget.
pub fn tick_ns(trace: &Trace) -> f64 {
    let said = trace.start().tick_ns;
    if said != 0 {
        return said as f64;
    }
    let mut newest = Newest(SliceHeader::default());
    for block in (0..trace.blocks().len()).rev() {
        // An error is ignored here, because the damaged part of the block was already counted when the trace
        // was opened.
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
