//! Computes edLeak's leak factor: fits a parabola to the live bytes of one site, without rounding errors in
//! the sums.
//!
//! Let b be the live bytes at slices i = 0..n, y = (b − min)/(max − min) and x = i/n. Least squares then give
//! y ≈ c0·x² + c1·x + c2. If the live bytes never change, max − min would be 0, so the formula uses min + 1
//! as max. The leaked bytes are the value of the parabola at x = 1 minus its value at x = 0, converted into
//! bytes and truncated to an integer.
//!
//! The sums are integers, so the fit is a quotient of integers: S1 = Σ b·P1 and S2 = Σ b·P2. P1 = 2i − (n−1)
//! and P2 = 6i² − 6(n−1)i + (n−1)(n−2) are orthogonal polynomials on 0..n. If the fit solved a matrix in
//! floating point instead, it would lose digits on a long record.

use crate::growth_class::Class;
use crate::series::Sums;

/// The result of edLeak's formula for one site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeakFactor {
    /// The coefficients c0, c1 and c2 of the parabola c0·x² + c1·x + c2.
    pub coef: [f64; 3],
    /// Least live bytes.
    pub min_bytes: u64,
    /// Greatest live bytes, or `min_bytes + 1` if the live bytes never changed.
    pub max_bytes: u64,
    /// Leaked bytes: the number of bytes by which the parabola rises over the record; negative if the
    /// parabola falls.
    pub leak_bytes: i64,
    /// The kind of growth.
    pub class: Class,
}

/// Limit for the curvature of the parabola: below −0.2, the growth counts as slowing down; above +0.2, it
/// counts as accelerating.
const BEND: f64 = 0.2;

/// Fits the leak factor. With fewer than three points, a fit is not possible: all numbers of the result are
/// zero, and its class is constant.
pub fn leak_factor(sums: &Sums) -> LeakFactor {
    let max_bytes = if sums.max > sums.min { sums.max } else { sums.min.saturating_add(1) };
    let flat =
        LeakFactor { coef: [0.0; 3], min_bytes: sums.min, max_bytes, leak_bytes: 0, class: Class::Constant };
    if sums.n < 3 || sums.max == sums.min {
        return flat;
    }
    let n = sums.n as f64;
    let (s1, s2) = projections(sums);
    let range = (max_bytes - sums.min) as f64;
    // The code first fits b as a function of i: `a0`, `a1` and `a2` are the amplitudes of this fit.
    // Converted to x and y, it is the same parabola as a direct fit of y as a function of x.
    let a0 = sums.b.saturating_sub(u128::from(sums.n) * u128::from(sums.min)) as f64 / n;
    let a1 = 3.0 * s1.float / (n * (n * n - 1.0));
    let a2 = 5.0 * s2.float / (n * (n * n - 1.0) * (n * n - 4.0));
    let coef = [
        6.0 * a2 * n * n / range,
        (2.0 * a1 - 6.0 * (n - 1.0) * a2) * n / range,
        (a0 - (n - 1.0) * a1 + (n - 1.0) * (n - 2.0) * a2) / range,
    ];
    let leak_bytes = gain(sums.n, &s1, &s2).unwrap_or((2.0 * n * (a1 + 3.0 * a2)) as i64);
    let class = match leak_bytes {
        ..=1 => Class::Constant,
        _ if coef[0] < -BEND => Class::Log,
        _ if coef[0] > BEND => Class::Exp,
        _ => Class::Linear,
    };
    LeakFactor { coef, leak_bytes, class, ..flat }
}

/// A sum in two forms: as an exact integer if it fits in 127 bits, and as the nearest float.
struct Projection {
    exact: Option<i128>,
    float: f64,
}

/// Computes the sums S1 and S2.
fn projections(sums: &Sums) -> (Projection, Projection) {
    let m = u128::from(sums.n - 1);
    let exact = |plus: &[(u128, u128)], minus: &[(u128, u128)]| {
        let total = |terms: &[(u128, u128)]| {
            terms.iter().try_fold(0u128, |sum, &(a, b)| sum.checked_add(a.checked_mul(b)?))
        };
        let (plus, minus) = (total(plus)?, total(minus)?);
        let size = i128::try_from(plus.abs_diff(minus)).ok()?;
        Some(if plus < minus { -size } else { size })
    };
    let (f, fb, fbi) = (m as f64, sums.b as f64, sums.bi as f64);
    let s1 = exact(&[(2, sums.bi)], &[(m, sums.b)]);
    let s2 = m
        .checked_mul(m - 1)
        .and_then(|mm| exact(&[(6, sums.bii), (mm, sums.b)], &[(m.checked_mul(6)?, sums.bi)]));
    (
        Projection { exact: s1, float: s1.map_or_else(|| 2.0 * fbi - f * fb, |s| s as f64) },
        Projection {
            exact: s2,
            float: s2
                .map_or_else(|| 6.0 * sums.bii as f64 - 6.0 * f * fbi + f * (f - 1.0) * fb, |s| s as f64),
        },
    )
}

/// The leaked bytes: the parabola f rises by (f(1) − f(0))·(max − min) = 6·(S1·(n²−4) + 5·S2) /
/// ((n²−1)(n²−4)) bytes; the result is truncated towards zero. The function computes with integers, so
/// there is no rounding error before the truncation.
fn gain(n: u64, s1: &Projection, s2: &Projection) -> Option<i64> {
    let nn = i128::from(n).checked_mul(i128::from(n))?;
    let top = s1.exact?.checked_mul(nn - 4)?.checked_add(s2.exact?.checked_mul(5)?)?.checked_mul(6)?;
    i64::try_from(top / (nn - 1).checked_mul(nn - 4)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Point, SeriesBuilder};

    fn factor(curve: impl IntoIterator<Item = u64>) -> LeakFactor {
        let mut builder = SeriesBuilder::new();
        for live_bytes in curve {
            builder.push(Point { live_bytes, ..Point::default() });
        }
        leak_factor(builder.finish().sums().expect("a builder keeps them"))
    }

    #[test]
    fn nineteen_points_with_one_kink_are_a_log_by_a_hair() {
        let curve = [200, 400].into_iter().chain((5..=21).map(|k| 200 * k));
        let fit = factor(curve);
        let known = [-0.226_190_476, 1.220_952_381, 0.030_676_692];
        assert!(fit.coef.iter().zip(known).all(|(a, b)| (a - b).abs() < 1e-9), "{:?}", fit.coef);
        assert_eq!((fit.leak_bytes, fit.class), (3979, Class::Log));
    }

    #[test]
    fn a_straight_line_leaks_its_step_times_its_slices_and_not_a_byte_less() {
        for (n, step, base) in [(3, 1, 0), (9, 4000, 77), (1000, 33, 1 << 40), (100_000, 48, 5)] {
            let fit = factor((0..n).map(|i| base + step * i));
            assert_eq!(
                (fit.leak_bytes, fit.class),
                ((step * n) as i64, Class::Linear),
                "{n} slices of {step}"
            );
            assert!(fit.coef[0].abs() < 1e-12);
        }
    }

    #[test]
    fn a_parabola_is_found_whole() {
        let fit = factor((0..=100).map(|i| i * i));
        assert!((fit.coef[0] - (101.0f64 / 100.0).powi(2)).abs() < 1e-12);
        assert!(fit.coef[1].abs() < 1e-9 && fit.coef[2].abs() < 1e-9);
        assert_eq!((fit.leak_bytes, fit.class), (101 * 101, Class::Exp));
    }

    #[test]
    fn a_fall_is_negative_and_constant() {
        let fit = factor((0..20).map(|i| 1000 - 10 * i));
        assert_eq!((fit.leak_bytes, fit.class), (-200, Class::Constant));
    }

    #[test]
    fn flat_and_short_series_have_no_leak() {
        let flat = factor([7; 50]);
        assert_eq!((flat.coef, flat.min_bytes, flat.max_bytes, flat.leak_bytes), ([0.0; 3], 7, 8, 0));
        assert_eq!(factor([1, 900]).leak_bytes, 0);
        assert_eq!(factor([]).class, Class::Constant);
    }

    #[test]
    fn sums_beyond_their_width_stay_finite() {
        let mut builder = SeriesBuilder::new();
        for live_bytes in [u64::MAX, 0, u64::MAX] {
            builder.push_run(Point { live_bytes, ..Point::default() }, u64::MAX / 4);
        }
        assert!(
            leak_factor(builder.finish().sums().expect("a builder keeps them"))
                .coef
                .iter()
                .all(|c| c.is_finite())
        );
    }
}
