//! Shapes of growth. A saturating shape stops growing, like a cache that is full; the other shapes grow for
//! ever, like a leak.

/// A growing shape over x in 0…1, the elapsed fraction of the record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// Rises in a straight line until x = h, then stays constant: a pool that fills at the start.
    Ramp(f64),
    /// Rises in a straight line from the first x to the second, then stays constant: a pool that begins to
    /// grow during the record, or memory that the program allocated in a burst and never freed.
    Plateau(f64, f64),
    /// 1 − e^(−x/t): a bounded cache under random requests, or allocations that live for a mean lifetime and
    /// are then freed.
    Fill(f64),
    /// ln(1 + k·x): the number of distinct keys, if few keys are frequent and many keys are rare.
    Log(f64),
    /// The power x^b. With b < 1, the shape is a set of distinct items that grows ever more slowly (Heaps'
    /// law). With b = 1, the shape is the straight line. With b > 1, the shape is an accelerating leak.
    Power(f64),
    /// Zero until x = h, then a straight line: a leak that starts late.
    Hinge(f64),
    /// e^(k(x−1)): a leak whose rate rises with its size.
    Exp(f64),
}

impl Shape {
    /// The straight line.
    pub(crate) const LINE: Self = Self::Power(1.0);

    /// The value of the shape at x.
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

    /// The value of the shape at the end of the record minus its value at the start.
    pub(crate) fn range(self) -> f64 {
        self.value(1.0) - self.value(0.0)
    }

    /// Whether the shape gets steeper over the whole record.
    pub(crate) fn accelerates(self) -> bool {
        matches!(self, Self::Exp(_)) || matches!(self, Self::Power(b) if b > 1.0)
    }

    /// The x at which the growth of the shape begins.
    pub(crate) fn begins(self) -> f64 {
        if let Self::Hinge(h) = self { h } else { 0.0 }
    }
}
