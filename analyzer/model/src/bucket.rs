//! A bucket: the sum, the least and the greatest value of live bytes and live count over a run of slices.

/// Sum, least and greatest value of one quantity over the slices of a bucket. Sums saturate at the greatest
/// 64-bit number, which only a forged trace can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Sum of the values.
    pub sum: u64,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
}

impl Extent {
    /// The extent of a bucket without slices.
    pub const EMPTY: Self = Self { sum: 0, min: u64::MAX, max: 0 };

    /// Adds `repeat` slices with this value.
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

/// A run of `width` slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The live bytes in these slices.
    pub bytes: Extent,
    /// The live count in these slices.
    pub count: Extent,
}
