//! One site on its way through the slices. HOT: this is where the time of a replay goes.
//!
//! A [`Series`](crate::series::SeriesBuilder) built point by point does not know how long it will become, so it starts with
//! narrow buckets and merges them. Here the length is known, so each bucket has its final width from the start: a move
//! touches one bucket, which is in the state itself, and the heap once per bucket. All sums are exact, so both ways end
//! with the same series, to the bit.

use crate::model::buckets::{Bucket, Buckets, Extent};
use crate::series::{Births, Point, Series, Sums};
use edleak_format::Grid;

/// Σ i and Σ i² for i below each grid point: what a run of equal values adds to the sums is a difference of two of them.
#[derive(Debug)]
pub(super) struct PowerSums(Vec<(u64, u64)>);

impl PowerSums {
    /// A grid has at most some thousands of points, so that squares of them stay small.
    pub(super) fn new(grid: Grid) -> Self {
        let mut sums = Vec::with_capacity(grid.points + 1);
        let mut sum = (0u64, 0u64);
        for i in 0..=grid.points as u64 {
            sums.push(sum);
            sum = (sum.0 + i, sum.1 + i * i);
        }
        Self(sums)
    }

    /// Σ i and Σ i² for i in from..to.
    #[inline]
    fn between(&self, from: usize, to: usize) -> (u64, u64) {
        let (start, end) = (self.0[from], self.0[to]);
        (end.0 - start.0, end.1 - start.1)
    }
}

/// One site. `live_*` are in effect from grid point `covered` on; everything before is in the sums and the buckets.
#[derive(Clone, Debug)]
pub(super) struct State {
    live_bytes: u64,
    live_count: u64,
    absent: u32,
    covered: u32,
    /// Where the open bucket ends.
    edge: u32,
    width: u32,
    /// How many buckets there will be.
    most: u32,
    bytes: Extent,
    count: Extent,
    /// Σ b, Σ b·i and Σ b·i² over the covered points; here i counts from the start of the grid.
    b: u128,
    bi: u128,
    bii: u128,
    /// The full ones.
    buckets: Vec<Bucket>,
}

/// Not seen yet.
const UNSEEN: u32 = u32::MAX;

impl Default for State {
    fn default() -> Self {
        Self {
            live_bytes: 0,
            live_count: 0,
            absent: UNSEEN,
            covered: UNSEEN,
            edge: 0,
            width: 0,
            most: 0,
            bytes: Extent::EMPTY,
            count: Extent::EMPTY,
            b: 0,
            bi: 0,
            bii: 0,
            buckets: Vec::new(),
        }
    }
}

impl State {
    /// A slice named the site.
    pub(super) fn is_seen(&self) -> bool {
        self.absent != UNSEEN
    }

    /// The site is named after the last point: if it is new, it has no point at all.
    pub(super) fn see_after_last(&mut self, points: usize) {
        if self.absent == UNSEEN {
            self.begin(points, points);
        }
    }

    /// Grid points before the first one.
    pub(super) fn absent(&self) -> usize {
        self.absent as usize
    }

    /// Live bytes in effect.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// New values, in effect from `point` on. Of several at one point the last one counts.
    #[inline]
    pub(super) fn moves(
        &mut self,
        point: usize,
        live_bytes: u64,
        live_count: u64,
        powers: &PowerSums,
        points: usize,
    ) {
        if self.absent == UNSEEN {
            self.begin(point, points);
        } else if (live_bytes, live_count) == (self.live_bytes, self.live_count) {
            return;
        } else if point > self.covered as usize {
            self.cover(point, powers);
        }
        self.live_bytes = live_bytes;
        self.live_count = live_count;
    }

    #[cold]
    fn begin(&mut self, point: usize, points: usize) {
        // A grid has fewer points than a u32 holds; a site that is seen after the last one has none.
        (self.absent, self.covered) = (point as u32, point as u32);
        let slices = points.saturating_sub(point) as u64;
        self.width = Buckets::width_for(slices) as u32;
        self.most = slices.div_ceil(u64::from(self.width)) as u32;
        self.edge = self.absent + self.width;
    }

    /// Takes the values in effect for every point before `point`.
    #[inline]
    fn cover(&mut self, point: usize, powers: &PowerSums) {
        let run = (point - self.covered as usize) as u64;
        let (i, ii) = powers.between(self.covered as usize, point);
        let bytes = u128::from(self.live_bytes);
        self.b += bytes * u128::from(run);
        self.bi += bytes * u128::from(i);
        self.bii += bytes * u128::from(ii);
        if point as u32 <= self.edge {
            self.extend(run);
            self.covered = point as u32;
        } else {
            self.cover_edges(point as u32);
        }
    }

    /// The same over the edge of at least one bucket.
    #[inline(never)]
    fn cover_edges(&mut self, point: u32) {
        // The length is known, so the heap is asked once; a site that never moves does not ask at all.
        if self.buckets.capacity() == 0 {
            self.buckets.reserve_exact(self.most as usize);
        }
        let (mut bytes, mut count) = (self.bytes, self.count);
        while self.edge < point {
            let run = u64::from(self.edge - self.covered);
            // A full bucket takes no more: even no times a value would count for its extremes.
            if run > 0 {
                bytes.add_run(self.live_bytes, run);
                count.add_run(self.live_count, run);
            }
            self.buckets.push(Bucket { bytes, count });
            (bytes, count) = (Extent::EMPTY, Extent::EMPTY);
            self.covered = self.edge;
            self.edge += self.width;
        }
        let run = u64::from(point - self.covered);
        bytes.add_run(self.live_bytes, run);
        count.add_run(self.live_count, run);
        (self.bytes, self.count, self.covered) = (bytes, count, point);
    }

    #[inline]
    fn extend(&mut self, run: u64) {
        self.bytes.add_run(self.live_bytes, run);
        self.count.add_run(self.live_count, run);
    }

    /// Ends the series at the last point of the grid.
    pub(super) fn finish(
        mut self,
        points: usize,
        allocs: u64,
        frees: u64,
        powers: &PowerSums,
        births: Option<Births>,
    ) -> Series {
        let last = Point { live_bytes: self.live_bytes, live_count: self.live_count, allocs, frees };
        let has_moved = self.covered != self.absent;
        if points > self.covered as usize {
            self.cover(points, powers);
        }
        let slices = u64::from(self.covered - self.absent);
        let open = slices.saturating_sub(self.buckets.len() as u64 * u64::from(self.width));
        let (width, mut buckets) = (u64::from(self.width), std::mem::take(&mut self.buckets));
        if slices > 0 {
            buckets.push(Bucket { bytes: self.bytes, count: self.count });
        }
        let sums = Sums {
            n: slices,
            b: self.b,
            bi: self.bi - u128::from(self.absent) * self.b,
            bii: (self.bii + u128::from(self.absent).pow(2) * self.b) - 2 * u128::from(self.absent) * self.bi,
            min: buckets.iter().map(|bucket| bucket.bytes.min).min().unwrap_or(0),
            max: buckets.iter().map(|bucket| bucket.bytes.max).max().unwrap_or(0),
        };
        let buckets = has_moved.then(|| Buckets::from_parts(buckets, width, open));
        Series::from_parts(u64::from(self.absent), sums, last, buckets, births)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::SeriesBuilder;

    /// Both ways over the same moves: (point, bytes, count).
    fn both(points: usize, moves: &[(usize, u64, u64)]) -> (Series, Series) {
        let grid = Grid { stride_ticks: 1, first_tick: 0, points };
        let powers = PowerSums::new(grid);
        let mut state = State::default();
        moves.iter().for_each(|&(point, bytes, count)| state.moves(point, bytes, count, &powers, points));
        let fast = state.finish(points, 7, 3, &powers, None);

        let mut builder = SeriesBuilder::new();
        let first = moves[0].0;
        builder.absent(first as u64);
        for point in first..points {
            let &(_, live_bytes, live_count) =
                moves.iter().rfind(|(at, ..)| *at <= point).expect("from the first on");
            let (allocs, frees) = if point + 1 == points { (7, 3) } else { (0, 0) };
            builder.push(Point { live_bytes, live_count, allocs, frees });
        }
        (fast, builder.finish())
    }

    fn assert_same(points: usize, moves: &[(usize, u64, u64)]) {
        let (fast, slow) = both(points, moves);
        assert_eq!(fast.sums(), slow.sums(), "{points} {moves:?}");
        assert_eq!(fast.buckets(), slow.buckets(), "{points} {moves:?}");
        assert_eq!((fast.absent(), fast.last()), (slow.absent(), slow.last()), "{points} {moves:?}");
    }

    #[test]
    fn it_equals_the_series_built_point_by_point() {
        for points in [1, 2, 12, 127, 128, 129, 255, 256, 257, 1000, 4097] {
            for first in [0, 1, points / 3, points - 1].into_iter().filter(|&first| first < points) {
                let every: Vec<_> =
                    (first..points).map(|i| (i, (i * i % 977) as u64, (i % 13) as u64)).collect();
                assert_same(points, &every);
                let some: Vec<_> =
                    every.iter().copied().filter(|(i, ..)| *i == first || i % 37 == 5).collect();
                assert_same(points, &some);
                assert_same(points, &[(first, 5, 1)]);
                assert_same(points, &[(first, 5, 1), (first, 6, 2), (points - 1, 1 << 47, 9)]);
            }
        }
    }

    #[test]
    fn forged_counters_do_no_harm() {
        let forged: Vec<_> = (0..300).map(|i| (i, u64::MAX - i as u64, u64::MAX)).collect();
        assert_same(300, &forged);
    }
}
