//! The thresholds of the rules in [`classify`](super).

use crate::trend::Trend;

/// Thresholds for the statistics of a curve. A curve passes only if its statistics reach all thresholds.
pub(super) struct Thresholds {
    pub(super) rise_over_scatter: f64,
    pub(super) pace: f64,
    pub(super) largest_step: f64,
    pub(super) second_step: f64,
    pub(super) late_t: f64,
    pub(super) bic: f64,
}

/// The default thresholds. A curve must reach the thresholds `SUSPECT` for the confidence `Suspect`. The
/// curves of bytes and of count must both reach the thresholds, and the comparison of models on the count
/// must reach the threshold `bic`.
pub(super) const SUSPECT: Thresholds = Thresholds {
    rise_over_scatter: 2.2,
    pace: 0.15,
    largest_step: 0.87,
    second_step: 0.6,
    late_t: 1.3,
    bic: -0.3,
};
/// The thresholds for the confidence `Strict`, with which a leak may fail a build.
pub(super) const STRICT: Thresholds = Thresholds {
    rise_over_scatter: 5.0,
    pace: 0.42,
    largest_step: 0.4,
    second_step: 0.6,
    late_t: 3.0,
    bic: 3.5,
};
/// Least number of allocations that a leak must have kept to get the confidence `Strict`. If a site kept
/// fewer allocations than this, each of them may come from an event that happens only once, even if the pace
/// was steady.
pub(super) const STRICT_EVENTS: f64 = 12.0;
/// Memory that an allocator holds for its smallest allocation: 32 bytes with glibc's malloc.
pub(super) const SMALLEST_BLOCK_BYTES: f64 = 32.0;
/// If the leaked bytes are at least this share of a site's live bytes, all its live allocations count as
/// leaked, because the other live bytes may be an error of the estimate.
pub(super) const LEAKED_ALL: f64 = 0.97;
/// Least length of a record, in seconds, for a leak with the confidence `Strict`. In a shorter record, the
/// program may still be starting, and a starting program may allocate memory at a steady pace without a leak.
pub const STRICT_SECONDS: f64 = 2.0;
/// A site that freed more allocations than it kept is a leak only if its live count rose by at least this
/// number. If the live count rose by fewer allocations, a single moment with more work than usual may be
/// the cause.
pub(super) const LEAST_EVENTS: f64 = 8.0;
/// The thresholds for a curve from which the model has removed a wave or surges. These thresholds are higher
/// than `SUSPECT`: the model chose the wave or the surges that fit this curve best, and so it also removes
/// some of the normal scatter.
pub(super) const ADJUSTED: Thresholds = Thresholds {
    rise_over_scatter: 4.0,
    pace: 0.15,
    largest_step: 0.87,
    second_step: 0.6,
    late_t: 4.0,
    bic: 0.0,
};
/// The thresholds for sites whose allocations get larger while their number stays the same. Only the curve of
/// live bytes must reach these thresholds, because the live count of such a site does not grow.
pub(super) const BIGGER: Thresholds = Thresholds {
    rise_over_scatter: 4.0,
    pace: 0.05,
    largest_step: 0.6,
    second_step: 0.6,
    late_t: 2.0,
    bic: 0.0,
};
pub(super) const BIGGER_STRICT: Thresholds = Thresholds {
    rise_over_scatter: 8.0,
    pace: 0.3,
    largest_step: 0.3,
    second_step: 0.6,
    late_t: 4.0,
    bic: 2.0,
};
/// The thresholds of plain growth. The thresholds `PLAIN` apply to a curve that a cache explains as well as a
/// leak does. If the curve reaches the thresholds `PLAIN`, the site is undecided; otherwise, the site is not
/// a leak.
pub(super) const PLAIN: Thresholds = Thresholds {
    rise_over_scatter: 4.0,
    pace: 0.35,
    largest_step: 0.5,
    second_step: 0.6,
    late_t: 2.5,
    bic: -1.5,
};

/// Limits for the log odds that the model computes from the surviving allocations. Up to
/// `SURVIVORS_NO_LEAK`, the site is not a leak. From there to `SURVIVORS_SUSPECT`, the site is undecided.
/// Above `SURVIVORS_SUSPECT`, the site is a leak with the confidence `Suspect`; above `SURVIVORS_STRICT`, it
/// is a leak with the confidence `Strict`.
pub(super) const SURVIVORS_NO_LEAK: f64 = -0.9;
pub(super) const SURVIVORS_SUSPECT: f64 = 0.4;
pub(super) const SURVIVORS_STRICT: f64 = 4.8;
/// From the surviving allocations, the model estimates how many bytes the site retains. If less than this
/// share of the estimate is live at the end of the record, the site is undecided and not a leak: perhaps the
/// program freed the memory only because it ended, and a user could not find the leak.
pub(super) const LEAST_LEFT: f64 = 0.25;
/// If the surviving allocations show a leak, it gets the confidence `Strict` only if the comparison of models
/// on the live count gives at least this value, and if the pace is steady. Without these two conditions, a
/// site whose growth stops late in the record could get `Strict`, because its surviving allocations are the
/// same as those of a leak.
pub(super) const SURVIVORS_STRICT_BIC: f64 = 2.0;

impl Thresholds {
    pub(super) fn trend(&self, t: &Trend) -> bool {
        t.rise_over_scatter > self.rise_over_scatter
            && t.pace > self.pace
            && t.largest_step < self.largest_step
            && t.second_step < self.second_step
            && t.late_t > self.late_t
    }

    /// Tests the statistics of bytes (`b`) and of count (`c`). Each statistic must pass its threshold on
    /// both curves, except `late_t`, which must pass only on the curve of bytes.
    pub(super) fn trends(&self, b: &Trend, c: &Trend) -> bool {
        b.rise_over_scatter.min(c.rise_over_scatter) > self.rise_over_scatter
            && b.pace.min(c.pace) > self.pace
            && b.largest_step.min(c.largest_step) < self.largest_step
            && b.second_step.min(c.second_step) < self.second_step
            && b.late_t > self.late_t
    }
}
