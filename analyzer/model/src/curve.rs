//! A curve is the live bytes or the live count of a series, in the form that the statistics need: the mean,
//! the least and the greatest value of each full bucket.

use super::bucket::{Bucket, Extent};
use super::buckets::{Buckets, MOST};

/// A curve of evenly spaced buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Curve {
    /// The mean of each bucket.
    pub(crate) mean: Vec<f64>,
    /// Least value in each bucket.
    pub(crate) min: Vec<f64>,
    /// Greatest value in each bucket.
    pub(crate) max: Vec<f64>,
}

impl Curve {
    /// The curve of the live bytes of `buckets`.
    pub(crate) fn live_bytes(buckets: &Buckets) -> Self {
        Self::of(buckets, |b| b.bytes)
    }

    /// The curve of the live count of `buckets`.
    pub(crate) fn live_count(buckets: &Buckets) -> Self {
        Self::of(buckets, |b| b.count)
    }

    /// Makes a curve from means alone: in each bucket, the least and the greatest value are equal to the
    /// mean.
    pub(crate) fn of_means(mean: Vec<f64>) -> Self {
        Self { min: mean.clone(), max: mean.clone(), mean }
    }

    fn of(buckets: &Buckets, pick: impl Fn(Bucket) -> Extent) -> Self {
        let width = buckets.width() as f64;
        let full = buckets.full();
        let column = || Vec::with_capacity(full.len());
        let mut curve = Self { mean: column(), min: column(), max: column() };
        for extent in full.map(pick) {
            curve.mean.push(extent.sum as f64 / width);
            curve.min.push(extent.min as f64);
            curve.max.push(extent.max as f64);
        }
        curve
    }

    /// The curve with every value multiplied by `times`.
    pub(crate) fn scaled(&self, times: f64) -> Self {
        let scaled = |values: &[f64]| values.iter().map(|value| times * value).collect();
        Self { mean: scaled(&self.mean), min: scaled(&self.min), max: scaled(&self.max) }
    }

    /// Adds a bucket.
    pub(crate) fn push(&mut self, mean: f64, min: f64, max: f64) {
        self.mean.push(mean);
        self.min.push(min);
        self.max.push(max);
    }

    /// Makes the curve of a longer record. The function adds `buckets` buckets with the value 0 before this
    /// curve, for the time in which the site was absent.
    pub(crate) fn after_absence(&self, buckets: u64) -> Self {
        let len = self.len() as u64;
        let mut group = 1u64;
        while buckets.saturating_add(len) / group >= MOST as u64 {
            group *= 2;
        }
        let zeros = (buckets / group) as usize;
        let fold = |values: &[f64], start: f64, join: fn(f64, f64) -> f64, scale: f64| {
            let tail = values
                .chunks(group as usize)
                .map(|c| scale * c.iter().fold(start, |a, &b| join(a, b)) / c.len() as f64);
            std::iter::repeat_n(0.0, zeros).chain(tail).collect::<Vec<f64>>()
        };
        let extreme = |values: &[f64], join: fn(f64, f64) -> f64| {
            let tail = values.chunks(group as usize).map(|c| c.iter().copied().reduce(join).unwrap_or(0.0));
            std::iter::repeat_n(0.0, zeros).chain(tail).collect::<Vec<f64>>()
        };
        Self {
            mean: fold(&self.mean, 0.0, |a, b| a + b, 1.0),
            min: extreme(&self.min, f64::min),
            max: extreme(&self.max, f64::max),
        }
    }

    /// Number of buckets.
    pub(crate) fn len(&self) -> usize {
        self.mean.len()
    }

    /// The greatest value of all buckets minus the least value of all buckets.
    pub(crate) fn full(&self) -> f64 {
        let top = extreme(&self.max, f64::MIN, |a, b| if b > a { b } else { a });
        let bottom = extreme(&self.min, f64::MAX, |a, b| if b < a { b } else { a });
        (top - bottom).max(0.0)
    }

    /// The means of eight nearly equal groups of buckets in order of time. If the number of buckets is not a
    /// multiple of eight, the first groups have one more bucket than the last groups.
    pub(crate) fn eighths(&self) -> [f64; 8] {
        let (each, rest) = (self.len() / 8, self.len() % 8);
        let mut from = 0;
        std::array::from_fn(|g| {
            let to = from + each + usize::from(g < rest);
            let mean = mean(&self.mean[from..to]);
            from = to;
            mean
        })
    }

    /// The index of the bucket at the position `fraction` (0 to 1) of the curve.
    pub(crate) fn at(&self, fraction: f64) -> usize {
        (fraction * self.len() as f64) as usize
    }
}

/// The greatest or the least of `values`; `better` returns the greater or the lesser of two values. For
/// speed, the loop computes the extreme of eight interleaved parts of `values` in parallel.
fn extreme(values: &[f64], start: f64, better: impl Fn(f64, f64) -> f64) -> f64 {
    let (rows, rest) = values.as_chunks::<8>();
    let best = rows.iter().fold([start; 8], |best, row| std::array::from_fn(|l| better(best[l], row[l])));
    best.into_iter().chain(rest.iter().copied()).fold(start, better)
}

/// The mean of `values`; 0 if there are none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}
