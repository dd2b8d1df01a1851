//! Replaces missing slices by points on a straight line.
//!
//! Counters are cumulative. So if a slice is missing, the next slice still counts all allocations; only the
//! times of these allocations are not known exactly. In a gap, this module assumes that live bytes change at
//! a constant rate, from the slice before the gap to the slice after the gap. So the curve is a straight line
//! in the gap. If the module used the value from before the gap for the whole gap, the curve would have a
//! step at the end of the gap. A test on the labelled corpus removes one piece of each curve, which is a
//! fifth of the curve (`tests/accuracy.rs`). Straight lines in the gaps give more accurate verdicts than
//! steps: F1 is .906 with lines and .885 with steps. (With the complete curves, F1 is .931.) Of the curves
//! that do not leak, 2.7 % are wrongly reported as leaks with lines in the gaps, and 4.7 % with steps.
//!
//! For every site, a gap ends at the same slice. So the values in a gap do not depend on the way in which
//! sites are divided between threads.

use std::ops::Range;

/// One or more neighbouring grid points without a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    /// The point of the newest slice before the gap.
    before: usize,
    /// The point of the first slice after the gap.
    after: usize,
}

impl Gap {
    /// The gap between two slices, which are at the points `before` and `after`; `None`: no grid point is
    /// between these two points.
    #[inline]
    pub(super) fn between(before: usize, after: usize) -> Option<Gap> {
        (after > before + 1).then_some(Gap { before, after })
    }

    /// The points of the gap.
    pub(super) fn points(&self) -> Range<usize> {
        self.before + 1..self.after
    }

    /// The value at the grid point `point` in the gap, rounded towards `was`. The argument `was` is the value
    /// before the gap, and `is` is the value after the gap.
    pub(super) fn value(&self, point: usize, was: u64, is: u64) -> u64 {
        let (passed, whole) = ((point - self.before) as u128, (self.after - self.before) as u128);
        // The result fits in 64 bits, because it is at most the difference of two 64-bit numbers.
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
