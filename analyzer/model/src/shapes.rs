//! The shapes growth is explained by: those that saturate and those that do not.

/// A growing shape over x in 0…1, the fraction of the record that has passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// Rises in a straight line until x = h, then stays: a pool warming up.
    Ramp(f64),
    /// Rises in a straight line from one instant to another: a pool, or one burst, that comes late and stays.
    Plateau(f64, f64),
    /// 1 − e^(−x/t): a bounded cache under random requests, or any population with a mean lifetime.
    Fill(f64),
    /// ln(1 + k·x): distinct keys of a heavy-tailed law.
    Log(f64),
    /// x^b: deduplication, Heaps' law; with b = 1 the straight line, beyond it an accelerating leak.
    Power(f64),
    /// Nothing until x = h, then a straight line: a leak that starts late.
    Hinge(f64),
    /// e^(k(x−1)): a leak that feeds itself.
    Exp(f64),
}

impl Shape {
    /// The straight line.
    pub(crate) const LINE: Self = Self::Power(1.0);

    /// The shape at x.
    pub(crate) fn value(self, x: f64) -> f64 {
        match self {
            Self::Ramp(h) => x.min(h),
            Self::Plateau(from, to) => (x - from).clamp(0.0, to - from),
            Self::Fill(t) => 1.0 - (-x / t).exp(),
            Self::Log(k) => (k * x).ln_1p(),
            Self::Power(b) => x.powf(b),
            Self::Hinge(h) => (x - h).max(0.0),
            Self::Exp(k) => (k * (x - 1.0)).exp(),
        }
    }

    /// What it gains over the record.
    pub(crate) fn range(self) -> f64 {
        self.value(1.0) - self.value(0.0)
    }

    /// Whether it gets steeper and steeper.
    pub(crate) fn accelerates(self) -> bool {
        matches!(self, Self::Exp(_)) || matches!(self, Self::Power(b) if b > 1.0)
    }

    /// Where its growth begins.
    pub(crate) fn begins(self) -> f64 {
        if let Self::Hinge(h) = self { h } else { 0.0 }
    }
}
