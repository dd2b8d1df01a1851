//! Inner products under first-order autoregressive noise AR(1), for all tried autocorrelations ρ at once.
//!
//! Least squares under AR(1) noise fits prewhitened vectors: the first entry times √(1−ρ²), each later entry
//! minus ρ times the entry before it. The product of two prewhitened vectors is a polynomial in ρ, and the
//! coefficients of this polynomial are plain sums. So the module computes these sums from the original
//! vectors, and gets the products for all seven values of ρ in about the time that one value would take.

/// The autocorrelations of the noise that the comparison of models tries. For each model, the comparison uses
/// the autocorrelation with which the model fits the curve best.
pub(crate) const RHO: [f64; 7] = [0.0, 0.25, 0.5, 0.7, 0.85, 0.93, 0.97];

/// A list with one number for each of the seven autocorrelations in [`RHO`].
pub(crate) type PerRho = [f64; RHO.len()];

/// The three sums from which the inner product of two vectors a and b is computed for each ρ: it is
/// `full + ρ²·inner − ρ·lag`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Inner {
    full: f64,
    inner: f64,
    lag: f64,
}

impl Inner {
    /// The inner product of two vectors of equal length; the length must be at least 2.
    pub(crate) fn of(a: &[f64], b: &[f64]) -> Self {
        let last = a.len() - 1;
        let full: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        let lag = a.windows(2).zip(b.windows(2)).map(|(a, b)| a[1] * b[0] + a[0] * b[1]).sum();
        Self { full, inner: full - a[0] * b[0] - a[last] * b[last], lag }
    }

    /// The inner products of a vector with every step function, computed in one pass. The step function `at`,
    /// in 1..len, is 0 before index `at`, and 1 from index `at` on.
    pub(crate) fn with_steps(a: &[f64]) -> Vec<Self> {
        let mut rest = vec![0.0; a.len() + 1];
        for k in (0..a.len()).rev() {
            rest[k] = rest[k + 1] + a[k];
        }
        let last = a[a.len() - 1];
        let step = |at: usize| Self {
            full: rest[at],
            inner: rest[at] - last,
            lag: rest[at - 1] - last + rest[at + 1],
        };
        (1..a.len()).map(step).collect()
    }

    /// The inner product of each step function (see `with_steps`) with itself.
    pub(crate) fn steps_with_themselves(len: usize) -> Vec<Self> {
        let step = |at: usize| {
            let ones = (len - at) as f64;
            Self { full: ones, inner: ones - 1.0, lag: 2.0 * (ones - 1.0) }
        };
        (1..len).map(step).collect()
    }

    /// The inner product for one autocorrelation ρ.
    pub(crate) fn at(self, rho: f64) -> f64 {
        self.full + rho * rho * self.inner - rho * self.lag
    }

    /// The inner product for each autocorrelation ρ in [`RHO`].
    pub(crate) fn all(self) -> PerRho {
        RHO.map(|rho| self.at(rho))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prewhitened(values: &[f64], rho: f64) -> Vec<f64> {
        let first = values[0] * (1.0 - rho * rho).sqrt();
        std::iter::once(first).chain(values.windows(2).map(|w| w[1] - rho * w[0])).collect()
    }

    #[test]
    fn polynomial_equals_the_product_of_prewhitened_vectors() {
        let a: Vec<f64> = (0..17).map(|k| f64::from(k * k % 7) - 2.0).collect();
        let b: Vec<f64> = (0..17).map(|k| (f64::from(k) * 0.7).sin()).collect();
        for rho in RHO {
            let direct: f64 = prewhitened(&a, rho).iter().zip(prewhitened(&b, rho)).map(|(a, b)| a * b).sum();
            assert!((Inner::of(&a, &b).at(rho) - direct).abs() < 1e-12, "rho {rho}");
        }
    }

    #[test]
    fn step_products_equal_those_of_written_out_steps() {
        let a: Vec<f64> = (0..9).map(|k| f64::from(k * 5 % 4) - 1.3).collect();
        for (i, (fast, own)) in Inner::with_steps(&a).iter().zip(Inner::steps_with_themselves(9)).enumerate()
        {
            let step: Vec<f64> = (0..9).map(|k| f64::from(u8::from(k > i))).collect();
            for rho in RHO {
                assert!((fast.at(rho) - Inner::of(&a, &step).at(rho)).abs() < 1e-12);
                assert!((own.at(rho) - Inner::of(&step, &step).at(rho)).abs() < 1e-12);
            }
        }
    }
}
