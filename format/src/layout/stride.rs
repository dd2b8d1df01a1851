//! The distance between slices (a power of two, in ticks), and a grid of points that are this distance apart.

/// Measures the distance between slices while the recorder takes the slices.
///
/// The level rises to l when four distances in a row are at least 2^l ticks. If the recorder doubles the time
/// between slices, the level rises after four slices. If the machine stalls once, only one distance is long,
/// and the level does not rise. The level never falls, because the largest distance between slices determines
/// the distance between the points of the grid.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stride {
    level: u8,
    last_tick: Option<u64>,
    gaps: [u64; 4],
}

impl Stride {
    pub(crate) fn new(level: u8) -> Stride {
        Stride { level, last_tick: None, gaps: [0; 4] }
    }

    pub(crate) fn note(&mut self, tick: u64) {
        if let Some(last) = self.last_tick {
            self.gaps.rotate_left(1);
            self.gaps[3] = tick.saturating_sub(last);
            if let Some(level) = self.gaps.iter().min().and_then(|gap| gap.checked_ilog2()) {
                self.level = self.level.max(level.min(62) as u8);
            }
        }
        self.last_tick = Some(tick);
    }

    pub(crate) fn level(&self) -> u8 {
        self.level
    }
}

/// Maximum number of points of a grid. A reader does not need more points than this number, and without a
/// limit a hostile file could demand any number of points.
const MAX_POINTS: u64 = 16_384;

/// The evenly spaced points of a trace: the multiples of `stride_ticks` from the first slice to the last.
///
/// The value at a point comes from the newest slice whose tick is at or before the point. If the slice at the
/// point is missing, the previous slice gives the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Distance between two points, in ticks; at least the largest distance between slices in the trace.
    pub stride_ticks: u64,
    /// Tick of the first point of the grid.
    pub first_tick: u64,
    /// Number of points.
    pub points: usize,
}

impl Grid {
    /// Makes a grid. The function doubles the stride until the grid has at most four points for each slice,
    /// and at most [`MAX_POINTS`] points.
    pub(crate) fn new(stride_ticks: u64, first_slice: u64, last_slice: u64, slices: u64) -> Grid {
        let most = slices.saturating_mul(4).min(MAX_POINTS);
        let mut stride_ticks = stride_ticks;
        loop {
            let first = first_slice.div_ceil(stride_ticks);
            let points = count(first, last_slice / stride_ticks);
            if points <= most || stride_ticks > u64::MAX / 4 {
                let first_tick = first.saturating_mul(stride_ticks);
                return Grid { stride_ticks, first_tick, points: points.min(most) as usize };
            }
            stride_ticks *= 2;
        }
    }

    /// Doubles the stride of this grid until the grid has at most `points` points, and returns the new grid.
    pub fn at_most(&self, points: usize) -> Grid {
        let mut grid = *self;
        while grid.points > points.max(1) && grid.stride_ticks <= u64::MAX / 4 {
            let length = (grid.points as u64 - 1).saturating_mul(grid.stride_ticks);
            let last = grid.first_tick.saturating_add(length);
            let stride_ticks = grid.stride_ticks * 2;
            let first = grid.first_tick.div_ceil(stride_ticks);
            let points = count(first, last / stride_ticks) as usize;
            grid = Grid { stride_ticks, first_tick: first.saturating_mul(stride_ticks), points };
        }
        grid
    }

    /// The index of the first point at or after `tick`: a slice with this tick gives the point its value. If
    /// several slices have the same point, the last slice gives the value. `None`: the tick is after the last
    /// point.
    pub fn point_of(&self, tick: u64) -> Option<usize> {
        let index = tick.saturating_sub(self.first_tick).div_ceil(self.stride_ticks);
        usize::try_from(index).ok().filter(|&index| index < self.points)
    }

    /// Whether a slice with this tick is exactly on a point.
    pub fn contains(&self, tick: u64) -> bool {
        tick >= self.first_tick && tick.is_multiple_of(self.stride_ticks) && self.point_of(tick).is_some()
    }
}

/// The number of integers in `first..=last`.
fn count(first: u64, last: u64) -> u64 {
    last.checked_sub(first).map_or(0, |distance| distance.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(ticks: impl IntoIterator<Item = u64>) -> u8 {
        let mut stride = Stride::default();
        ticks.into_iter().for_each(|tick| stride.note(tick));
        stride.level()
    }

    #[test]
    fn the_last_tick_there_is_has_a_point() {
        let grid = Grid::new(1, u64::MAX - 2, u64::MAX, 3);
        assert_eq!((grid.first_tick, grid.points), (u64::MAX - 2, 3));
        assert!(grid.at_most(1).points <= 1);
        assert!(Grid::new(1, 0, u64::MAX, u64::MAX).points <= MAX_POINTS as usize);
    }

    #[test]
    fn a_doubled_period_is_seen_and_a_stall_is_not() {
        assert_eq!(level(0..100), 0);
        assert_eq!(level((0..100).chain((100..120).step_by(2))), 1);
        assert_eq!(level((0..100).chain(100_000..100_100)), 0);
        assert_eq!(level([0, 64, 128, 192, 256, 261]), 6);
        assert_eq!(level([]), 0);
        assert_eq!(level([7]), 0);
    }

    #[test]
    fn the_grid_is_the_multiples_between_first_and_last_slice() {
        let grid = Grid::new(4, 1, 17, 5);
        assert_eq!(grid, Grid { stride_ticks: 4, first_tick: 4, points: 4 });
        let points = [1, 4, 5, 8, 16, 17].map(|tick| grid.point_of(tick));
        assert_eq!(points, [Some(0), Some(0), Some(1), Some(1), Some(3), None]);
        assert!(grid.contains(16) && !grid.contains(17) && !grid.contains(20) && !grid.contains(0));
        assert_eq!(Grid::new(1, 0, 0, 1).points, 1);
        assert_eq!(Grid::new(8, 3, 5, 2).points, 0);
        assert_eq!(Grid::new(1, 5, 3, 2).points, 0);
    }

    #[test]
    fn no_claim_makes_a_grid_without_bound() {
        let grid = Grid::new(1, 0, u64::MAX - 1, 10);
        assert!(grid.points <= 40, "{grid:?}");
        assert!(Grid::new(1 << 62, 0, u64::MAX - 1, u64::MAX).points <= 4);
        assert!(Grid::new(1, 0, 1 << 40, u64::MAX).points <= MAX_POINTS as usize);
        let coarse = Grid::new(1, 3, 1000, 900).at_most(100);
        assert_eq!(coarse, Grid { stride_ticks: 16, first_tick: 16, points: 62 });
    }
}
