//! Turns statistics into a verdict: whether the growth is a leak, the confidence, and the reasons.

use crate::births::{Live, Survivors};
use crate::comparison::{Comparison, models};
use crate::curve::Curve;
use crate::growth_class::Class;
use crate::reasons;
use crate::regression::leak_factor;
use crate::season;
use crate::series::Series;
use crate::surge;
use crate::trend::{self, Line, Trend};

mod quiet;
mod thresholds;

pub use thresholds::STRICT_SECONDS;
use thresholds::{
    ADJUSTED, BIGGER, BIGGER_STRICT, LEAKED_ALL, LEAST_EVENTS, LEAST_LEFT, PLAIN, SMALLEST_BLOCK_BYTES,
    STRICT, STRICT_EVENTS, SURVIVORS_NO_LEAK, SURVIVORS_STRICT, SURVIVORS_STRICT_BIC, SURVIVORS_SUSPECT,
    SUSPECT,
};

/// The model that computes the verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// edleak's own model, which uses robust statistics, competing growth models and, if they were recorded,
    /// the ages of the surviving allocations.
    #[default]
    Growth,
    /// edLeak's leak factor of 2014, computed exactly as edLeak did.
    LeakFactor,
}

/// Whether a site leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The site retains memory at a rate that does not diminish.
    Leak,
    /// The site does not leak, as far as the record shows.
    NoLeak,
    /// The record is too short, or shows too little, to decide whether the site leaks.
    Undecided,
}

/// The confidence in a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// The curve reaches the default thresholds, so the user should look at the site.
    Suspect,
    /// The evidence is enough to fail a build: of 300 sites that do not leak, at most one gets this
    /// confidence.
    Strict,
}

/// The verdict on one site.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The kind of growth.
    pub class: Class,
    /// Whether the site leaks.
    pub verdict: Verdict,
    /// The confidence in a leak; `None` if the verdict is not a leak.
    pub confidence: Option<Confidence>,
    /// Bytes leaked over the record; 0 if the site does not leak.
    pub leak_bytes: u64,
    /// Number of allocations leaked over the record; 0 if the site does not leak. `None`: only the leaked
    /// bytes are known.
    pub leak_count: Option<u64>,
    /// Leaked bytes per second from the beginning of the leak on; 0 if the site does not leak.
    pub rate_bytes_per_s: f64,
    /// Seconds from the start of the record to the beginning of the leak; 0 if the site does not leak, or
    /// leaked from the start.
    pub began_s: f64,
    /// The reasons for the verdict, in words.
    pub why: Vec<String>,
    /// For an undecided site, how many seconds longer than this recording a new recording should be.
    pub record_longer_s: Option<f64>,
    /// Whether the verdict was decided by the ages of the surviving allocations; false if the ages are
    /// unknown.
    pub by_survivors: bool,
    /// If the site is undecided because the program stopped working while the site grew, the number of bytes
    /// that may have leaked, including bytes that the program freed after it stopped working; 0 for any other
    /// site.
    pub open_bytes: u64,
}

/// Least number of slices for a verdict.
pub const LEAST_POINTS: u64 = 12;

/// If a site first appears in the last 1/`LEAST_PRESENCE` of the record, the model judges its curve over the
/// whole record, with 0 bytes before the first slice. Growth only at the very end of a record does not show
/// that the growth will continue.
const LEAST_PRESENCE: u64 = 8;

/// Judges one site of a record whose slices are `period_s` seconds apart.
pub fn judge(series: &Series, period_s: f64, model: Model) -> Judgement {
    match model {
        Model::LeakFactor => judge_by_leak_factor(series, period_s),
        Model::Growth => judge_growth(series, period_s),
    }
}

impl Judgement {
    /// The judgement on a stack whose leak is reported at its caller: the caller and all its stacks together
    /// are judged as one leak.
    pub fn part_of_a_leak(class: Class) -> Self {
        Self::no_leak(class, vec!["a part of its caller's leak".into()])
    }

    /// The judgement on a site that maps address space, if this address space has no resident memory.
    pub fn without_memory(class: Class, why: String) -> Self {
        Self::no_leak(class, vec![why])
    }

    /// The judgement on every site of a record with fewer than [`LEAST_POINTS`] slices.
    pub fn too_short(slices: u64, period_s: f64) -> Self {
        let missing = LEAST_POINTS.saturating_sub(slices).max(1);
        Self::undecided(Class::Constant, missing as f64 * period_s, reasons::too_short(slices, LEAST_POINTS))
    }

    fn no_leak(class: Class, why: Vec<String>) -> Self {
        Self {
            class,
            verdict: Verdict::NoLeak,
            confidence: None,
            leak_bytes: 0,
            leak_count: Some(0),
            rate_bytes_per_s: 0.0,
            began_s: 0.0,
            why,
            record_longer_s: None,
            by_survivors: false,
            open_bytes: 0,
        }
    }

    /// The judgement on a site if only a longer record can decide whether it leaks.
    pub fn undecided(class: Class, record_longer_s: f64, why: Vec<String>) -> Self {
        let record_longer_s = Some(if record_longer_s.is_finite() { record_longer_s.max(0.0) } else { 0.0 });
        Self { verdict: Verdict::Undecided, record_longer_s, ..Self::no_leak(class, why) }
    }
}

fn judge_growth(series: &Series, period_s: f64) -> Judgement {
    let record = series.points().saturating_add(series.absent());
    if record < LEAST_POINTS {
        return Judgement::too_short(record, period_s);
    }
    if series.points() == 0 {
        return Judgement::no_leak(Class::Constant, reasons::unseen());
    }
    let Some(buckets) = series.buckets() else {
        return Judgement::no_leak(Class::Constant, reasons::unmoved(series.points()));
    };
    let (mut bytes, mut count) = (Curve::live_bytes(buckets), Curve::live_count(buckets));
    let is_brief = series.points() < LEAST_POINTS || series.points() < record / LEAST_PRESENCE;
    if is_brief {
        let before = series.absent() / buckets.width();
        (bytes, count) = (bytes.after_absence(before), count.after_absence(before));
    }
    // If all allocations of the site have 0 bytes, the model judges the number of allocations: the allocator
    // holds memory even for an allocation of 0 bytes, and this memory grows.
    let is_sizeless = bytes.full() <= 1.0 && count.full() > 1.0;
    if is_sizeless {
        bytes = count.scaled(SMALLEST_BLOCK_BYTES);
    }
    if bytes.full() <= 1.0 {
        return Judgement::no_leak(Class::Constant, reasons::unmoved(series.points()));
    }
    let site = Site::new([&bytes, &count], series, is_sizeless);
    let mut decision = match site.decide() {
        decision if decision.verdict == Verdict::Leak || is_brief => decision,
        decision => site.decide_by_busy_time(period_s).unwrap_or(decision),
    };
    if is_sizeless && decision.verdict != Verdict::NoLeak {
        decision.why.push(reasons::sizeless(SMALLEST_BLOCK_BYTES));
        decision.open_bytes = bytes.max.last().copied().unwrap_or(0.0);
    }
    let curve_points = if is_brief { record } else { series.points() };
    site.judgement(&decision, curve_points as f64, period_s)
}

/// The curves of one site, and the statistics of these curves from which the rules decide the verdict.
struct Site<'a> {
    bytes: Trend,
    count: Trend,
    curves: [&'a Curve; 2],
    series: &'a Series,
    /// Whether the curve of bytes is a multiple of the curve of the count, because all allocations ask for 0
    /// bytes.
    is_sizeless: bool,
}

/// The decision of the rules on one site.
struct Decision {
    verdict: Verdict,
    strict: bool,
    /// Whether the birth times of the surviving allocations decided the verdict.
    by_survivors: bool,
    /// The leaked bytes, computed from the surviving allocations.
    retained_bytes: Option<f64>,
    /// The curve of live bytes without the wave or the surges that hid the leak. `None`: the verdict is from
    /// the original curve.
    adjusted_bytes: Option<Curve>,
    /// For growth that stopped together with the program's work, the bytes that may have leaked; the program
    /// may have freed some of these bytes.
    open_bytes: f64,
    why: Vec<String>,
}

impl Decision {
    fn leak(strict: bool, why: Vec<String>) -> Self {
        Self { strict, ..Self::not(Verdict::Leak, why) }
    }

    fn not(verdict: Verdict, why: Vec<String>) -> Self {
        Self {
            verdict,
            strict: false,
            by_survivors: false,
            retained_bytes: None,
            adjusted_bytes: None,
            open_bytes: 0.0,
            why,
        }
    }
}

impl<'a> Site<'a> {
    /// Computes the statistics of two curves: live bytes and live count. Each curve must have 12
    /// buckets or more.
    fn new(curves: [&'a Curve; 2], series: &'a Series, is_sizeless: bool) -> Self {
        Self { bytes: Trend::of(curves[0]), count: Trend::of(curves[1]), curves, series, is_sizeless }
    }

    fn decide(&self) -> Decision {
        if self.is_size_driven() { self.decide_by_size() } else { self.decide_by_births_or_curves() }
    }

    /// Whether the live bytes grow and the live count does not, so the allocations get larger.
    fn is_size_driven(&self) -> bool {
        let growth = |t: &Trend| trend::ratio(t.eighths[7], t.eighths[2]) - 1.0;
        let (b, c) = (growth(&self.bytes), growth(&self.count));
        self.bytes.eighths[2] > 0.0 && self.count.eighths[2] > 0.0 && b > 0.0 && c < 0.25 * b
    }

    fn decide_by_size(&self) -> Decision {
        if !BIGGER.trend(&self.bytes) {
            return match trend::doubles_late(self.curves[0]) {
                true => Decision::not(Verdict::Undecided, reasons::doubles()),
                false => Decision::not(Verdict::NoLeak, reasons::weakest(&self.bytes)),
            };
        }
        let comparison = self.compare(0);
        if comparison.bic <= BIGGER.bic {
            return Decision::not(Verdict::NoLeak, reasons::fills(comparison.bic));
        }
        let strict = BIGGER_STRICT.trend(&self.bytes) && comparison.bic > BIGGER_STRICT.bic;
        Decision::leak(strict, reasons::bigger(&self.bytes, comparison.bic))
    }

    fn decide_by_births_or_curves(&self) -> Decision {
        if let Some(births) = self.series.survivors() {
            let live = Live {
                curves: self.curves,
                trends: [&self.bytes, &self.count],
                comparison: self.compare(1),
                points: self.series.points() as f64,
            };
            if let Some(survivors) = Survivors::of(births, &live) {
                let why = reasons::survivors(&survivors, &self.count, live.comparison.bic);
                let strict = survivors.log_odds > SURVIVORS_STRICT
                    && live.comparison.bic > SURVIVORS_STRICT_BIC
                    && self.bytes.pace.min(self.count.pace) > STRICT.pace;
                let at_the_end = self.curves[0].max.last().copied().unwrap_or(0.0);
                let decision = match survivors.log_odds {
                    odds if odds > SURVIVORS_SUSPECT
                        && at_the_end < LEAST_LEFT * survivors.retained_bytes =>
                    {
                        Decision::not(Verdict::Undecided, reasons::freed_before_the_end(&survivors))
                    }
                    odds if odds > SURVIVORS_SUSPECT => Decision {
                        retained_bytes: Some(survivors.retained_bytes),
                        ..Decision::leak(strict, why)
                    },
                    odds if odds > SURVIVORS_NO_LEAK => Decision::not(Verdict::Undecided, why),
                    _ => Decision::not(Verdict::NoLeak, why),
                };
                return Decision { by_survivors: true, ..decision };
            }
        }
        let decision = self.decide_by_curves();
        match decision.verdict {
            Verdict::Leak if self.is_a_few_of_many() => {
                Decision::not(Verdict::Undecided, reasons::a_few(self.count.rise(), self.series.last().frees))
            }
            _ => decision,
        }
    }

    /// Whether the site kept only a few allocations and freed many more than it kept.
    fn is_a_few_of_many(&self) -> bool {
        let last = self.series.last();
        self.count.rise() < LEAST_EVENTS && last.frees > last.allocs.saturating_sub(last.frees)
    }

    /// Decides by the curves alone, without the surviving allocations. The fast tests come first, because the
    /// comparison of models takes more time than all other tests together.
    fn decide_by_curves(&self) -> Decision {
        let (b, c) = (&self.bytes, &self.count);
        let mut bic = None;
        if SUSPECT.trends(b, c) {
            let comparison = self.compare(1);
            if comparison.bic > SUSPECT.bic {
                let strict = STRICT.trends(b, c)
                    && comparison.bic > STRICT.bic
                    && self.compare(0).bic > 0.0
                    && c.eighths[7] - c.eighths[0] >= STRICT_EVENTS;
                return Decision::leak(strict, reasons::grows(c, comparison.bic));
            }
            bic = Some(comparison.bic);
        }
        if let Some(decision) = self.decide_without_waves_and_surges() {
            return decision;
        }
        match bic {
            None => Decision::not(
                Verdict::NoLeak,
                reasons::weakest(if b.rise_over_scatter < c.rise_over_scatter { b } else { c }),
            ),
            Some(bic) if bic > PLAIN.bic && PLAIN.trends(b, c) => {
                Decision::not(Verdict::Undecided, reasons::ambiguous(c))
            }
            Some(bic) => Decision::not(Verdict::NoLeak, reasons::fills(bic)),
        }
    }

    /// A regular wave or short surges in a curve can hide a leak. So the function first removes the wave from
    /// the original curve, and judges the result. If this result shows no leak, the function removes only the
    /// surges from the original curve, and judges the result of this second attempt.
    fn decide_without_waves_and_surges(&self) -> Option<Decision> {
        let adjust = |by: fn(&Curve) -> Option<Curve>, name: &str| {
            let (bytes, count) = (by(self.curves[0])?, by(self.curves[1])?);
            let (b, c) = (Trend::of(&bytes), Trend::of(&count));
            if !ADJUSTED.trends(&b, &c) {
                return None;
            }
            let comparison = models(count.len()).compare(&count);
            let why = (comparison.bic > ADJUSTED.bic).then(|| reasons::beneath(name, &c, comparison.bic))?;
            Some(Decision { adjusted_bytes: Some(bytes), ..Decision::leak(false, why) })
        };
        let wave = || {
            let rises = self.bytes.rise() > 0.0 && self.count.rise() > 0.0;
            rises.then(|| adjust(season::adjusted, "a regular wave of load")).flatten()
        };
        wave().or_else(|| adjust(surge::adjusted, "surges that pass"))
    }

    /// The comparison of models on live bytes (`of` = 0) or on live count (`of` = 1).
    fn compare(&self, of: usize) -> Comparison {
        models(self.curves[of].len()).compare(self.curves[of])
    }

    /// The exact numbers of bytes and of allocations that the site made and kept after `begins`, which is a
    /// position in the curve from 0 to 1. `None`: the numbers cannot be exact, for example because the site
    /// freed some allocations.
    fn kept_since(&self, begins: f64) -> Option<[f64; 2]> {
        let last = self.series.last();
        if last.allocs == 0 || last.frees > 0 || self.is_sizeless {
            return None;
        }
        let bucket = (begins * self.curves[0].min.len() as f64) as usize;
        let before = |of: usize| match bucket {
            // A site that appears during the record had 0 bytes before its first slice.
            0 if self.series.absent() > 0 => Some(0.0),
            bucket => self.curves[of].min.get(bucket).copied(),
        };
        Some([last.live_bytes as f64 - before(0)?, last.live_count as f64 - before(1)?])
    }

    /// The number of leaked allocations: `leaked` bytes, divided by the average size of the allocations by
    /// which the live count grew. `None`: the live count did not grow, because the same allocations got
    /// larger.
    fn leaked_count(&self, leaked: f64) -> Option<u64> {
        let live = self.curves[1].max.last().copied().unwrap_or(0.0);
        let (bytes, count) = (self.bytes.rise(), self.count.rise());
        if self.is_size_driven() || bytes <= 0.0 || count <= 0.0 {
            return None;
        }
        // If nearly all live bytes of a site have leaked, all its live allocations count as leaked.
        let held = self.curves[0].max.last().copied().unwrap_or(0.0);
        let all = leaked >= LEAKED_ALL * held;
        let leaked = if all { live } else { (leaked * count / bytes).clamp(1.0, live.max(1.0)) };
        Some(leaked.round() as u64)
    }

    /// Turns a decision (leak, no leak or undecided) into a judgement, which also has the leaked bytes
    /// and the rate. `curve_points` is the number of slices that the curves cover, which are the slices
    /// since the site was first seen, or all slices of the record.
    fn judgement(&self, decision: &Decision, curve_points: f64, period_s: f64) -> Judgement {
        let record = self.series.points().saturating_add(self.series.absent()) as f64;
        let why = decision.why.clone();
        if decision.verdict != Verdict::Leak {
            let spread = Line::through(&self.curves[0].mean).spread;
            let risen = self.bytes.eighths[7] - self.bytes.eighths[0];
            let class = if risen > spread.max(0.05 * self.bytes.full) { Class::Log } else { Class::Constant };
            let judgement = match decision.verdict {
                Verdict::Undecided => Judgement::undecided(class, record * period_s, why),
                _ => Judgement::no_leak(class, why),
            };
            let open_bytes = decision.open_bytes as u64;
            return Judgement { by_survivors: decision.by_survivors, open_bytes, ..judgement };
        }
        let bytes = decision.adjusted_bytes.as_ref().unwrap_or(self.curves[0]);
        let comparison = models(bytes.len()).compare(bytes);
        let class = if comparison.bend > 0.0 && self.bytes.pace > 0.6 { Class::Exp } else { Class::Linear };
        // The leaked bytes of a leak are at least 1, and at most the bytes that are live at the end.
        let live = self.curves[0].max.last().copied().unwrap_or(0.0);
        let by_births = decision.retained_bytes.filter(|retained| {
            // The function takes the retained bytes as the leaked bytes only if they are between half and
            // twice the growth of the fitted model. If the growth of the fitted model exceeds the live bytes,
            // the curve ends at a high point of a wave, so the growth is too large, and the retained bytes
            // have no lower limit.
            let low = if comparison.growth > live { 0.0 } else { 0.5 * comparison.growth };
            class == Class::Linear && *retained > low && *retained < 2.0 * comparison.growth
        });
        let estimated = by_births.unwrap_or(comparison.growth).clamp(1.0, live.max(1.0));
        let kept = self.kept_since(comparison.begins).filter(|[bytes, _]| is_near(*bytes, estimated));
        let leaked = kept.map_or(estimated, |[bytes, _]| bytes);
        // The rate does not include the time before the leak began. Over the whole record, a fast leak
        // that begins late would have a low rate, and a budget could tolerate the leak.
        let window = ((1.0 - comparison.begins) * curve_points).min(self.series.points() as f64);
        let window_s = window * period_s;
        let mean_rate = if window_s > 0.0 { leaked / window_s } else { 0.0 };
        // The pace of an exponential curve at its end is the pace at which the program goes on to leak. A
        // leak that begins late in the record also has such a curve.
        let [.., before, last] = self.bytes.eighths;
        let eighth_s = self.series.points() as f64 * period_s / 8.0;
        let rate_bytes_per_s = match class {
            Class::Exp if eighth_s > 0.0 => mean_rate.max((last - before) / eighth_s),
            _ => mean_rate,
        };
        let is_young = record * period_s < STRICT_SECONDS;
        let mut why = why;
        if decision.strict && is_young {
            why.push(reasons::young(STRICT_SECONDS));
        }
        Judgement {
            leak_bytes: leaked as u64,
            leak_count: match kept {
                Some([_, count]) => Some(count as u64),
                None => self.leaked_count(leaked),
            },
            rate_bytes_per_s,
            began_s: (record - window) * period_s,
            confidence: Some(match decision.strict && !is_young {
                true => Confidence::Strict,
                false => Confidence::Suspect,
            }),
            verdict: Verdict::Leak,
            by_survivors: decision.by_survivors,
            ..Judgement::no_leak(class, why)
        }
    }
}

/// Whether the bytes that a site kept differ from the estimated leak by a factor of less than 1.5. If the
/// kept bytes are more than 1.5 times the estimated leak, they include memory that the site loaded at the
/// start.
fn is_near(kept: f64, estimated: f64) -> bool {
    kept > estimated / 1.5 && kept < estimated * 1.5
}

fn judge_by_leak_factor(series: &Series, period_s: f64) -> Judgement {
    let factor = leak_factor(&series.sums().copied().unwrap_or_default());
    let leak = matches!(factor.class, Class::Linear | Class::Exp);
    let verdict = match (series.points(), leak) {
        (..3, _) => Verdict::Undecided,
        (_, true) => Verdict::Leak,
        (_, false) => Verdict::NoLeak,
    };
    let leak_bytes = if leak { u64::try_from(factor.leak_bytes).unwrap_or(0) } else { 0 };
    let span_s = series.points() as f64 * period_s;
    Judgement {
        class: factor.class,
        verdict,
        confidence: leak.then_some(Confidence::Suspect),
        leak_bytes,
        leak_count: (!leak).then_some(0),
        rate_bytes_per_s: if span_s > 0.0 { leak_bytes as f64 / span_s } else { 0.0 },
        began_s: if leak { series.absent() as f64 * period_s } else { 0.0 },
        why: vec![format!(
            "the fitted parabola gains {} bytes and bends by {:+.2}",
            factor.leak_bytes, factor.coef[0]
        )],
        record_longer_s: (verdict == Verdict::Undecided)
            .then(|| 3u64.saturating_sub(series.points()) as f64 * period_s),
        by_survivors: false,
        open_bytes: 0,
    }
}
