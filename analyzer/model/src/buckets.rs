//! The condensed curve of a site is a list of buckets, each of which covers the same number of slices. When
//! the list gets too long, this module merges each pair of buckets into one bucket.

use crate::bucket::{Bucket, Extent};
use crate::packed::Packed;

/// Maximum number of buckets. When a curve needs more than `MOST` buckets, each pair of buckets becomes one
/// bucket, and every bucket covers twice as many slices. So the curve of a record of 64 slices or more has 64
/// to 128 buckets. With half as many buckets, the accuracy of the verdicts (F1) falls by a tenth of a
/// percentage point; with twice as many buckets, F1 rises by a tenth of a percentage point.
pub(crate) const MOST: usize = 128;

/// The buckets of one series.
#[derive(Clone, Debug)]
pub struct Buckets {
    buckets: Packed,
    /// Number of slices in a full bucket, a power of two.
    width: u64,
    /// Number of slices in the last bucket.
    filled: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { buckets: Packed::default(), width: 1, filled: 1 }
    }
}

impl PartialEq for Buckets {
    fn eq(&self, other: &Self) -> bool {
        (self.width, self.filled) == (other.width, other.filled) && self.all().eq(other.all())
    }
}

impl Eq for Buckets {}

impl Buckets {
    /// Makes the buckets of a series from buckets that other code has filled: the last bucket has `filled`
    /// slices, and every other bucket has `width` slices.
    pub fn from_parts(buckets: Packed, width: u64, filled: u64) -> Self {
        Self { buckets, width, filled }
    }

    /// The number of slices per bucket for a record of `slices` slices.
    pub fn width_for(slices: u64) -> u64 {
        slices.div_ceil(MOST as u64).max(1).next_power_of_two()
    }

    /// Adds `repeat` slices that all have the same live bytes and the same live count. The result is the
    /// same, bit for bit, as if `repeat` calls had added one slice each, but the function writes each bucket
    /// only once.
    pub(crate) fn push_run(&mut self, live_bytes: u64, live_count: u64, repeat: u64) {
        let mut left = repeat;
        while left > 0 {
            if self.filled == self.width {
                self.open();
            }
            let taken = left.min(self.width - self.filled);
            // The last bucket can take at least one more slice: if it was full, `open` has just added an
            // empty bucket.
            let last = self.buckets.len() - 1;
            let mut bucket = self.buckets.get(last);
            bucket.bytes.add_run(live_bytes, taken);
            bucket.count.add_run(live_count, taken);
            self.buckets.set(last, bucket);
            self.filled += taken;
            left -= taken;
        }
    }

    /// The buckets in order of time. The last bucket may cover fewer than `width` slices; [`Buckets::full`]
    /// leaves out such a bucket.
    pub(crate) fn all(&self) -> impl ExactSizeIterator<Item = Bucket> + Clone + '_ {
        self.first(self.buckets.len())
    }

    /// The full buckets: those that cover `width` slices.
    pub(crate) fn full(&self) -> impl ExactSizeIterator<Item = Bucket> + Clone + '_ {
        let torn = usize::from(self.filled < self.width);
        self.first(self.buckets.len() - torn)
    }

    /// The bucket with this index.
    pub(crate) fn at(&self, index: usize) -> Bucket {
        self.buckets.get(index)
    }

    fn first(&self, buckets: usize) -> impl ExactSizeIterator<Item = Bucket> + Clone + '_ {
        (0..buckets).map(|index| self.buckets.get(index))
    }

    /// The least and the greatest number of live bytes in all buckets.
    pub fn extreme_bytes(&self) -> (u64, u64) {
        self.all()
            .fold((u64::MAX, 0), |(min, max), bucket| (min.min(bucket.bytes.min), max.max(bucket.bytes.max)))
    }

    /// Number of slices in a full bucket.
    pub(crate) fn width(&self) -> u64 {
        self.width
    }

    /// Number of slices in the last bucket.
    pub(crate) fn filled(&self) -> u64 {
        self.filled
    }

    fn open(&mut self) {
        if self.buckets.len() == MOST {
            for i in 0..MOST / 2 {
                let (mut left, right) = (self.buckets.get(2 * i), self.buckets.get(2 * i + 1));
                left.bytes.merge(right.bytes);
                left.count.merge(right.count);
                self.buckets.set(i, left);
            }
            self.buckets.truncate(MOST / 2);
            self.width = self.width.saturating_mul(2);
        }
        self.buckets.push(Bucket { bytes: Extent::EMPTY, count: Extent::EMPTY });
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_fewer_than_64_nor_more_than_128_buckets_after_64_slices() {
        let mut buckets = Buckets::default();
        for slice in 0..100_000u64 {
            buckets.push_run(slice, 1, 1);
            let least = if slice < 64 { slice as usize + 1 } else { 64 };
            assert!(buckets.all().len() >= least && buckets.all().len() <= MOST, "slice {slice}");
        }
    }

    #[test]
    fn a_run_equals_single_pushes_to_the_bit() {
        let runs = [(7, 3), (0, 1), (9, 200), (9, 1), (1 << 40, 1000), (5, 77)];
        let (mut runwise, mut single) = (Buckets::default(), Buckets::default());
        for (value, repeat) in runs {
            runwise.push_run(value, value / 2, repeat);
            for _ in 0..repeat {
                single.push_run(value, value / 2, 1);
            }
        }
        assert_eq!(runwise, single);
    }

    #[test]
    fn merging_loses_no_byte_and_no_extreme() {
        let mut buckets = Buckets::default();
        for slice in 0..5000u64 {
            buckets.push_run(slice * 3 % 1009, slice, 1);
        }
        let sum: u64 = buckets.all().map(|b| b.bytes.sum).sum();
        assert_eq!(sum, (0..5000u64).map(|s| s * 3 % 1009).sum::<u64>());
        assert_eq!(buckets.all().map(|b| b.bytes.max).max(), Some(1008));
        assert_eq!(buckets.all().next().map(|b| b.count.max), Some(buckets.width() - 1));
    }

    #[test]
    fn a_run_as_long_as_the_counter_allows_ends_at_once() {
        let mut buckets = Buckets::default();
        buckets.push_run(1, 1, u64::MAX);
        buckets.push_run(u64::MAX, u64::MAX, u64::MAX);
        assert!(buckets.all().len() <= MOST);
    }
}
