//! A straight line replaces missing slices.
//!
//! Counters are cumulative. So a missing slice hides no allocation, only the time of the allocation. Between
//! two slices, live bytes are assumed to lie on the straight line from one slice to the other. The
//! alternative is to carry the earlier value. This alternative turns every gap into a step. A test on the
//! labelled corpus removes a fifth of each curve in one piece. F1 is then .906 with lines and .885 with steps
//! (.931 with nothing missing). Of the curves that do not leak, lines lead to reports for 2.7 % and steps for
//! 4.7 % (`tests/accuracy.rs`).
//!
//! The same slice ends a gap for every site. So the result does not depend on the thread that computes it.

use std::ops::Range;

/// Grid points without a slice.
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

    /// The value at one of the points, rounded towards `was`. `was` is the value before the gap, `is` the
    /// value after it.
    pub(super) fn value(&self, point: usize, was: u64, is: u64) -> u64 {
        let (passed, whole) = ((point - self.before) as u128, (self.after - self.before) as u128);
        // The result is at most the distance of two numbers of 64 bits, so it fits.
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
