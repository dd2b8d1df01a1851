//! Computes a curve whose x-axis is busy time instead of the wall clock. Busy time is the part of the record
//! in which the program makes allocations; time with almost no allocations does not count.
//!
//! Each bucket of the curve has a weight: the number of allocations that the program made in the bucket,
//! divided by the number that the program usually makes in a bucket in which the site grows. No weight
//! exceeds 1, so busy time is never longer than the record, and a burst of work does not stretch the curve.
//! For a program that works evenly, busy time equals the record, and `Busy::of` returns `None`.

use crate::curve::Curve;
use crate::trend::{greater, lesser};

/// A bucket gets the weight 0 if the program made fewer allocations in it than this share of its usual number
/// while the site grew: such few allocations come from health checks or from a timer.
const LEAST_SHARE: f64 = 0.25;
/// The model uses the curve over busy time only if at least this share of the record is quiet. If less time
/// is quiet, the curve over busy time is nearly the same as the curve over the wall clock.
const LEAST_QUIET: f64 = 0.02;
/// The growth of a curve counts as ended when the curve has reached this share of its whole growth.
const GROWN: f64 = 0.95;

/// The weight of each bucket of a curve.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Busy {
    weights: Vec<f64>,
    /// Number of allocations that the program made per bucket while the curve rose.
    pace: f64,
    grown_at: usize,
}

impl Busy {
    /// The weights of the curve's buckets, computed from the program's allocations in each bucket. `None`:
    /// less than `LEAST_QUIET` of the record was quiet, or the curve never rose.
    pub(crate) fn of(curve: &Curve, work: &[f64]) -> Option<Self> {
        let mut high = *curve.mean.first()?;
        let growth: Vec<f64> = curve
            .mean
            .iter()
            .map(|&mean| {
                let step = (mean - high).max(0.0);
                high = greater(high, mean);
                step
            })
            .collect();
        let pace = weighted_median(work, &growth).filter(|&pace| pace > 0.0)?;
        let weight = |work: &f64| match work / pace {
            share if share < LEAST_SHARE => 0.0,
            share => share.min(1.0),
        };
        let mut weights: Vec<f64> = work.iter().map(weight).collect();
        // If the program stopped working and began to free everything in the same bucket, the mean of this
        // bucket is too low. So a last busy bucket whose mean is lower than the mean before it gets the
        // weight 0.
        if let Some(last) = weights.iter().rposition(|&weight| weight > 0.0)
            && last > 0
            && last + 1 < weights.len()
            && curve.mean[last] < curve.mean[last - 1]
        {
            weights[last] = 0.0;
        }
        let all: f64 = growth.iter().sum();
        let mut sum = 0.0;
        let grown_at = growth.iter().position(|step| {
            sum += step;
            sum >= GROWN * all
        })?;
        let busy = Self { weights, pace, grown_at };
        (busy.length() < (1.0 - LEAST_QUIET) * curve.len() as f64).then_some(busy)
    }

    /// Sum of the weights: the length of busy time, in buckets.
    pub(crate) fn length(&self) -> f64 {
        self.weights.iter().sum()
    }

    /// The index of the bucket in which the growth ended.
    pub(crate) fn grown_at(&self) -> usize {
        self.grown_at
    }

    /// The index of the first bucket of the quiet time at the end of the record. If the program is busy in
    /// the last bucket, the result is the number of buckets.
    pub(crate) fn quiet_from(&self) -> usize {
        self.weights.iter().rposition(|&weight| weight > 0.0).map_or(0, |busy| busy + 1)
    }

    /// Number of allocations that the program made per bucket while the curve rose.
    pub(crate) fn pace(&self) -> f64 {
        self.pace
    }

    /// Converts a curve over the wall clock into a curve over busy time.
    pub(crate) fn curve(&self, curve: &Curve) -> Curve {
        let mut busy = Curve::default();
        let empty = (0.0, 0.0, f64::MAX, f64::MIN);
        let (mut filled, mut sum, mut min, mut max) = empty;
        for (k, &weight) in self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            let mut left = weight;
            while left > 1e-9 {
                let taken = lesser(left, 1.0 - filled);
                (filled, sum) = (filled + taken, sum + taken * curve.mean[k]);
                (min, max) = (lesser(min, curve.min[k]), greater(max, curve.max[k]));
                left -= taken;
                if filled > 1.0 - 1e-9 {
                    busy.push(sum / filled, min, max);
                    (filled, sum, min, max) = empty;
                }
            }
        }
        if filled >= 0.5 {
            busy.push(sum / filled, min, max);
        }
        busy
    }
}

/// The weighted median of `values`: the values below it have half of the total weight.
fn weighted_median(values: &[f64], weights: &[f64]) -> Option<f64> {
    let mut order: Vec<usize> = (0..values.len().min(weights.len())).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let half = weights.iter().sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let found = order.into_iter().find(|&k| {
        sum += weights[k];
        sum >= half && half > 0.0
    })?;
    Some(values[found])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(buckets: usize, value: impl Fn(usize) -> f64) -> Curve {
        Curve::of_means((0..buckets).map(value).collect())
    }

    #[test]
    fn a_program_that_works_evenly_has_no_other_time() {
        let line = curve(80, |k| k as f64);
        assert_eq!(Busy::of(&line, &[30.0; 80]), None);
        // If a program works in short bursts, `Busy::of` gives no curve over busy time.
        let work: Vec<f64> = (0..80).map(|k| if k % 9 == 0 { 3000.0 } else { 30.0 }).collect();
        assert_eq!(Busy::of(&line, &work), None);
    }

    #[test]
    fn a_quiet_time_is_left_out_wherever_it_is() {
        let is_quiet = |k: usize| (20..30).contains(&k) || k >= 60;
        let work: Vec<f64> = (0..80).map(|k| if is_quiet(k) { 2.0 } else { 30.0 }).collect();
        let grown = |k: usize| (0..k).filter(|&k| !is_quiet(k)).count() as f64;
        let wall = curve(80, grown);
        let busy = Busy::of(&wall, &work).expect("it was quiet");
        assert_eq!((busy.length(), busy.quiet_from(), busy.pace()), (50.0, 60, 30.0));
        assert_eq!(busy.curve(&wall).mean, (0..50).map(f64::from).collect::<Vec<f64>>());
    }

    #[test]
    fn half_the_work_takes_half_the_time() {
        let work: Vec<f64> = (0..80).map(|k| if k < 40 { 30.0 } else { 15.0 }).collect();
        let wall = curve(80, |k| if k < 40 { k as f64 } else { 40.0 + (k - 40) as f64 / 2.0 });
        let busy = Busy::of(&wall, &work).expect("it worked less");
        let curve = busy.curve(&wall);
        assert_eq!((busy.length(), curve.len()), (60.0, 60));
        assert!(curve.mean.windows(2).all(|pair| (pair[1] - pair[0] - 1.0).abs() < 0.3), "{:?}", curve.mean);
    }

    #[test]
    fn the_bucket_in_which_a_teardown_began_is_no_part_of_the_work() {
        let wall = curve(80, |k| match k {
            ..60 => k as f64,
            60 => 20.0,
            _ => 0.0,
        });
        let work: Vec<f64> = (0..80).map(|k| if k <= 60 { 30.0 } else { 0.0 }).collect();
        let busy = Busy::of(&wall, &work).expect("it was quiet");
        assert_eq!(busy.curve(&wall).mean.last(), Some(&59.0));
    }
}
