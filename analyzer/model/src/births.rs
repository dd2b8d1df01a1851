//! Computes a score from the times at which the surviving allocations were made: log odds that the site
//! leaks. The module also computes the share of the allocations that are still live at the end.
//!
//! At a busy site, most live allocations will soon be freed, so the curve of live bytes hides a leak. The
//! surviving allocations, counted by the time at which they were made, give a curve without short-lived
//! allocations, because an allocation of an old epoch that is still live is not short-lived. The score is a
//! logistic function of statistics of three curves: the curve of the surviving allocations, the live bytes
//! and the live count. The coefficients of the function were fitted to the labelled benchmark. The score is
//! computed from the live count, even if the live bytes look more like a leak than the live count does.
//! Whether a site retains allocations depends on their number; their sizes only add scatter.

use super::comparison::{Comparison, models};
use super::curve::Curve;
use super::trend::{self, Trend};
use crate::series::Births;

/// Least number of epochs for a score; with fewer epochs, the module computes no score.
const LEAST_EPOCHS: usize = 16;

/// Each statistic in the score is limited to the range from −`CLIP` to `CLIP`, as it was when the
/// coefficients of the score were fitted.
const CLIP: f64 = 8.0;

/// The site is not a leak if the comparison of models on the live count gives less than this value, even if
/// the surviving allocations show a leak. If the comparison gives −3, the odds are 20 to 1 that the curve has
/// stopped growing.
const STOPPED: f64 = -3.0;

/// The score that is computed from the surviving allocations, and the share of allocations that survive, for
/// the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Survivors {
    /// Log odds that the site leaks.
    pub(crate) log_odds: f64,
    /// Of the allocations that the site made between 1/8 and 13/16 of the record, the share that is still
    /// live.
    pub(crate) kept: f64,
    /// Bytes that the site retains until the end of the record. The model computes this number from the
    /// first 13/16 of the record, and assumes that the growth continues at the same rate until the end.
    pub(crate) retained_bytes: f64,
}

/// The curves of live bytes and of live count of the site, which are also used for the score.
pub(crate) struct Live<'a> {
    /// Two curves: first the live bytes, then the live count.
    pub(crate) curves: [&'a Curve; 2],
    /// The statistics of the two curves, in the order of `curves`.
    pub(crate) trends: [&'a Trend; 2],
    /// The comparison of models on the curve of the live count.
    pub(crate) comparison: Comparison,
    /// Number of slices.
    pub(crate) points: f64,
}

impl Survivors {
    /// The score of a site; `None`: there are fewer than `LEAST_EPOCHS` epochs.
    pub(crate) fn of(births: &Births, live: &Live<'_>) -> Option<Self> {
        let epochs = births.epochs();
        if epochs < LEAST_EPOCHS {
            return None;
        }
        let at = |sixteenths: usize| epochs * sixteenths / 16;
        // The function leaves out the last three sixteenths of the epochs, because most of their live
        // allocations are young and will still be freed.
        let bytes = cumulated(&births.epoch_live_bytes[..at(13)]);
        let count = cumulated(&births.epoch_live_count[..at(13)]);
        let middle = &births.epoch_live_count[at(2)..at(13)];
        let part = middle.len() * 5 / 11;
        let (first, last) = (sum(&middle[..part]), sum(&middle[middle.len() - part..]));
        let late = trend::ratio(last, first + last);
        let kept = trend::ratio(sum(middle), sum(&births.epoch_allocs[at(2)..at(13)])).min(1.0);

        let [b, c] = live.trends;
        let clip = |v: f64| v.clamp(-CLIP, CLIP);
        let odds = [clip(live.comparison.bic), clip(models(count.len()).compare(&count).bic)];
        let rises = [
            b.rise_over_scatter,
            c.rise_over_scatter,
            trend::rise_over_scatter(&bytes),
            trend::rise_over_scatter(&count),
        ]
        .map(clip);
        let rise = trend::late_rise(live.curves[0]).min(trend::late_rise(live.curves[1]));
        let half = live.curves[1].len() / 2;
        let grown = live.curves[1].mean[live.curves[1].len() - 1] - live.curves[1].mean[half];
        let balance = trend::ratio(grown, sum(&births.epoch_live_count[at(8)..at(15)])).clamp(-2.0, 2.0);
        let age = (births.max_age_at_free / live.points).clamp(0.0, 1.0);
        let log_odds = -2.08
            + 0.425 * odds[0].min(odds[1])
            + 0.454 * odds[0].max(odds[1])
            + 0.528 * rises.into_iter().fold(f64::MIN, f64::max)
            + 1.776 * b.tau.min(c.tau)
            + 2.178 * rise
            + 1.016 * b.pace.min(c.pace)
            - 1.421 * b.largest_step.min(c.largest_step)
            - 1.365 * trend::pace(&count)
            - 1.920 * late
            - 2.980 * kept
            - 2.694 * age
            - 0.199 * balance
            - 0.328 * live.points.ln();
        // If the live count has clearly stopped growing, the surviving allocations are from the time before
        // it stopped growing. So the score of a site that has stopped growing must not show a leak.
        let log_odds = if live.comparison.bic < STOPPED { log_odds.min(-1.0) } else { log_odds };
        let steady = models(bytes.len()).compare(&bytes);
        let stretch = (16.0 / 13.0 - steady.begins) / (1.0 - steady.begins);
        Some(Self { log_odds, kept, retained_bytes: steady.growth * stretch })
    }
}

fn sum(counts: &[u64]) -> f64 {
    counts.iter().map(|&c| c as f64).sum()
}

fn cumulated(born: &[u64]) -> Curve {
    let mut sum = 0.0;
    let sums = born.iter().map(|&b| {
        sum += b as f64;
        sum
    });
    Curve::of_means(sums.collect())
}
