//! What stands in for slices that are missing: a straight line.
//!
//! Counters are cumulative, so a slice that was not taken hides no allocation, only when it was made. What was live at the points
//! in between is taken to lie on the line from the slice before to the slice after. Carrying the value before makes a step of every
//! gap: on the labelled corpus, with a fifth of each curve missing in one piece, F1 is .906 with lines and .885 with steps (.931 with
//! nothing missing), and 2.7 rather than 4.7 % of the rest are reported (`tests/accuracy.rs`).
//!
//! Which slice ends a gap is the same for every site, and so is the result, whoever computes it.

use std::ops::Range;

/// Points of the grid that no slice came for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    /// Point of the newest slice before.
    before: usize,
    /// Point of the first slice after.
    after: usize,
}

impl Gap {
    /// Between the slices at two points; `None` if no point lies between.
    #[inline]
    pub(super) fn between(before: usize, after: usize) -> Option<Gap> {
        (after > before + 1).then_some(Gap { before, after })
    }

    /// The points.
    pub(super) fn points(&self) -> Range<usize> {
        self.before + 1..self.after
    }

    /// The value at one of them, rounded towards `was`, where `is` is the one after.
    pub(super) fn value(&self, point: usize, was: u64, is: u64) -> u64 {
        let (passed, whole) = ((point - self.before) as u128, (self.after - self.before) as u128);
        // At most the distance of two numbers of 64 bits.
        let moved = (u128::from(was.abs_diff(is)) * passed / whole) as u64;
        if is > was { was + moved } else { was - moved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_leads_from_one_slice_to_the_next_and_never_beyond() {
        assert_eq!(Gap::between(3, 4), None);
        let gap = Gap::between(3, 7).expect("three points are missing");
        assert_eq!(gap.points(), 4..7);
        let line = |was, is| gap.points().map(|point| gap.value(point, was, is)).collect::<Vec<_>>();
        assert_eq!(line(10, 14), [11, 12, 13]);
        assert_eq!(line(14, 10), [13, 12, 11]);
        assert_eq!(line(7, 7), [7, 7, 7]);
        assert_eq!(line(0, 3), [0, 1, 2]);
        assert_eq!(line(0, u64::MAX), [u64::MAX / 4, u64::MAX / 2, u64::MAX / 4 * 3 + 2]);
        assert_eq!(line(u64::MAX, 0)[2], u64::MAX - (u64::MAX / 4 * 3 + 2));
    }
}
