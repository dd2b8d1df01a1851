//! Removes surges from a curve. A surge is a short rise of the curve: a group of requests holds much memory
//! for a short time and then frees all of it.
//!
//! If a surge is many times as large as a leak, the leak is not visible in the means of the curve. If a part
//! of the curve is higher than its surroundings and narrower than a twentieth of the record, this part is a
//! surge. The model lowers the curve in a surge to the value of the surroundings. The method is called
//! morphological opening: each bucket first gets the least value of its neighbourhood, and then the greatest
//! of the new values in its neighbourhood. Opening does not change steps, ramps and the wide teeth of a
//! sawtooth, so it does not add growth to a curve. Opening also removes a rise at the very end of the
//! record, because this rise may be a surge.

use super::curve::Curve;
use super::trend::{Line, greater, lesser};

/// Width of the widest surge that the model removes, as a share of the record.
const WIDEST: f64 = 0.05;

/// Least share of the scatter about a straight line that the surges must explain. If the surges explain a
/// smaller share of the scatter, the curve has no clear surges, and the model removes nothing.
const LEAST_SHARE: f64 = 0.6;

/// Between surges, the original curve must be close to the curve without surges: in half of the buckets,
/// the difference must be less than this share of the greatest surge.
const MOST_BETWEEN: f64 = 0.1;

/// The curve without its surges; `None`: the curve has no clear surges.
pub(crate) fn adjusted(curve: &Curve) -> Option<Curve> {
    let reach = (curve.at(WIDEST) / 2).max(1);
    let opened = opened(&curve.mean, reach);
    let (with, without) = (Line::through(&curve.mean).spread, Line::through(&opened).spread);
    if without.powi(2) > (1.0 - LEAST_SHARE) * with.powi(2) {
        return None;
    }
    let mut excess: Vec<f64> = curve.mean.iter().zip(&opened).map(|(mean, open)| mean - open).collect();
    let half = excess.len() / 2;
    let (_, &mut median, above) = excess.select_nth_unstable_by(half, f64::total_cmp);
    let most = above.iter().copied().fold(median, greater);
    let is_quiet_between = median < MOST_BETWEEN * most;
    if !is_quiet_between {
        return None;
    }
    let min = curve.min.iter().zip(&opened).map(|(min, open)| min.min(*open)).collect();
    Some(Curve { min, max: opened.clone(), mean: opened })
}

/// Morphological opening: replaces each value by the least value at a distance of up to `reach` buckets, and
/// then each of these new values by the greatest new value at a distance of up to `reach` buckets.
fn opened(values: &[f64], reach: usize) -> Vec<f64> {
    nearby(&nearby(values, reach, lesser), reach, greater)
}

/// For each bucket, the greatest or the least value of all buckets at a distance of up to `reach`; `better`
/// chooses between two values. The loop has one pass for each distance; the pass compares every value with
/// the value before it and the value after it at this distance.
fn nearby(values: &[f64], reach: usize, better: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let mut best = values.to_vec();
    for distance in 1..=reach.min(values.len().saturating_sub(1)) {
        let (ahead, behind) = (&values[distance..], &values[..values.len() - distance]);
        best.iter_mut().zip(ahead).for_each(|(best, value)| *best = better(*best, *value));
        best[distance..].iter_mut().zip(behind).for_each(|(best, value)| *best = better(*best, *value));
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(f: impl Fn(usize) -> f64) -> Curve {
        Curve::of_means((0..100).map(f).collect())
    }

    #[test]
    fn surges_on_a_line_leave_the_line() {
        let surges = |k: usize| if k % 30 < 3 { 500.0 } else { 0.0 };
        let adjusted = adjusted(&curve(|k| k as f64 + surges(k + 5))).expect("it surges");
        let off = adjusted.mean.iter().enumerate().map(|(k, v)| (v - k as f64).abs());
        assert!(off.fold(0.0, f64::max) <= 5.0);
    }

    #[test]
    fn surges_alone_leave_nothing_that_grows() {
        let adjusted = adjusted(&curve(|k| if k % 17 < 2 { k as f64 } else { 7.0 })).expect("it surges");
        assert!(adjusted.full() <= 7.0);
    }

    #[test]
    fn lines_steps_teeth_and_small_scatter_are_not_surges() {
        assert_eq!(adjusted(&curve(|k| k as f64)), None);
        assert_eq!(adjusted(&curve(|k| f64::from(u8::from(k > 40)))), None);
        assert_eq!(adjusted(&curve(|k| (k % 20) as f64)), None);
        assert_eq!(adjusted(&curve(|_| 7.0)), None);
        assert_eq!(adjusted(&curve(|k| k as f64 + (k * k * 31 % 17) as f64)), None);
    }
}
