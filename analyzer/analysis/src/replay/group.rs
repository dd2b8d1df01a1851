//! Builds the series of sixteen neighbouring sites from the slices. HOT: a replay spends most of its time in
//! this module.
//!
//! [`Series`] can also be built point by point without knowing the final length: such a series starts with
//! narrow buckets and merges them when it gets longer. A replay knows the final length of a series, so each
//! bucket has its final width from the start. At each point, the values of all sixteen sites are added to
//! their open buckets, even if a value has not changed. To add sixteen values takes a few vector instructions
//! and no branch that the processor could mispredict. All sums are exact, so a series from this module has
//! the same bits as a [`Series`] built point by point.

use super::bucket_rows::{BucketRows, Place};
use super::gap::Gap;
use super::opened::Step;
use super::sums::{ExactSums, PowerSums};
use edleak_format::{GROUP_SITES, GroupValues, Row};
use edleak_model::bucket::{Bucket, Extent};
use edleak_model::buckets::Buckets;
use edleak_model::series::{Births, Point, Series};
use std::ops::Range;

/// One quantity (bytes or count) of sixteen sites: its current values, and the sums, minima and maxima of the
/// open buckets.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Quantity {
    now: GroupValues,
    sum: GroupValues,
    min: GroupValues,
    max: GroupValues,
}

const NEW: Quantity = Quantity {
    now: [0; GROUP_SITES],
    sum: [0; GROUP_SITES],
    min: [u64::MAX; GROUP_SITES],
    max: [0; GROUP_SITES],
};

/// The state of the replay for a group of sixteen neighbouring sites. The buckets contain all grid points
/// before `covered`. The values in `now` are those from grid point `covered` on.
#[derive(Clone, Debug)]
pub(super) struct Group {
    bytes: Quantity,
    count: Quantity,
    /// For each site, a mask: all bits are 1 if no slice has named the site yet, and all bits are 0 after a
    /// slice has named it.
    unseen: GroupValues,
    covered: u32,
    /// The first point at which one of the open buckets ends.
    next_edge: u32,
    /// The point at which the open bucket of each site ends; `u32::MAX` if no slice has named the site yet.
    edges: [u32; GROUP_SITES],
    sites: [Site; GROUP_SITES],
    bucket_rows: BucketRows,
    /// The greatest number of buckets that any of the sites will have.
    most: u32,
    exact: Option<Box<[ExactSums; GROUP_SITES]>>,
}

/// Data of one site that the loops of the replay rarely use. These data are stored apart from the values,
/// which the loops use all the time.
#[derive(Clone, Debug)]
struct Site {
    absent: u32,
    width: u32,
    place: Place,
}

impl Group {
    /// Makes a group without points. If `exact` is true, the group also computes the exact sums for edLeak's
    /// fit.
    pub(super) fn new(exact: bool) -> Self {
        Self {
            bytes: NEW,
            count: NEW,
            covered: 0,
            next_edge: u32::MAX,
            edges: [u32::MAX; GROUP_SITES],
            sites: std::array::from_fn(|lane| Site { absent: 0, width: 0, place: Place::new(lane) }),
            bucket_rows: BucketRows::default(),
            most: 0,
            unseen: [u64::MAX; GROUP_SITES],
            exact: exact.then(Box::default),
        }
    }

    /// Adds several slices to the series of the sixteen sites. The function also adds the live bytes of each
    /// site at each slice to `live_bytes`.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        rows: &[Row],
        steps: &[Step],
        points: u32,
        powers: &PowerSums,
        live_bytes: &mut [GroupValues],
    ) {
        for ((row, step), sum) in rows.iter().zip(steps).zip(live_bytes) {
            if step.point > self.covered {
                if step.point - self.covered == 1 && self.exact.is_none() {
                    if self.covered == self.next_edge {
                        self.close_buckets();
                    }
                    self.bytes.add();
                    self.count.add();
                    self.covered += 1;
                } else if step.counts {
                    self.cover(step.point, row, powers);
                } else {
                    self.cover(step.point, &self.at_the_end(row), powers);
                }
            }
            let begins = (0..GROUP_SITES).fold(0, |any, l| any | (row.named[l] & self.unseen[l]));
            if begins != 0 {
                self.begin(row, step.point, points);
            }
            if step.counts {
                self.bytes.now = chosen(&row.named, &row.live_bytes, &self.bytes.now);
                self.count.now = chosen(&row.named, &row.live_count, &self.count.now);
                *sum = std::array::from_fn(|l| sum[l].wrapping_add(self.bytes.now[l]));
            }
        }
    }

    /// Begins the series of each site that is named by this slice and by no slice before it.
    #[cold]
    #[inline(never)]
    fn begin(&mut self, row: &Row, point: u32, points: u32) {
        for l in 0..GROUP_SITES {
            if row.named[l] & self.unseen[l] == 0 {
                continue;
            }
            self.unseen[l] = 0;
            let slices = u64::from(points.saturating_sub(point));
            let width = Buckets::width_for(slices) as u32;
            self.most = self.most.max(slices.div_ceil(u64::from(width)) as u32);
            (self.sites[l].absent, self.sites[l].width) = (point, width);
            self.edges[l] = point + width;
            self.bytes.reset(l);
            self.count.reset(l);
        }
        self.find_next_edge();
    }

    fn find_next_edge(&mut self) {
        self.next_edge = self.edges.iter().fold(u32::MAX, |least, &edge| least.min(edge));
    }

    /// Finishes every bucket that ends at the point `covered`, and begins the next one.
    #[inline(never)]
    fn close_buckets(&mut self) {
        for l in 0..GROUP_SITES {
            if self.edges[l] == self.covered {
                self.close_bucket(l);
            }
        }
        self.find_next_edge();
    }

    /// Adds all points before `point` that are not in the buckets yet. If no slices are missing, the added
    /// points get the current values. If slices are missing, the points get values on a straight line from
    /// the current values to the values of the slice `next`. If the slice `next` comes after the last grid
    /// point, the line is cut off at the last grid point.
    #[inline(never)]
    fn cover(&mut self, point: u32, next: &Row, powers: &PowerSums) {
        let (from, to) = (self.covered as usize, point as usize);
        let gap = Gap::between(from, to);
        for l in 0..GROUP_SITES {
            if self.unseen[l] != 0 {
                continue;
            }
            let was = [self.bytes.now[l], self.count.now[l]];
            let is = if next.named[l] != 0 { [next.live_bytes[l], next.live_count[l]] } else { was };
            match gap {
                Some(gap) if is != was => {
                    self.add_run(l, from..from + 1, was, powers);
                    for at in gap.points() {
                        let on_the_way = [gap.value(at, was[0], is[0]), gap.value(at, was[1], is[1])];
                        self.add_run(l, at..at + 1, on_the_way, powers);
                        [self.bytes.now[l], self.count.now[l]] = on_the_way;
                    }
                }
                _ => self.add_run(l, from..to, was, powers),
            }
        }
        self.covered = point;
        self.find_next_edge();
    }

    /// For a gap at the end of the grid, the values of the slice after the gap, but not less than the current
    /// values. (A program frees its memory when it ends, so a lower value after the gap says nothing about
    /// the gap.)
    fn at_the_end(&self, row: &Row) -> Row {
        let higher = |is: &GroupValues, was: &GroupValues| std::array::from_fn(|l| is[l].max(was[l]));
        let live_bytes = higher(&row.live_bytes, &self.bytes.now);
        Row { live_bytes, live_count: higher(&row.live_count, &self.count.now), ..*row }
    }

    /// Adds several points with the same values to the series of one site. The added points may lie in more
    /// than one bucket of the series.
    fn add_run(&mut self, l: usize, points: Range<usize>, [bytes, count]: [u64; 2], powers: &PowerSums) {
        if let Some(exact) = &mut self.exact {
            exact[l].add(bytes, points.start, points.end, powers);
        }
        // The indexes fit into a u32, because a grid has less than 2³² points.
        let (mut at, end) = (points.start as u32, points.end as u32);
        while at < end {
            if at == self.edges[l] {
                self.close_bucket(l);
            }
            let to = end.min(self.edges[l]);
            self.bytes.add_run(l, bytes, u64::from(to - at));
            self.count.add_run(l, count, u64::from(to - at));
            at = to;
        }
    }

    #[inline]
    fn close_bucket(&mut self, l: usize) {
        let bucket = Bucket { bytes: self.bytes.extent(l), count: self.count.extent(l) };
        self.bytes.reset(l);
        self.count.reset(l);
        let site = &mut self.sites[l];
        self.edges[l] += site.width;
        self.bucket_rows.put(&mut site.place, &bucket, site.width, self.most);
    }

    /// Ends the series of all sites that a slice has named, and calls `each` with each series and the site's
    /// lane (the index of the site in the group). `facts` returns the counters of a site and the birth times
    /// of its surviving allocations; its arguments are the site's lane and first point.
    pub(super) fn finish(
        mut self,
        points: usize,
        powers: &PowerSums,
        facts: impl Fn(usize, usize) -> (u64, u64, Option<Births>),
        mut each: impl FnMut(usize, Series),
    ) {
        let points = points as u32;
        if points > self.covered {
            self.cover(points, &Row::NOTHING, powers);
        }
        let Self { bytes, count, unseen, sites, bucket_rows, exact, .. } = self;
        for (l, Site { absent, width, place }) in
            sites.into_iter().enumerate().filter(|(l, _)| unseen[*l] == 0)
        {
            let (allocs, frees, births) = facts(l, absent as usize);
            let (live_bytes, live_count) = (bytes.now[l], count.now[l]);
            let last = Point { live_bytes, live_count, allocs, frees };
            let slices = points - absent;
            let filled = slices - place.closed() * width;
            let open = Bucket { bytes: bytes.extent(l), count: count.extent(l) };
            let packed = (slices > 0).then(|| bucket_rows.take(place, &open, width)).flatten();
            let buckets =
                packed.map(|packed| Buckets::from_parts(packed, u64::from(width), u64::from(filled)));
            let sums = exact.as_ref().map(|exact| {
                let flat = if slices > 0 { (live_bytes, live_bytes) } else { (0, 0) };
                let extremes = buckets.as_ref().map_or(flat, Buckets::extreme_bytes);
                exact[l].since(u64::from(absent), u64::from(slices), extremes)
            });
            let (absent, slices) = (u64::from(absent), u64::from(slices));
            each(l, Series::from_parts(absent, slices, sums, last, buckets, births));
        }
    }
}

/// For each lane (each of the sixteen sites), returns the value of `one` if all bits of the mask are 1, and
/// the value of `other` if the mask is 0. The function builds the result as one vector: after sixteen
/// separate stores, the next vector load would have to wait.
#[inline(always)]
fn chosen(mask: &GroupValues, one: &GroupValues, other: &GroupValues) -> GroupValues {
    std::array::from_fn(|l| (one[l] & mask[l]) | (other[l] & !mask[l]))
}

impl Quantity {
    /// Adds the current values of all sixteen sites for one more grid point.
    #[inline(always)]
    fn add(&mut self) {
        for l in 0..GROUP_SITES {
            self.sum[l] = self.sum[l].saturating_add(self.now[l]);
            self.min[l] = self.min[l].min(self.now[l]);
            self.max[l] = self.max[l].max(self.now[l]);
        }
    }

    #[inline]
    fn add_run(&mut self, l: usize, value: u64, points: u64) {
        let mut extent = self.extent(l);
        extent.add_run(value, points);
        (self.sum[l], self.min[l], self.max[l]) = (extent.sum, extent.min, extent.max);
    }

    #[inline]
    fn reset(&mut self, l: usize) {
        (self.sum[l], self.min[l], self.max[l]) = (Extent::EMPTY.sum, Extent::EMPTY.min, Extent::EMPTY.max);
    }

    #[inline]
    fn extent(&self, l: usize) -> Extent {
        Extent { sum: self.sum[l], min: self.min[l], max: self.max[l] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_format::Grid;
    use edleak_model::series::SeriesBuilder;
    use std::collections::BTreeSet;

    /// A change of the values of one site. The three numbers of a change are a point, the live bytes from
    /// this point on, and the live count from this point on.
    type Move = (usize, u64, u64);

    /// Builds the series of a group of sites; `sites` has the changes of each site. The function adds a few
    /// slices at a time, as a replay does. If `exact` is true, the group also computes the exact sums.
    fn condensed(points: usize, sites: &[Vec<Move>], exact: bool) -> Vec<(usize, Series)> {
        let powers = PowerSums::new(Grid { stride_ticks: 1, first_tick: 0, points });
        let mut rows: std::collections::BTreeMap<usize, Row> = std::collections::BTreeMap::new();
        for (l, moves) in sites.iter().enumerate() {
            for &(point, bytes, count) in moves {
                let row = rows.entry(point).or_insert(Row::NOTHING);
                (row.named[l], row.live_bytes[l], row.live_count[l]) = (u64::MAX, bytes, count);
            }
        }
        let step = |&point: &usize| Step { point: point.min(points) as u32, counts: point < points };
        let steps: Vec<Step> = rows.keys().map(step).collect();
        let rows: Vec<Row> = rows.into_values().collect();
        let mut group = Group::new(exact);
        for (rows, steps) in rows.chunks(5).zip(steps.chunks(5)) {
            let mut live = [[0; GROUP_SITES]; 5];
            group.take(rows, steps, points as u32, &powers, &mut live[..rows.len()]);
        }
        let mut ended = Vec::new();
        group.finish(points, &powers, |_, _| (7, 3, None), |l, series| ended.push((l, series)));
        ended
    }

    /// Builds the series that a group must give, point by point with [`SeriesBuilder`]. A point with a slice
    /// gets the value of the newest change of the site. A point without a slice gets a value on the straight
    /// line between the slices before and after it.
    fn built(points: usize, moves: &[Move], slices: &BTreeSet<usize>) -> Series {
        let mut builder = SeriesBuilder::new();
        let first = moves[0].0.min(points);
        builder.absent(first as u64);
        let newest = |point: usize| {
            let &(_, bytes, count) = moves.iter().rfind(|(at, ..)| *at <= point).expect("from the first on");
            (bytes, count)
        };
        for point in first..points {
            let before = *slices.range(..=point).next_back().expect("the first move is one");
            let after =
                slices.range(point..).next().copied().filter(|&after| after < points).unwrap_or(before);
            let line = |was: u64, is: u64| {
                let (passed, whole) = ((point - before) as i128, (after - before).max(1) as i128);
                (i128::from(was) + (i128::from(is) - i128::from(was)) * passed / whole) as u64
            };
            let (was, is) = (newest(before), newest(after));
            let (live_bytes, live_count) = (line(was.0, is.0), line(was.1, is.1));
            let (allocs, frees) = if point + 1 == points { (7, 3) } else { (0, 0) };
            builder.push(Point { live_bytes, live_count, allocs, frees });
        }
        builder.finish()
    }

    fn assert_same(points: usize, sites: &[Vec<Move>]) {
        let slices = sites.iter().flatten().map(|&(point, ..)| point).collect();
        for exact in [false, true] {
            let condensed = condensed(points, sites, exact);
            assert_eq!(condensed.len(), sites.len());
            for (l, series) in condensed {
                let slow = built(points, &sites[l], &slices);
                assert_eq!(series.sums(), slow.sums().filter(|_| exact), "{points} {:?}", sites[l]);
                assert_eq!(series.buckets(), slow.buckets(), "{points} {:?}", sites[l]);
                assert_eq!((series.absent(), series.points()), (slow.absent(), slow.points()));
                if series.points() > 0 {
                    assert_eq!(series.last(), slow.last());
                }
            }
        }
    }

    #[test]
    fn grouped_replay_equals_replay_point_by_point() {
        for points in [1, 2, 12, 127, 128, 129, 255, 256, 257, 1000, 4097] {
            for first in [0, 1, points / 3, points - 1].into_iter().filter(|&first| first < points) {
                let every: Vec<_> =
                    (first..points).map(|i| (i, (i * i % 977) as u64, (i % 13) as u64)).collect();
                let some: Vec<_> =
                    every.iter().copied().filter(|(i, ..)| *i == first || i % 37 == 5).collect();
                let late = vec![(first, 5, 1), (points.max(first + 1), 6, 2)];
                assert_same(points, &[every.clone(), some.clone(), vec![(first, 5, 1)], late]);
                // A group with only one site, which seldom changes: most grid points have no slice.
                assert_same(points, &[some]);
                assert_same(points, &[vec![(first, 5, 1), (points - 1, 1 << 47, 9)]]);
                // The first site keeps the same values for several buckets before its values change.
                assert_same(points, &[vec![(first, 5, 1), ((first + points) / 2, 9, 1)], every]);
            }
        }
    }

    #[test]
    fn a_site_first_seen_behind_the_last_point_has_none() {
        assert_same(20, &[vec![(0, 1, 1)], vec![(20, 5, 1)]]);
    }

    #[test]
    fn forged_counters_do_no_harm() {
        let forged: Vec<_> = (0..300).map(|i| (i, u64::MAX - i as u64, u64::MAX)).collect();
        let few: Vec<_> = forged.iter().copied().filter(|(i, ..)| i % 50 == 0).collect();
        assert_same(300, &[forged, few]);
    }
}
