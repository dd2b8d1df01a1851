//! Judges growth that stopped at the same time as the work of the whole program.
//!
//! When the load of a program stops, a leak stops growing, and a cache that is not full stops growing, too.
//! The curve cannot tell a leak from a cache that is not full, so the site is undecided, and the report
//! tells the user this reason. A cache that was full before the work stopped is not a leak. If memory is
//! freed after the work stopped, and shortly before the end of the record, there are two possible reasons:
//! the program was about to end and freed everything, or it began another phase of work. So a site is also
//! undecided if its memory is freed after the work stopped and shortly before the end of the record.

use super::{Decision, LEAST_EVENTS, LEAST_POINTS, Site, Verdict};
use crate::busy::Busy;
use crate::curve::Curve;
use crate::reasons;

/// If a site stopped growing before this share of the record had passed, its growth belongs to the start
/// of the program, even if the program was quiet afterwards.
const LEAST_GROWING: f64 = 0.36;
/// If the program freed the memory of a site before this share of the record had passed, the frees count as a
/// part of the program's normal work. If the program freed the memory after this share of the record had
/// passed, it may have done so because it was about to end.
const LATE_RELEASE: f64 = 0.65;
/// The growth of a site counts as released if at least this share of it is no longer live.
const RELEASED: f64 = 0.5;
/// Least share of the growth that must be in the last third of the busy time, for a site with few slices. A
/// site with enough slices for a verdict is judged by its curve instead.
const LATE_GROWTH: f64 = 0.2;

impl Site<'_> {
    /// Decides whether a site is undecided because its growth stopped together with the program's work, from
    /// its curve over busy time. `None`: over busy time, the curve is not a leak; or the program was busy
    /// for the whole record; or the growth ended, or its memory was freed, early in the record.
    pub(super) fn decide_by_busy_time(&self, period_s: f64) -> Option<Decision> {
        let (work, width) = (self.series.work()?, self.series.buckets()?.width());
        let (absent, record) = (self.series.absent(), self.series.absent() + self.series.points());
        let end_of = |bucket: usize| absent + (bucket as u64 + 1) * width - 1;
        let start_of = |bucket: usize| (absent + bucket as u64 * width).saturating_sub(1);
        let worked: Vec<f64> =
            (0..self.curves[0].len()).map(|bucket| work.between(start_of(bucket), end_of(bucket))).collect();
        let growing = usize::from(!self.is_size_driven());
        let busy = Busy::of(self.curves[growing], &worked)?;
        let is_before = |bucket: usize, share: f64| (end_of(bucket) as f64) < share * record as f64;
        if is_before(busy.grown_at(), LEAST_GROWING) {
            return None;
        }
        let curves = self.curves.map(|curve| busy.curve(curve));
        let held = curves[0].max.last().copied().unwrap_or(0.0);
        let gone = RELEASED * (held - curves[0].mean.first().copied().unwrap_or(0.0));
        let wall = &self.curves[0].mean;
        let is_released = wall.last().is_some_and(|end| held - end > gone);
        let held_until = wall.iter().rposition(|&mean| held - mean < gone);
        if is_released && held_until.is_some_and(|bucket| is_before(bucket, LATE_RELEASE)) {
            return None;
        }

        let finding = if (curves[0].len() as u64) < LEAST_POINTS {
            grows_to_the_end(&curves).then(|| reasons::too_little_work(curves[0].len()))?
        } else {
            let site = Site::new([&curves[0], &curves[1]], self.series, self.is_sizeless);
            let decision =
                if site.is_size_driven() { site.decide_by_size() } else { site.decide_by_curves() };
            if decision.verdict == Verdict::NoLeak || (!site.is_size_driven() && site.is_a_few_of_many()) {
                return None;
            }
            Vec::new()
        };
        let quiet_from = busy.quiet_from();
        let is_over = quiet_from < worked.len();
        let pace = worked[quiet_from..].iter().sum::<f64>() / (worked.len() - quiet_from).max(1) as f64;
        let mut why = reasons::quiet(&reasons::Quiet {
            seconds: (record - absent).saturating_sub(quiet_from as u64 * width) as f64 * period_s,
            share: if is_over { pace / busy.pace() } else { 1.0 - busy.length() / worked.len() as f64 },
            is_over,
            is_missing: work.known() < record && end_of(quiet_from) + width >= work.known(),
            is_released,
        });
        why.extend(finding);
        Some(Decision { open_bytes: held, ..Decision::not(Verdict::Undecided, why) })
    }
}

/// Whether a site with too few buckets for a verdict grew by enough allocations, and also grew in the last
/// third of its buckets.
fn grows_to_the_end([bytes, count]: &[Curve; 2]) -> bool {
    let rise = |curve: &Curve, from: usize| {
        curve.mean.last().zip(curve.mean.get(from)).map_or(0.0, |(last, from)| last - from)
    };
    let late = 2 * count.len() / 3;
    rise(count, 0) >= LEAST_EVENTS
        && rise(count, late) > LATE_GROWTH * rise(count, 0)
        && rise(bytes, late) > 0.0
}
