//! Takes out of a curve the surges that pass: requests that hold much memory for a short while, and give all of it back.
//!
//! A surge many times the size of a leak hides it in every mean. What is narrower than a twentieth of the record and higher than all around
//! it is cut off at the level of its surroundings (morphological opening: the least value near every bucket, then the greatest of
//! those). Steps, ramps and wide teeth pass, so the cut invents no growth; what rises at the very end may be a surge, and is cut as well.

use super::curve::Curve;
use super::trend::Line;

/// Widest surge that is cut off, in shares of the record.
const WIDEST: f64 = 0.05;

/// Share of the scatter about a line that surges must account for.
const LEAST_SHARE: f64 = 0.6;

/// Between surges a curve is quiet: half of its buckets exceed their surroundings by less than this share of the greatest surge.
const MOST_BETWEEN: f64 = 0.1;

/// The curve without its surges, if it has any.
pub fn adjusted(curve: &Curve) -> Option<Curve> {
    let reach = (curve.at(WIDEST) / 2).max(1);
    let opened = opened(&curve.mean, reach);
    let (with, without) = (Line::through(&curve.mean).spread, Line::through(&opened).spread);
    let mut excess: Vec<f64> = curve.mean.iter().zip(&opened).map(|(mean, open)| mean - open).collect();
    excess.sort_by(f64::total_cmp);
    let is_quiet_between = excess[excess.len() / 2] < MOST_BETWEEN * excess[excess.len() - 1];
    if !is_quiet_between || without.powi(2) > (1.0 - LEAST_SHARE) * with.powi(2) {
        return None;
    }
    let min = curve.min.iter().zip(&opened).map(|(min, open)| min.min(*open)).collect();
    Some(Curve { min, max: opened.clone(), mean: opened })
}

/// Least value within `reach` of each, then the greatest of these.
fn opened(values: &[f64], reach: usize) -> Vec<f64> {
    let each = |values: &[f64], of: fn(f64, f64) -> f64| -> Vec<f64> {
        let near = |k: usize| &values[k.saturating_sub(reach)..(k + reach + 1).min(values.len())];
        (0..values.len()).map(|k| near(k).iter().copied().fold(values[k], of)).collect()
    };
    each(&each(values, f64::min), f64::max)
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
    fn lines_steps_teeth_and_small_scatter_are_no_surges() {
        assert_eq!(adjusted(&curve(|k| k as f64)), None);
        assert_eq!(adjusted(&curve(|k| f64::from(u8::from(k > 40)))), None);
        assert_eq!(adjusted(&curve(|k| (k % 20) as f64)), None);
        assert_eq!(adjusted(&curve(|_| 7.0)), None);
        assert_eq!(adjusted(&curve(|k| k as f64 + (k * k * 31 % 17) as f64)), None);
    }
}
