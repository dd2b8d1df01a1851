//! Birth times of the survivors: a leak's curve without churn, and the share of allocations that survives.
//!
//! The live curve of a busy site is mostly allocations that will soon be freed. The survivors, counted by
//! birth time, are the curve without these allocations: an allocation left from an old epoch has outlived
//! everything around it. The score is a logistic function; the labelled benchmark gave its coefficients. The
//! score reads the live count, even if the live bytes look more like a leak. Sizes only add scatter to the
//! question whether the site retains allocations.

use super::comparison::{Comparison, models};
use super::curve::Curve;
use super::trend::{self, Trend};
use crate::series::Births;

/// Least number of epochs for a conclusion.
const LEAST_EPOCHS: usize = 16;

/// Each statistic is clipped to ± this value, as it was when the score was fitted.
const CLIP: f64 = 8.0;

/// Limit of half the BIC of the live curve. Below this limit, the curve has stopped growing, even if the
/// survivors show a leak (odds of 20 to 1).
const STOPPED: f64 = -3.0;

/// The score of the survivors, and the share of survivors for the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Survivors {
    /// Log odds that the site leaks.
    pub(crate) log_odds: f64,
    /// Share of the allocations made from 1/8 to 13/16 of the record that is still live.
    pub(crate) kept: f64,
    /// Bytes retained over the whole record if growth continues after 13/16 of the record as it was before.
    pub(crate) retained_bytes: f64,
}

/// The live curves of the site, which the score reads beside the survivors.
pub(crate) struct Live<'a> {
    /// The curves of live bytes and of live count.
    pub(crate) curves: [&'a Curve; 2],
    /// The trends of both curves.
    pub(crate) trends: [&'a Trend; 2],
    /// The comparison of models on live count.
    pub(crate) comparison: Comparison,
    /// Number of slices.
    pub(crate) points: f64,
}

impl Survivors {
    /// The score of a site; `None`: there are too few epochs.
    pub(crate) fn of(births: &Births, live: &Live<'_>) -> Option<Self> {
        let epochs = births.epochs();
        if epochs < LEAST_EPOCHS {
            return None;
        }
        let at = |sixteenths: usize| epochs * sixteenths / 16;
        // Leave out the last three sixteenths of the epochs: most of their live allocations will still be
        // freed.
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
        // If the live curve has plainly stopped, the survivors of older epochs are the memory that filled it.
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
