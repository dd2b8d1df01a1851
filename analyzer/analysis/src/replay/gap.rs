//! Replaces missing slices by points on a straight line.
//!
//! Counters are cumulative. So if a slice is missing, the next slice still counts all allocations; only the
//! times of these allocations are not known exactly. Between two slices, live bytes are assumed to change at
//! a constant rate, from the value of one slice to the value of the other. The alternative is to keep the
//! value from before the gap until its end. This alternative turns every gap into a step. A test on the
//! labelled corpus removes a fifth of each curve in one piece. The accuracy of the verdicts (F1) is then .906
//! with lines and .885 with steps; it is .931 if no slice is missing. Of the curves that do not leak, 2.7 %
//! are reported with lines and 4.7 % with steps (`tests/accuracy.rs`).
//!
//! A gap ends at the same slice for every site. So the result does not depend on the way in which the work is
//! divided between threads.

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
    /// The gap between the slices at two points; `None`: no point lies between them.
    #[inline]
    pub(super) fn between(before: usize, after: usize) -> Option<Gap> {
        (after > before + 1).then_some(Gap { before, after })
    }

    /// The points of the gap.
    pub(super) fn points(&self) -> Range<usize> {
        self.before + 1..self.after
    }

    /// The value at one of the points of the gap, rounded towards `was`. Here `was` is the value before the
    /// gap, and `is` is the value after the gap.
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
