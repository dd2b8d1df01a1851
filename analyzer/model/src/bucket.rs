//! A bucket stands for several slices in a row. A bucket has three values for the live bytes in its slices
//! (the sum, the least and the greatest value) and three such values for the live count.

/// Sum, least and greatest value of one quantity over the slices of a bucket. Sums saturate at the greatest
/// 64-bit number, which only a forged trace can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Sum of the values in all slices of the bucket.
    pub sum: u64,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
}

impl Extent {
    /// The values of an empty bucket, which has no slices yet.
    pub const EMPTY: Self = Self { sum: 0, min: u64::MAX, max: 0 };

    /// Adds `repeat` slices that all have the value `value`.
    #[inline]
    pub fn add_run(&mut self, value: u64, repeat: u64) {
        self.merge(Self { sum: value.saturating_mul(repeat), min: value, max: value });
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

/// Several slices in a row, condensed to their sums, least values and greatest values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The live bytes in the slices of the bucket.
    pub bytes: Extent,
    /// The live count in the slices of the bucket.
    pub count: Extent,
}
