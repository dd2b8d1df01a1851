//! The work of the whole program over time, measured by the number of its allocations. The model uses the
//! work as a second clock, in addition to the wall clock.
//!
//! The wall clock continues while a program waits. If a site stops growing while the program continues to
//! work, its growth has really ended. If the site stops growing at the same time as the program stops
//! working, the site may grow again with the next request (module `busy`).

use crate::buckets::Buckets;

/// The number of allocations that the whole program had made at up to 129 times of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Number of slices between two neighbouring numbers in `allocs`.
    width: u64,
    /// Number of slices of the record.
    slices: u64,
    /// The number of allocations up to the first slice, and then, for each stretch, the number of allocations
    /// up to its last slice. A stretch is `width` slices in a row.
    allocs: Vec<u64>,
    /// Number of slices from the start of the record to the last slice that the recorder took; all slices
    /// after this slice are missing.
    known: u64,
}

impl Work {
    /// Rebuilds a `Work` from [`Work::width`], the number of slices and [`Work::allocs`]; `None`: the length
    /// of `allocs` does not match `width` and `slices`, or `allocs` is not ascending.
    pub fn from_parts(width: u64, slices: u64, allocs: Vec<u64>) -> Option<Self> {
        let fits = width > 0 && slices.div_ceil(width).checked_add(1) == Some(allocs.len() as u64);
        (fits && allocs.is_sorted()).then_some(Self { width, slices, allocs, known: slices })
    }

    /// Number of slices between two neighbouring numbers in `allocs`.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// The number of allocations up to the first slice, and then, for each stretch of [`Work::width`] slices,
    /// the number of allocations up to its last slice.
    pub fn allocs(&self) -> &[u64] {
        &self.allocs
    }

    /// Number of slices of the record up to the last slice that the recorder took; all slices after this
    /// slice are missing.
    pub(crate) fn known(&self) -> u64 {
        self.known
    }

    /// Number of allocations that the program made after slice `from`, up to and including slice `to`.
    /// Between two numbers in `allocs`, the function assumes that the program allocates at a constant pace.
    pub(crate) fn between(&self, from: u64, to: u64) -> f64 {
        (self.up_to(to) - self.up_to(from)).max(0.0)
    }

    fn up_to(&self, slice: u64) -> f64 {
        let Some(last) = self.allocs.len().checked_sub(2) else { return 0.0 };
        let slice = slice.min(self.slices.saturating_sub(1));
        let stretch = (slice / self.width.max(1)).min(last as u64);
        // A stretch begins after the last slice of the stretch before; the first stretch begins with the
        // first slice.
        let before = (stretch * self.width).saturating_sub(1);
        let end = ((stretch + 1) * self.width).min(self.slices) - 1;
        let (was, is) = (self.allocs[stretch as usize] as f64, self.allocs[stretch as usize + 1] as f64);
        let passed = slice.saturating_sub(before) as f64 / (end.saturating_sub(before) as f64).max(1.0);
        was + (is - was) * passed.min(1.0)
    }
}

/// Builds a [`Work`] from the slices in order of time.
#[derive(Clone, Debug, Default)]
pub struct WorkBuilder {
    work: Work,
    /// The newest slice, and the number of allocations up to this slice.
    newest: Option<(u64, u64)>,
}

impl WorkBuilder {
    /// Makes a builder for a record of this many slices.
    pub fn new(slices: u64) -> Self {
        let work = Work { width: Buckets::width_for(slices), slices, allocs: Vec::new(), known: 0 };
        Self { work, newest: None }
    }

    /// Adds a slice; `allocs` is the number of allocations up to this slice. If slices are missing between
    /// the previous slice and `slice`, the function assumes that the program allocated at a constant pace
    /// during the missing slices.
    pub fn push(&mut self, slice: u64, allocs: u64) {
        let (before, was) = *self.newest.get_or_insert((slice, allocs));
        if self.work.allocs.is_empty() {
            self.work.allocs.push(allocs);
        }
        let allocs = allocs.max(was);
        while let Some(edge) = self.next_edge().filter(|&edge| edge <= slice) {
            let (passed, whole) = (edge.saturating_sub(before), slice.saturating_sub(before).max(1));
            let made = u128::from(allocs - was) * u128::from(passed) / u128::from(whole);
            // The result fits in 64 bits: it is at most the difference of two 64-bit numbers.
            self.work.allocs.push(was + made as u64);
        }
        self.newest = Some((slice, allocs));
        self.work.known = slice + 1;
    }

    /// The index of the last slice of the stretch that is not complete yet; `None`: all stretches are
    /// complete, or no slice was added yet.
    fn next_edge(&self) -> Option<u64> {
        let Work { width, slices, allocs, .. } = &self.work;
        let open = (allocs.len() as u64).checked_sub(1)?;
        (open < slices.div_ceil(*width)).then(|| ((open + 1) * width).min(*slices) - 1)
    }

    /// Ends the record and returns the work. The number of allocations after the newest slice is unknown; the
    /// function uses 0.
    pub fn finish(mut self) -> Work {
        let (_, allocs) = self.newest.unwrap_or_default();
        if self.work.allocs.is_empty() {
            self.work.allocs.push(allocs);
        }
        while self.next_edge().is_some() {
            self.work.allocs.push(allocs);
        }
        self.work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(slices: u64, allocs: impl Fn(u64) -> u64, taken: impl Fn(u64) -> bool) -> Work {
        let mut builder = WorkBuilder::new(slices);
        (0..slices).filter(|&slice| taken(slice)).for_each(|slice| builder.push(slice, allocs(slice)));
        builder.finish()
    }

    #[test]
    fn steady_work_is_read_back_between_any_two_slices() {
        for slices in [1, 2, 12, 127, 128, 129, 1000, 4097] {
            let steady = work(slices, |slice| 7 + 3 * slice, |_| true);
            assert!(steady.allocs().len() <= 129, "{slices}");
            for (from, to) in [(0, slices - 1), (slices / 3, slices / 2), (slices / 2, slices + 5)] {
                let expected = 3.0 * (to.min(slices - 1) - from) as f64;
                assert!((steady.between(from, to) - expected).abs() < 1e-6, "{slices}: {from} to {to}");
            }
            let parts = Work::from_parts(steady.width(), slices, steady.allocs().to_vec());
            assert_eq!(parts.as_ref(), Some(&steady));
        }
    }

    #[test]
    fn missing_slices_were_worked_through_evenly() {
        let every = work(1000, |slice| 5 * slice, |_| true);
        assert_eq!(work(1000, |slice| 5 * slice, |slice| slice % 100 == 0 || slice == 999), every);
    }

    #[test]
    fn work_that_ended_continues_at_zero() {
        // For 500 slices, `allocs` has one number for every four slices.
        let ended = work(500, |slice| 10 * slice, |slice| slice <= 199);
        assert_eq!((ended.between(0, 199), ended.between(199, 499)), (1990.0, 0.0));
        assert_eq!(ended.known(), 200);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        assert_eq!(Work::from_parts(1, 3, vec![0, 1, 2]), None);
        assert_eq!(Work::from_parts(0, 3, vec![0]), None);
        assert_eq!(Work::from_parts(1, 2, vec![5, 1, 2]), None);
    }
}
