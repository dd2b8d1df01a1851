//! Statistics of a curve that take little time to compute. The statistics show whether the curve rises,
//! whether the rise is steady and lasts until the end of the record, and whether the rise has more than one
//! jump.
//!
//! Each statistic is computed only from a [`Curve`] and is finite for any curve. A statistic has no unit, so
//! the same threshold applies to a site of forty bytes and to a site of forty gigabytes.

use super::curve::{Curve, mean};

/// The statistics of one curve.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Trend {
    /// The mean of the curve in each eighth of the record.
    pub(crate) eighths: [f64; 8],
    /// The greatest value of the curve minus its least value.
    pub(crate) full: f64,
    /// The rise of the curve compared with its scatter (see [`rise_over_scatter`]).
    pub(crate) rise_over_scatter: f64,
    /// The slope late in the record compared with the slope before (see [`pace`]).
    pub(crate) pace: f64,
    /// The share of the greatest step in the growth (see `most_share`).
    pub(crate) largest_step: f64,
    /// The share of the second greatest step in the growth without the greatest step (see
    /// `second_share`).
    pub(crate) second_step: f64,
    /// The result of [`t_after`] for the last three quarters of the record.
    pub(crate) late_t: f64,
    /// Kendall's τ of the means of the last six eighths of the record (see [`kendall`]).
    pub(crate) tau: f64,
}

impl Trend {
    /// Computes the statistics of a curve of 12 buckets or more.
    pub(crate) fn of(curve: &Curve) -> Self {
        let (eighths, full) = (curve.eighths(), curve.full());
        let steps = retained_steps(curve);
        Self {
            eighths,
            full,
            rise_over_scatter: rise_over_scatter_of(&eighths, full),
            pace: pace(curve),
            largest_step: most_share(steps),
            second_step: second_share(steps),
            late_t: t_after(curve, 0.25),
            tau: kendall(&eighths[2..]),
        }
    }

    /// The mean of the curve in the last eighth of the record minus its mean in the third eighth.
    pub(crate) fn rise(&self) -> f64 {
        self.eighths[7] - self.eighths[2]
    }
}

/// Growth in the last 55 % of the record, as a share of the curve's full range.
pub(crate) fn late_rise(curve: &Curve) -> f64 {
    let late = &curve.mean[curve.at(0.45)..];
    ratio(slope(late) * late.len() as f64, curve.full())
}

/// Compares the rise of a curve with its scatter: the slope of a line through the means of the last six
/// eighths of the record, divided by the standard error of this slope. The quotient is limited to the
/// range from −15 to 15.
///
/// If the standard error is less than 0.4 % of the curve's full range, the function uses 0.4 % of the range
/// instead, because the error of a perfectly smooth curve is zero and cannot be a divisor.
pub(crate) fn rise_over_scatter(curve: &Curve) -> f64 {
    rise_over_scatter_of(&curve.eighths(), curve.full())
}

fn rise_over_scatter_of(eighths: &[f64; 8], full: f64) -> f64 {
    let v = &eighths[2..];
    let (mid, x) = (mean(v), |i: usize| i as f64 - 2.5);
    let slope = v.iter().enumerate().map(|(i, v)| x(i) * v).sum::<f64>() / 17.5;
    let squares: f64 = v.iter().enumerate().map(|(i, v)| (v - mid - slope * x(i)).powi(2)).sum();
    let error = (squares / 4.0 / 17.5).sqrt().max(0.004 * full);
    ratio(slope, error).clamp(-15.0, 15.0)
}

/// The pace of a curve compares the slope of the last two fifths of the record (late) with the slope of the
/// two fifths before (early). The pace is the late slope, divided by the sum of the absolute late slope and
/// the absolute early slope.
///
/// A pace of 0.5 means steady growth, and 0 means that growth has stopped. A negative pace means that the
/// curve falls in the last two fifths. At a pace of 2/3, the late slope is twice the early slope.
pub(crate) fn pace(curve: &Curve) -> f64 {
    let early = slope(&curve.mean[curve.at(0.2)..curve.at(0.6)]);
    let late = slope(&curve.mean[curve.at(0.6)..]);
    ratio(late, early.abs() + late.abs())
}

/// The greatest single step of the curve's lower envelope, divided by the whole rise of this envelope.
/// The quotient is 1 if the lower envelope rises in one jump, or not at all.
///
/// The lower envelope is the memory that the program never releases again. At each instant, the lower
/// envelope is the least value of the curve from this instant on.
fn most_share([most, _, sum]: [f64; 3]) -> f64 {
    if sum > 0.0 { most / sum } else { 1.0 }
}

/// The second greatest step of the curve's lower envelope, divided by the sum of all steps except the
/// greatest. The quotient is 1 if the curve grows in at most two jumps.
///
/// A site that leaks may also grow by one large step that has another cause, so the function does not
/// count the greatest step. The rest of the growth must not be one single step: pools that reach new
/// maxima, and programs that load data at first use, also grow in steps, but these steps become ever
/// rarer.
fn second_share([most, second, sum]: [f64; 3]) -> f64 {
    if sum > most { second / (sum - most) } else { 1.0 }
}

/// The greatest step, the second greatest step and the sum of all steps of the lower envelope.
fn retained_steps(curve: &Curve) -> [f64; 3] {
    let mut envelope = curve.min.clone();
    for k in (1..envelope.len()).rev() {
        envelope[k - 1] = lesser(envelope[k - 1], envelope[k]);
    }
    let window = &envelope[curve.at(0.2)..curve.at(0.95)];
    window.windows(2).map(|w| w[1] - w[0]).fold([0.0; 3], |[most, second, sum], step: f64| {
        [greater(step, most), greater(lesser(step, most), second), sum + step]
    })
}

/// Whether the curve rises like a buffer that doubles. The result is true if the last step of the curve is
/// in the second half of the record, if the curve is flat after this step, and if the curve grew at least
/// fourfold since the first eighth of the record. A buffer takes twice as long to fill after each doubling,
/// so its next step would come after the end of the record. So the curve does not show whether the program
/// still adds data to the buffer.
pub(crate) fn doubles_late(curve: &Curve) -> bool {
    const STEP: f64 = 1.4;
    const GROWTH: f64 = 4.0;
    let (mean, max) = (&curve.mean, &curve.max);
    let Some((&end, early)) = mean.last().zip(mean.get(curve.at(0.125))) else { return false };
    let last_step = (1..max.len()).rev().find(|&k| max[k] >= STEP * max[k - 1]);
    let is_late = last_step.is_some_and(|k| 2 * k >= max.len());
    // If the curve also grows after its last step, the function returns false, and other rules judge this
    // growth.
    let is_flat_behind =
        last_step.is_some_and(|k| max[k + 1..].iter().all(|&v| v <= max[k] && v >= 0.9 * end));
    is_late && is_flat_behind && *early > 0.0 && end >= GROWTH * early
}

/// The lesser of two numbers, without the NaN handling of `f64::min`. The handling of NaN would take longer
/// than all other work for one value.
pub(crate) fn lesser(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// The greater of two numbers, without the NaN handling of `f64::max`.
pub(crate) fn greater(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// The t statistic of the slope in the part of the record after the position `from` (0 to 1), corrected for
/// autocorrelation of the residuals.
///
/// In a real program, neighbouring buckets have similar values, so an ordinary t statistic would be far too
/// large. To correct the t statistic, the function multiplies the standard error by √((1+ρ)/(1−ρ)), where ρ
/// is the residuals' autocorrelation, corrected for its bias and limited to 0…0.95.
pub(crate) fn t_after(curve: &Curve, from: f64) -> f64 {
    let line = Line::through(&curve.mean[curve.at(from)..]);
    ratio(line.slope, line.slope_error()).clamp(-1e3, 1e3)
}

/// An ordinary least-squares line, with the spread and the autocorrelation of its residuals.
pub(crate) struct Line {
    /// The slope of the line: its rise from one bucket to the next.
    pub(crate) slope: f64,
    /// Root mean square of the residuals.
    pub(crate) spread: f64,
    /// Lag-1 autocorrelation of the residuals, corrected for its bias and limited to 0…0.95.
    pub(crate) memory: f64,
    points: f64,
}

impl Line {
    /// Fits a line to equally spaced `values`.
    pub(crate) fn through(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let centre = (n - 1.0) / 2.0;
        // The loop computes two independent sums, so that the processor can add to both at the same time.
        let (sum, rise) = values
            .iter()
            .enumerate()
            .fold((-0.0, -0.0), |(sum, rise), (i, v)| (sum + v, rise + (i as f64 - centre) * v));
        let (mid, slope) = (mean_of(sum, n), slope_of(rise, n));
        let residual = |(i, v): (usize, &f64)| v - mid - slope * (i as f64 - centre);
        let (mut before, mut squares, mut lagged) = (None, -0.0, -0.0);
        for r in values.iter().enumerate().map(residual) {
            squares += r * r;
            lagged += before.map_or(-0.0, |before| before * r);
            before = Some(r);
        }
        let raw = if squares > 0.0 { lagged / squares } else { 0.0 };
        let memory = if n > 0.0 { (raw + (1.0 + 3.0 * raw) / n).clamp(0.0, 0.95) } else { 0.0 };
        Self { slope, spread: if n > 0.0 { (squares / n).sqrt() } else { 0.0 }, memory, points: n }
    }

    /// The standard error of the slope, increased to allow for the autocorrelation of the residuals.
    pub(crate) fn slope_error(&self) -> f64 {
        let n = self.points;
        if n < 3.0 {
            return f64::INFINITY;
        }
        let plain = self.spread * (n / (n - 2.0)).sqrt() / (n * (n * n - 1.0) / 12.0).sqrt();
        plain * ((1.0 + self.memory) / (1.0 - self.memory)).sqrt()
    }
}

/// Ordinary least-squares slope per bucket; 0 for fewer than two values.
pub(crate) fn slope(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let centre = (n - 1.0) / 2.0;
    slope_of(values.iter().enumerate().map(|(i, v)| (i as f64 - centre) * v).sum(), n)
}

fn slope_of(rise: f64, n: f64) -> f64 {
    if n < 2.0 { 0.0 } else { rise / (n * (n * n - 1.0) / 12.0) }
}

fn mean_of(sum: f64, n: f64) -> f64 {
    if n == 0.0 { 0.0 } else { sum / n }
}

/// Kendall's τ of `values`: 1 if the values only rise, −1 if they only fall. Two equal values count neither
/// as a rise nor as a fall.
pub(crate) fn kendall(values: &[f64]) -> f64 {
    let n = values.len();
    let mut balance = 0i64;
    for (i, early) in values.iter().enumerate() {
        for late in &values[i + 1..] {
            balance += i64::from(late > early) - i64::from(late < early);
        }
    }
    if n < 2 { 0.0 } else { balance as f64 / (n * (n - 1) / 2) as f64 }
}

/// The quotient a/b.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if a == 0.0 || a.is_nan() || b.is_nan() {
        0.0
    } else if b == 0.0 {
        f64::MAX.copysign(a)
    } else {
        (a / b).clamp(f64::MIN, f64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(f: impl Fn(f64) -> f64) -> Trend {
        Trend::of(&Curve::of_means((0..80).map(|k| f((f64::from(k) + 0.5) / 80.0)).collect()))
    }

    #[test]
    fn a_line_rises_steadily_and_not_by_jumps() {
        let line = trend(|x| 3.0 + 40.0 * x);
        assert_eq!((line.rise_over_scatter, line.tau), (15.0, 1.0));
        assert!(
            (line.pace - 0.5).abs() < 1e-9
                && line.largest_step < 0.02
                && line.second_step < 0.02
                && line.late_t > 100.0
        );
    }

    #[test]
    fn the_pace_of_a_parabola_rises_and_that_of_a_filled_pool_is_gone() {
        assert!((trend(|x| x * x).pace - 2.0 / 3.0).abs() < 0.01);
        assert!(trend(|x| x.min(0.5)).pace.abs() < 1e-9);
        assert!(trend(|x| -x).pace < 0.0);
    }

    #[test]
    fn one_jump_is_all_of_the_growth_and_a_second_all_of_the_rest() {
        let once = trend(|x| f64::from(u8::from(x > 0.5)));
        assert_eq!((once.largest_step, once.second_step), (1.0, 1.0));
        let twice = trend(|x| 2.0 * f64::from(u8::from(x > 0.3)) + f64::from(u8::from(x > 0.7)));
        assert!((twice.largest_step - 2.0 / 3.0).abs() < 1e-9 && (twice.second_step - 1.0).abs() < 1e-9);
        let jump_beside_a_line = trend(|x| x + 5.0 * f64::from(u8::from(x > 0.5)));
        assert!(jump_beside_a_line.largest_step > 0.8 && jump_beside_a_line.second_step < 0.05);
    }

    #[test]
    fn released_memory_is_not_retained() {
        let sawtooth = trend(|x| (8.0 * x).fract());
        assert!(sawtooth.largest_step < 1.0 && sawtooth.rise_over_scatter < 2.2);
        assert_eq!(trend(|x| if x > 0.99 { 0.0 } else { x }).largest_step, 1.0);
    }

    #[test]
    fn a_flat_curve_has_no_trend_at_all() {
        let flat = trend(|_| 7.0);
        assert_eq!(
            (flat.rise_over_scatter, flat.pace, flat.largest_step, flat.late_t, flat.tau, flat.full),
            (0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn memory_of_the_scatter_inflates_the_error() {
        let slow: Vec<f64> = (0..60).map(|k| (f64::from(k) / 6.0).sin()).collect();
        let quick: Vec<f64> = (0..60).map(|k| (f64::from(k) * 2.5).sin()).collect();
        assert!(Line::through(&slow).slope_error() > 3.0 * Line::through(&quick).slope_error());
        assert_eq!(Line::through(&[1.0, 2.0]).slope_error(), f64::INFINITY);
    }

    #[test]
    fn kendall_counts_pairs_in_order() {
        assert_eq!(kendall(&[1.0, 2.0, 3.0, 4.0]), 1.0);
        assert_eq!(kendall(&[4.0, 3.0, 2.0]), -1.0);
        assert_eq!(kendall(&[1.0, 1.0]), 0.0);
        assert_eq!(kendall(&[]), 0.0);
    }
}
