//! The series of one site: its live bytes and live count at each slice, condensed in one pass and in bounded
//! memory.
//!
//! The size of a series does not depend on the length of the record. A series holds:
//!
//! - exact integer sums of the live bytes, so that edLeak's quadratic fit has no rounding error in its sums
//!   ([`crate::regression`]); only if the user chose edLeak's model;
//! - 64 to 128 buckets of the curve ([`crate::buckets`]), from which all other statistics are computed;
//! - the last point, and, if they were recorded, the times at which the surviving allocations were made;
//! - the allocations of the whole program over time ([`crate::work`]), which all series of a record share.
//!
//! A site whose live bytes and count never change has no buckets. If live bytes or count of a site change,
//! its buckets take 3 KB, or 6 KB if at least one number needs more than 32 bits. A series does not depend on
//! the number of calls that added its points: `push_run(p, 5)` and five calls of `push(p)` give the same
//! series, bit for bit.

use crate::buckets::Buckets;
use crate::work::Work;
use std::sync::Arc;

/// The counters of one site at one slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Bytes allocated and not yet freed.
    pub live_bytes: u64,
    /// Allocations not yet freed.
    pub live_count: u64,
    /// Allocations since the record began.
    pub allocs: u64,
    /// Frees since the record began.
    pub frees: u64,
}

/// The times at which a site's surviving allocations were made. The record is divided into epochs of equal
/// length; the oldest epoch comes first.
///
/// Each vector in this struct has one entry per epoch. A time is the number of slices since the first point
/// of the site, and may have a fraction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Births {
    /// Live bytes at the end of the record, by the epoch in which they were allocated.
    pub epoch_live_bytes: Vec<u64>,
    /// Live allocations at the end of the record, by the epoch in which they were made.
    pub epoch_live_count: Vec<u64>,
    /// All allocations made in each epoch, whether or not the program has freed them.
    pub epoch_allocs: Vec<u64>,
    /// Time of the last free at this site; −1 if the site never freed anything.
    pub last_free_slice: f64,
    /// Greatest age, in slices, at which an allocation of this site was freed.
    pub max_age_at_free: f64,
}

impl Births {
    /// Number of epochs for which all three vectors of this struct have an entry.
    pub fn epochs(&self) -> usize {
        self.epoch_live_bytes.len().min(self.epoch_live_count.len()).min(self.epoch_allocs.len())
    }
}

/// Exact sums of the live bytes, from which `regression.rs` fits edLeak's parabola. In the
/// formulas, b is the number of live bytes at slice i, and the site's first slice is slice 0.
///
/// The sums are exact while Σ b·i² stays below 2¹²⁸, for example with 2⁴⁷ bytes live for 2²⁷ slices. Only
/// the numbers of a forged trace can give a sum above 2¹²⁸; such a sum stays at the greatest 128-bit
/// number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Number of points.
    pub n: u64,
    /// Σ b
    pub b: u128,
    /// Σ b·i
    pub bi: u128,
    /// Σ b·i²
    pub bii: u128,
    /// Least number of live bytes in all slices.
    pub min: u64,
    /// Greatest number of live bytes in all slices.
    pub max: u64,
}

impl Sums {
    fn add_run(&mut self, bytes: u64, repeat: u64) {
        let (s, r, b) = (u128::from(self.n), u128::from(repeat), u128::from(bytes));
        if self.n == 0 {
            (self.min, self.max) = (bytes, bytes);
        }
        self.min = self.min.min(bytes);
        self.max = self.max.max(bytes);
        self.b = self.b.saturating_add(b.saturating_mul(r));
        if b > 0 {
            self.bi = self.bi.saturating_add(b.saturating_mul(sum_i(s + r).saturating_sub(sum_i(s))));
            self.bii = self.bii.saturating_add(b.saturating_mul(sum_ii(s + r).saturating_sub(sum_ii(s))));
        }
        self.n = self.n.saturating_add(repeat);
    }
}

/// Σ i for i in 0..n. `n` is below 2⁶⁵. For the greatest `n`, n·(n−1) needs more than 128 bits; such
/// a product stays at the greatest 128-bit number.
fn sum_i(n: u128) -> u128 {
    n.saturating_mul(n.saturating_sub(1)) / 2
}

/// Σ i² for i in 0..n.
fn sum_ii(n: u128) -> u128 {
    let pairs = sum_i(n);
    pairs
        .checked_mul(2 * n.saturating_sub(1) + 1)
        .map_or_else(|| (pairs / 3).saturating_mul(2 * n), |p| p / 3)
}

/// Builds a [`Series`] from evenly spaced points.
#[derive(Clone, Debug, Default)]
pub struct SeriesBuilder {
    absent: u64,
    sums: Sums,
    /// `last` is the newest point. `pending` says how many points equal to `last` are not in the buckets yet.
    last: Point,
    pending: u64,
    buckets: Option<Box<Buckets>>,
    births: Option<Births>,
    work: Option<Arc<Work>>,
}

impl SeriesBuilder {
    /// Makes a builder without points.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of slices that the record had before the site was first seen.
    ///
    /// The points of a series begin at the site's first slice. From the number of slices before the first
    /// point, the model knows the length of the whole record. So a site that appears late in a long
    /// record does not look like a site of a short record.
    pub fn absent(&mut self, slices: u64) {
        self.absent = slices;
    }

    /// Adds the counters of one slice to the series.
    pub fn push(&mut self, p: Point) {
        self.push_run(p, 1);
    }

    /// Adds `repeat` slices with the same counters.
    ///
    /// While live bytes and live count stay the same, `push_run` only counts the points, which takes O(1)
    /// time. When live bytes or live count change, `push_run` adds the counted points to the buckets, which
    /// takes O(1) time for each bucket that these points cover.
    pub fn push_run(&mut self, p: Point, repeat: u64) {
        if repeat == 0 {
            return;
        }
        let moved = p.live_bytes != self.last.live_bytes || p.live_count != self.last.live_count;
        if moved && self.sums.n > 0 {
            self.flush();
        }
        self.sums.add_run(p.live_bytes, repeat);
        self.pending = self.pending.saturating_add(repeat);
        self.last = p;
    }

    /// Adds the times at which the surviving allocations were made.
    pub fn births(&mut self, b: Births) {
        self.births = Some(b);
    }

    /// Adds the work of the whole program.
    pub fn work(&mut self, work: Arc<Work>) {
        self.work = Some(work);
    }

    /// Adds the last points to the buckets and returns the series.
    pub fn finish(mut self) -> Series {
        if self.buckets.is_some() {
            self.flush();
        }
        Series {
            absent: self.absent,
            points: self.sums.n,
            sums: Some(self.sums),
            last: self.last,
            buckets: self.buckets,
            births: self.births,
            work: self.work,
        }
    }

    /// Adds the pending equal points to the buckets. The first call of `flush` makes the buckets, so a
    /// series whose live bytes and count never change has no buckets.
    fn flush(&mut self) {
        let buckets = self.buckets.get_or_insert_default();
        buckets.push_run(self.last.live_bytes, self.last.live_count, self.pending);
        self.pending = 0;
    }
}

/// The series of one site in condensed form: its live bytes and live count over time. The comment
/// at the top of `series.rs` lists the data of a series.
#[derive(Clone, Debug, Default)]
pub struct Series {
    absent: u64,
    points: u64,
    sums: Option<Sums>,
    last: Point,
    buckets: Option<Box<Buckets>>,
    births: Option<Births>,
    work: Option<Arc<Work>>,
}

impl Series {
    /// Makes a series from data that other code has condensed by the rules of [`SeriesBuilder`].
    pub fn from_parts(
        absent: u64,
        points: u64,
        sums: Option<Sums>,
        last: Point,
        buckets: Option<Buckets>,
        births: Option<Births>,
    ) -> Self {
        Self { absent, points, sums, last, buckets: buckets.map(Box::new), births, work: None }
    }

    /// Returns this series with the work of the whole program added.
    pub fn beside(self, work: Arc<Work>) -> Self {
        Self { work: Some(work), ..self }
    }

    /// Returns this series with `allocs` as the number of allocations, and `frees` as the number of frees, at
    /// the last slice. Use this function if the points of the series have no numbers of allocations and
    /// frees.
    pub fn with_totals(self, allocs: u64, frees: u64) -> Self {
        Self { last: Point { allocs, frees, ..self.last }, ..self }
    }

    /// Number of slices since the site was first seen.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// Number of slices of the record before the site was first seen.
    pub fn absent(&self) -> u64 {
        self.absent
    }

    /// The counters at the last slice; zeros if there is no slice.
    pub fn last(&self) -> Point {
        self.last
    }

    /// The exact sums for the formula of edLeak (the older tool, `--model edleak`); `None`: the user did not
    /// choose this formula, so the series does not keep these sums.
    pub fn sums(&self) -> Option<&Sums> {
        self.sums.as_ref()
    }

    /// The times at which the surviving allocations were made; `None`: not recorded.
    pub fn survivors(&self) -> Option<&Births> {
        self.births.as_ref()
    }

    /// The allocations of the whole program over time; `None`: not recorded.
    pub fn work(&self) -> Option<&Work> {
        self.work.as_deref()
    }

    /// The buckets; `None`: neither live bytes nor live count ever changed.
    pub fn buckets(&self) -> Option<&Buckets> {
        self.buckets.as_deref()
    }
}
