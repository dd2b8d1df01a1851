//! The exact sums from which edLeak's formula computes the growth of a series. Only the option `--model
//! edleak` needs these sums.

use edleak_format::Grid;
use edleak_model::series::Sums;

/// For each grid point, Σ i and Σ i² over all i below this point. The sums over a range of points are the
/// differences between two entries of this table.
#[derive(Debug)]
pub(super) struct PowerSums(Vec<(u64, u64)>);

impl PowerSums {
    /// Computes the sums for all points of `grid`. The sums fit in 64 bits, because a grid has at most some
    /// thousands of points.
    pub(super) fn new(grid: Grid) -> Self {
        let mut sums = Vec::with_capacity(grid.points + 1);
        let mut sum = (0u64, 0u64);
        for i in 0..=grid.points as u64 {
            sums.push(sum);
            sum = (sum.0 + i, sum.1 + i * i);
        }
        Self(sums)
    }

    /// Σ i and Σ i² for i in from..to.
    fn between(&self, from: usize, to: usize) -> (u64, u64) {
        let (start, end) = (self.0[from], self.0[to]);
        (end.0 - start.0, end.1 - start.1)
    }
}

/// Σ b, Σ b·i and Σ b·i², where b is the number of live bytes at grid point i.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExactSums {
    b: u128,
    bi: u128,
    bii: u128,
}

impl ExactSums {
    /// Adds the grid points `from..to` to the sums; each point has `live_bytes` live bytes.
    pub(super) fn add(&mut self, live_bytes: u64, from: usize, to: usize, powers: &PowerSums) {
        let (i, ii) = powers.between(from, to);
        let bytes = u128::from(live_bytes);
        self.b += bytes * (to - from) as u128;
        self.bi += bytes * u128::from(i);
        self.bii += bytes * u128::from(ii);
    }

    /// Converts the sums, in which i counts from the first grid point, into sums in which i counts from the
    /// site's first point. `extremes` are the least and greatest live bytes.
    pub(super) fn since(&self, absent: u64, points: u64, extremes: (u64, u64)) -> Sums {
        let absent = u128::from(absent);
        Sums {
            n: points,
            b: self.b,
            bi: self.bi - absent * self.b,
            bii: (self.bii + absent.pow(2) * self.b) - 2 * absent * self.bi,
            min: extremes.0,
            max: extremes.1,
        }
    }
}
