//! edLeak's leak factor: a parabola fitted to one site's live bytes, exact to the last digit.
//!
//! With b the live bytes at slices i = 0..n, y = (b − min)/(max − min), max = min + 1 if the site is flat, and x = i/n,
//! least squares give y ≈ c0·x² + c1·x + c2. The leak is what the parabola gains from x = 0 to x = 1, in bytes, cut to an integer.
//!
//! The sums are integers, so the fit is a quotient of integers: S1 = Σ b·P1 and S2 = Σ b·P2 with the polynomials that are orthogonal
//! on 0..n, P1 = 2i − (n−1) and P2 = 6i² − 6(n−1)i + (n−1)(n−2). A matrix solved in floating point would lose digits where
//! the record is long.

use crate::series::Sums;

/// The kind of growth, in the order of `--min-class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// No growth.
    Constant,
    /// Growth that slows down: a cache filling.
    Log,
    /// Growth at a steady rate.
    Linear,
    /// Growth that accelerates.
    Exp,
}

impl Class {
    /// The name used in reports and by `--min-class`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Log => "log",
            Self::Linear => "linear",
            Self::Exp => "exp",
        }
    }
}

/// What edLeak's formula says about one site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeakFactor {
    /// c0, c1, c2.
    pub coef: [f64; 3],
    /// Least live bytes.
    pub min_bytes: u64,
    /// Greatest live bytes, or `min_bytes + 1` if the site is flat.
    pub max_bytes: u64,
    /// Bytes gained over the record, according to the parabola; negative if it falls.
    pub leak_bytes: i64,
    /// The kind of growth.
    pub class: Class,
}

/// Curvature beyond which growth counts as slowing down (below −) or accelerating (above +).
const BEND: f64 = 0.2;

/// Fits the leak factor. Fewer than three points have no parabola: zeros and constant.
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
    // Amplitudes of P1 and P2 in the fit of b over i, then the same parabola in y over x.
    let a0 = sums.b.saturating_sub(u128::from(sums.n) * u128::from(sums.min)) as f64 / n;
    let a1 = 3.0 * s1.float / (n * (n * n - 1.0));
    let a2 = 5.0 * s2.float / (n * (n * n - 1.0) * (n * n - 4.0));
    let coef = [
        6.0 * a2 * n * n / range,
        (2.0 * a1 - 6.0 * (n - 1.0) * a2) * n / range,
        (a0 - (n - 1.0) * a1 + (n - 1.0) * (n - 2.0) * a2) / range,
    ];
    let leak_bytes = gain(sums.n, &s1, &s2).unwrap_or_else(|| (2.0 * n * (a1 + 3.0 * a2)) as i64);
    let class = match leak_bytes {
        ..=1 => Class::Constant,
        _ if coef[0] < -BEND => Class::Log,
        _ if coef[0] > BEND => Class::Exp,
        _ => Class::Linear,
    };
    LeakFactor { coef, leak_bytes, class, ..flat }
}

/// A sum as an integer where 127 bits hold it, and as the nearest float always.
struct Projection {
    exact: Option<i128>,
    float: f64,
}

/// S1 and S2.
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

/// (f(1) − f(0))·(max − min) = 6·(S1·(n²−4) + 5·S2) / ((n²−1)(n²−4)), cut towards zero without rounding first.
fn gain(n: u64, s1: &Projection, s2: &Projection) -> Option<i64> {
    let nn = i128::from(n).checked_mul(i128::from(n))?;
    let top = s1.exact?.checked_mul(nn - 4)?.checked_add(s2.exact?.checked_mul(5)?)?.checked_mul(6)?;
    i64::try_from(top / (nn - 1).checked_mul(nn - 4)?).ok()
}
