//! What the births of the survivors tell: a leak's curve with the churn removed, and how much of what was born stays.
//!
//! The live curve of a busy site is mostly allocations that will be freed soon. Counting only those that survive to the end, by when
//! they were born, takes that out: what is left of an old epoch has outlived everything around it. The score is the logistic one
//! of the labelled benchmark, read on live count instead of whichever of bytes and count looks more like a leak, since sizes only
//! add scatter to the question whether allocations are retained.

use super::contest::{Contest, models};
use super::curve::Curve;
use super::trend::{self, Trend};
use crate::series::Births;

/// Fewest epochs from which anything is concluded.
const LEAST_EPOCHS: usize = 16;

/// Where each figure stops mattering; the score was made with figures so clipped.
const CLIP: f64 = 8.0;

/// Half a BIC below which the live curve has stopped growing, whatever the survivors say: odds of 20 to 1.
const STOPPED: f64 = -3.0;

/// The survivors' score, and the figure of it that people understand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Survivors {
    /// Log odds that it is a leak.
    pub(crate) log_odds: f64,
    /// Of what was allocated in the middle of the record, 1/8 to 13/16, the share that is still alive.
    pub(crate) kept: f64,
    /// Bytes retained over the record if they went on as they did up to 13/16 of it.
    pub(crate) retained_bytes: f64,
}

/// The live curves of the site, beside which the survivors are read.
pub(crate) struct Live<'a> {
    /// Live bytes and live count.
    pub(crate) curves: [&'a Curve; 2],
    /// Their trends.
    pub(crate) trends: [&'a Trend; 2],
    /// The contest of models on live count.
    pub(crate) contest: Contest,
    /// Slices.
    pub(crate) points: f64,
}

impl Survivors {
    /// The score, if there are epochs enough.
    pub(crate) fn of(births: &Births, live: &Live<'_>) -> Option<Self> {
        let epochs = births.epochs();
        if epochs < LEAST_EPOCHS {
            return None;
        }
        let at = |sixteenths: usize| epochs * sixteenths / 16;
        // What was born in the last three sixteenths is mostly churn that has not died yet.
        let bytes = cumulated(&births.epoch_live_bytes[..at(13)]);
        let count = cumulated(&births.epoch_live_count[..at(13)]);
        let middle = &births.epoch_live_count[at(2)..at(13)];
        let part = middle.len() * 5 / 11;
        let (first, last) = (sum(&middle[..part]), sum(&middle[middle.len() - part..]));
        let late = trend::ratio(last, first + last);
        let kept = trend::ratio(sum(middle), sum(&births.epoch_allocs[at(2)..at(13)])).min(1.0);

        let [b, c] = live.trends;
        let clip = |v: f64| v.clamp(-CLIP, CLIP);
        let odds = [clip(live.contest.bic), clip(models(count.len()).contest(&count).bic)];
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
        // Where the live curve has plainly stopped, what survives of older epochs is what filled it.
        let log_odds = if live.contest.bic < STOPPED { log_odds.min(-1.0) } else { log_odds };
        let steady = models(bytes.len()).contest(&bytes);
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
