//! Computes the length of a tick, which is the unit of time of a trace.

use edleak_format::{Counters, SiteId, SliceHeader, SliceVisitor, Trace};

/// Number of nanoseconds from one tick to the next; 0: unknown.
///
/// If the record with the length of a tick is damaged, the length is computed from the slices, because each
/// slice has its tick and its time. If the function returned 0 instead, every leak rate would be 0, so every
/// budget would tolerate every leak.
pub(crate) fn tick_ns(trace: &Trace) -> f64 {
    let said = trace.start().tick_ns;
    if said != 0 {
        return said as f64;
    }
    let mut newest = Newest(SliceHeader::default());
    for block in (0..trace.blocks().len()).rev() {
        // The function ignores an error of this read, because edleak already counted the damaged part of the
        // block when it opened the trace.
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
