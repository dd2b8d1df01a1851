//! One quantity of a series as the statistics see it: the mean, least and greatest value of every full bucket.

use super::buckets::{Bucket, Buckets, Extent, MOST};

/// A curve of evenly spaced buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Mean of each bucket.
    pub mean: Vec<f64>,
    /// Least value in each bucket.
    pub min: Vec<f64>,
    /// Greatest value in each bucket.
    pub max: Vec<f64>,
}

impl Curve {
    /// The live bytes of `buckets`.
    pub fn live_bytes(buckets: &Buckets) -> Self {
        Self::of(buckets, |b| b.bytes)
    }

    /// The live count of `buckets`.
    pub fn live_count(buckets: &Buckets) -> Self {
        Self::of(buckets, |b| b.count)
    }

    /// A curve without spread inside its buckets.
    pub fn of_means(mean: Vec<f64>) -> Self {
        Self { min: mean.clone(), max: mean.clone(), mean }
    }

    fn of(buckets: &Buckets, pick: impl Fn(Bucket) -> Extent) -> Self {
        let width = buckets.width() as f64;
        let all: Vec<Extent> = buckets.full().map(pick).collect();
        Self {
            mean: all.iter().map(|e| e.sum as f64 / width).collect(),
            min: all.iter().map(|e| e.min as f64).collect(),
            max: all.iter().map(|e| e.max as f64).collect(),
        }
    }

    /// The same curve in a longer record, in which the site was absent, so had nothing live, for `buckets` buckets before.
    pub fn after_absence(&self, buckets: u64) -> Self {
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

    /// Buckets.
    pub fn len(&self) -> usize {
        self.mean.len()
    }

    /// No bucket at all.
    pub fn is_empty(&self) -> bool {
        self.mean.is_empty()
    }

    /// Greatest minus least value ever seen.
    pub fn full(&self) -> f64 {
        let top = self.max.iter().copied().fold(f64::MIN, f64::max);
        let bottom = self.min.iter().copied().fold(f64::MAX, f64::min);
        (top - bottom).max(0.0)
    }

    /// The means of eight nearly equal groups of buckets, in the order of time; the first groups are the longer ones.
    pub fn eighths(&self) -> [f64; 8] {
        let (each, rest) = (self.len() / 8, self.len() % 8);
        let mut from = 0;
        std::array::from_fn(|g| {
            let to = from + each + usize::from(g < rest);
            let mean = mean(&self.mean[from..to]);
            from = to;
            mean
        })
    }

    /// The bucket at which `fraction` of the record has passed.
    pub fn at(&self, fraction: f64) -> usize {
        (fraction * self.len() as f64) as usize
    }
}

/// The mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}
