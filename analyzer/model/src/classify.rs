//! Leak factor and shape to a verdict: which growth is a leak, how sure that is, and why.

use crate::births::{Live, Survivors};
use crate::contest::{Contest, models};
use crate::curve::Curve;
use crate::reasons;
use crate::regression::{Class, leak_factor};
use crate::season;
use crate::series::Series;
use crate::surge;
use crate::trend::{self, Line, Trend};

mod quiet;

/// Which model judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// edleak's own: robust statistics, competing growth models, and the age of survivors where it is known.
    #[default]
    Growth,
    /// edLeak's leak factor of 2014, kept exact.
    Edleak,
}

/// Is it a leak?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Memory is retained at a rate that does not diminish.
    Leak,
    /// It is not, as far as the record goes.
    NoLeak,
    /// The record does not say.
    Undecided,
}

/// How sure a leak is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Good enough to look at: the default bar.
    Suspect,
    /// Good enough to fail a build: at most one false report in 300 sites that do not leak.
    Strict,
}

/// The verdict on one site.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The kind of growth.
    pub class: Class,
    /// Is it a leak?
    pub verdict: Verdict,
    /// How sure; only of a leak.
    pub confidence: Option<Confidence>,
    /// Bytes leaked over the record; 0 unless it is a leak.
    pub leak_bytes: u64,
    /// Leaked bytes per second while it leaked; 0 unless it is a leak.
    pub rate_bytes_per_s: f64,
    /// When it began to leak, from the start of the record; 0 unless it is a leak that began later.
    pub began_s: f64,
    /// The figures that decided, in words.
    pub why: Vec<String>,
    /// If undecided: how much longer to record.
    pub record_longer_s: Option<f64>,
    /// The age of what survived was known, and decided.
    pub by_survivors: bool,
    /// If undecided because the program stopped working while the site grew: the bytes in question, whatever was freed after that.
    pub open_bytes: u64,
}

/// Slices below which no verdict is given.
pub const LEAST_POINTS: u64 = 12;

/// A site that was there for less than this share of the record is judged over the whole record: growth seen
/// only at the very end is no evidence that it will go on.
const LEAST_PRESENCE: u64 = 8;

/// Judges one site of a record whose slices are `period_s` seconds apart.
pub fn judge(series: &Series, period_s: f64, model: Model) -> Judgement {
    match model {
        Model::Edleak => judge_edleak(series, period_s),
        Model::Growth => judge_growth(series, period_s),
    }
}

impl Judgement {
    /// Of a stack whose caller is the leak.
    pub fn part_of_a_leak(class: Class) -> Self {
        Self::no_leak(class, vec!["a part of its caller's leak".into()])
    }

    /// Of any site of a record with fewer slices than [`LEAST_POINTS`].
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
            rate_bytes_per_s: 0.0,
            began_s: 0.0,
            why,
            record_longer_s: None,
            by_survivors: false,
            open_bytes: 0,
        }
    }

    /// Of a site that only a longer record can tell a leak from.
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
    // Allocations of no size: what the allocator holds for them grows all the same.
    let is_sizeless = bytes.full() <= 1.0 && count.full() > 1.0;
    if is_sizeless {
        bytes = count.scaled(SMALLEST_BLOCK_BYTES);
    }
    if bytes.full() <= 1.0 {
        return Judgement::no_leak(Class::Constant, reasons::unmoved(series.points()));
    }
    let site = Site::new([&bytes, &count], series, is_sizeless);
    let mut ruling = match site.rule() {
        ruling if ruling.verdict == Verdict::Leak || is_brief => ruling,
        ruling => site.rule_of_busy_time(period_s).unwrap_or(ruling),
    };
    if is_sizeless && ruling.verdict != Verdict::NoLeak {
        ruling.why.push(reasons::sizeless(SMALLEST_BLOCK_BYTES));
        ruling.open_bytes = bytes.max.last().copied().unwrap_or(0.0);
    }
    let curve_points = if is_brief { record } else { series.points() };
    site.judgement(&ruling, curve_points as f64, period_s)
}

/// One site's curves and their trends: what the rules read.
struct Site<'a> {
    bytes: Trend,
    count: Trend,
    curves: [&'a Curve; 2],
    series: &'a Series,
    /// The curve of bytes is that of the count.
    is_sizeless: bool,
}

/// What the rules say.
struct Ruling {
    verdict: Verdict,
    strict: bool,
    /// The survivors' births were known, and decided.
    by_survivors: bool,
    /// What they say has leaked.
    retained_bytes: Option<f64>,
    /// The curve of live bytes without what hid the leak, where the verdict rests on that.
    adjusted_bytes: Option<Curve>,
    /// What is in question though some of it may have been freed.
    open_bytes: f64,
    why: Vec<String>,
}

impl Ruling {
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

/// What a trend must reach; all of them must hold. The figures are explained in docs/leak-factor.md.
struct Bar {
    rise_over_scatter: f64,
    pace: f64,
    largest_step: f64,
    second: f64,
    late_t: f64,
    bic: f64,
}

/// The default: both bytes and count must pass, the contest on count.
const SUSPECT: Bar =
    Bar { rise_over_scatter: 2.2, pace: 0.15, largest_step: 0.87, second: 0.6, late_t: 1.3, bic: -0.3 };
/// The same, for a verdict that may fail a build.
const STRICT: Bar =
    Bar { rise_over_scatter: 5.0, pace: 0.42, largest_step: 0.4, second: 0.6, late_t: 3.0, bic: 3.5 };
/// ... and so many allocations kept: however even, a few are a few things that happened once each.
const STRICT_EVENTS: f64 = 12.0;
/// What an allocator holds for the smallest allocation: glibc's malloc, 32 bytes.
const SMALLEST_BLOCK_BYTES: f64 = 32.0;
/// ... over so many seconds: a program that young may still be building up what it needs, steadily.
pub const STRICT_SECONDS: f64 = 2.0;
/// Where more was freed than is left, so many allocations have to be left over: fewer are what one busier moment leaves behind.
const LEAST_EVENTS: f64 = 8.0;
/// After a wave or surges have been taken out: stricter, since the adjustment has chosen what suited best.
const ADJUSTED: Bar =
    Bar { rise_over_scatter: 4.0, pace: 0.15, largest_step: 0.87, second: 0.6, late_t: 4.0, bic: 0.0 };
/// For allocations that get bigger rather than more: only bytes speak.
const BIGGER: Bar =
    Bar { rise_over_scatter: 4.0, pace: 0.05, largest_step: 0.6, second: 0.6, late_t: 2.0, bic: 0.0 };
const BIGGER_STRICT: Bar =
    Bar { rise_over_scatter: 8.0, pace: 0.3, largest_step: 0.3, second: 0.6, late_t: 4.0, bic: 2.0 };
/// Growth so plain that, where a cache explains it as well, the record is undecided and not clean.
const PLAIN: Bar =
    Bar { rise_over_scatter: 4.0, pace: 0.35, largest_step: 0.5, second: 0.6, late_t: 2.5, bic: -1.5 };

/// Log odds of the survivors' score up to which it is no leak, from which a leak is suspected, and from which it is certain enough to
/// fail a build. What lies between the first two may as well be the one as the other.
const SURVIVORS_NO_LEAK: f64 = -0.9;
const SURVIVORS_SUSPECT: f64 = 0.4;
const SURVIVORS_STRICT: f64 = 4.8;
/// What is said to survive, and of which less than this share is live in the end, was freed meanwhile: no leak that anybody
/// could find, and no release that is part of the program's work either.
const LEAST_LEFT: f64 = 0.25;
/// What the contest on the live count must say as well, beside a pace that does not slacken: what stops late leaves the same
/// survivors as a leak.
const SURVIVORS_STRICT_BIC: f64 = 2.0;

impl Bar {
    fn trend(&self, t: &Trend) -> bool {
        t.rise_over_scatter > self.rise_over_scatter
            && t.pace > self.pace
            && t.largest_step < self.largest_step
            && t.second < self.second
            && t.late_t > self.late_t
    }

    /// Bytes and count together: the weaker rise, the smaller jump of the two.
    fn trends(&self, b: &Trend, c: &Trend) -> bool {
        b.rise_over_scatter.min(c.rise_over_scatter) > self.rise_over_scatter
            && b.pace.min(c.pace) > self.pace
            && b.largest_step.min(c.largest_step) < self.largest_step
            && b.second.min(c.second) < self.second
            && b.late_t > self.late_t
    }
}

impl<'a> Site<'a> {
    /// Of 12 buckets or more.
    fn new(curves: [&'a Curve; 2], series: &'a Series, is_sizeless: bool) -> Self {
        Self { bytes: Trend::of(curves[0]), count: Trend::of(curves[1]), curves, series, is_sizeless }
    }

    fn rule(&self) -> Ruling {
        if self.is_size_driven() { self.rule_size_driven() } else { self.rule_by_births_or_curves() }
    }

    /// Bytes grow and the count does not: the same allocations get bigger.
    fn is_size_driven(&self) -> bool {
        let growth = |t: &Trend| trend::ratio(t.eighths[7], t.eighths[2]) - 1.0;
        let (b, c) = (growth(&self.bytes), growth(&self.count));
        self.bytes.eighths[2] > 0.0 && self.count.eighths[2] > 0.0 && b > 0.0 && c < 0.25 * b
    }

    fn rule_size_driven(&self) -> Ruling {
        if !BIGGER.trend(&self.bytes) {
            return match trend::doubles_late(self.curves[0]) {
                true => Ruling::not(Verdict::Undecided, reasons::doubles()),
                false => Ruling::not(Verdict::NoLeak, reasons::weakest(&self.bytes)),
            };
        }
        let contest = self.contest(0);
        if contest.bic <= BIGGER.bic {
            return Ruling::not(Verdict::NoLeak, reasons::fills(contest.bic));
        }
        let strict = BIGGER_STRICT.trend(&self.bytes) && contest.bic > BIGGER_STRICT.bic;
        Ruling::leak(strict, reasons::bigger(&self.bytes, contest.bic))
    }

    fn rule_by_births_or_curves(&self) -> Ruling {
        if let Some(births) = self.series.survivors() {
            let live = Live {
                curves: self.curves,
                trends: [&self.bytes, &self.count],
                contest: self.contest(1),
                points: self.series.points() as f64,
            };
            if let Some(survivors) = Survivors::of(births, &live) {
                let why = reasons::survivors(&survivors, &self.count, live.contest.bic);
                let strict = survivors.log_odds > SURVIVORS_STRICT
                    && live.contest.bic > SURVIVORS_STRICT_BIC
                    && self.bytes.pace.min(self.count.pace) > STRICT.pace;
                let at_the_end = self.curves[0].max.last().copied().unwrap_or(0.0);
                let ruling = match survivors.log_odds {
                    odds if odds > SURVIVORS_SUSPECT
                        && at_the_end < LEAST_LEFT * survivors.retained_bytes =>
                    {
                        Ruling::not(Verdict::Undecided, reasons::freed_before_the_end(&survivors))
                    }
                    odds if odds > SURVIVORS_SUSPECT => {
                        Ruling { retained_bytes: Some(survivors.retained_bytes), ..Ruling::leak(strict, why) }
                    }
                    odds if odds > SURVIVORS_NO_LEAK => Ruling::not(Verdict::Undecided, why),
                    _ => Ruling::not(Verdict::NoLeak, why),
                };
                return Ruling { by_survivors: true, ..ruling };
            }
        }
        let ruling = self.rule_of_curves();
        match ruling.verdict {
            Verdict::Leak if self.is_a_few_of_many() => {
                Ruling::not(Verdict::Undecided, reasons::a_few(self.count.rise(), self.series.last().frees))
            }
            _ => ruling,
        }
    }

    /// What is kept is a handful, beside so much that was freed.
    fn is_a_few_of_many(&self) -> bool {
        let last = self.series.last();
        self.count.rise() < LEAST_EVENTS && last.frees > last.allocs.saturating_sub(last.frees)
    }

    /// Cheap tests first: the contest of models costs more than all else together.
    fn rule_of_curves(&self) -> Ruling {
        let (b, c) = (&self.bytes, &self.count);
        let mut bic = None;
        if SUSPECT.trends(b, c) {
            let contest = self.contest(1);
            if contest.bic > SUSPECT.bic {
                let strict = STRICT.trends(b, c)
                    && contest.bic > STRICT.bic
                    && self.contest(0).bic > 0.0
                    && c.eighths[7] - c.eighths[0] >= STRICT_EVENTS;
                return Ruling::leak(strict, reasons::grows(c, contest.bic));
            }
            bic = Some(contest.bic);
        }
        if let Some(ruling) = self.rule_without_waves_and_surges() {
            return ruling;
        }
        match bic {
            None => Ruling::not(
                Verdict::NoLeak,
                reasons::weakest(if b.rise_over_scatter < c.rise_over_scatter { b } else { c }),
            ),
            Some(bic) if bic > PLAIN.bic && PLAIN.trends(b, c) => {
                Ruling::not(Verdict::Undecided, reasons::ambiguous(c))
            }
            Some(bic) => Ruling::not(Verdict::NoLeak, reasons::fills(bic)),
        }
    }

    /// What hides a leak is taken out first: a regular wave, or else the surges that pass.
    fn rule_without_waves_and_surges(&self) -> Option<Ruling> {
        let adjust = |by: fn(&Curve) -> Option<Curve>, name: &str| {
            let (bytes, count) = (by(self.curves[0])?, by(self.curves[1])?);
            let (b, c) = (Trend::of(&bytes), Trend::of(&count));
            if !ADJUSTED.trends(&b, &c) {
                return None;
            }
            let contest = models(count.len()).contest(&count);
            let why = (contest.bic > ADJUSTED.bic).then(|| reasons::beneath(name, &c, contest.bic))?;
            Some(Ruling { adjusted_bytes: Some(bytes), ..Ruling::leak(false, why) })
        };
        let wave = || {
            let rises = self.bytes.rise() > 0.0 && self.count.rise() > 0.0;
            rises.then(|| adjust(season::adjusted, "a regular wave of load")).flatten()
        };
        wave().or_else(|| adjust(surge::adjusted, "surges that pass"))
    }

    /// The contest of models on live bytes (0) or live count (1).
    fn contest(&self, of: usize) -> Contest {
        models(self.curves[of].len()).contest(self.curves[of])
    }

    /// What was allocated from `begins` (0…1 of the curve) on, if the site has never freed anything: that is no estimate.
    fn kept_since(&self, begins: f64) -> Option<f64> {
        let last = self.series.last();
        if last.allocs == 0 || last.frees > 0 || self.is_sizeless {
            return None;
        }
        let least = &self.curves[0].min;
        let before = match (begins * least.len() as f64) as usize {
            // Of what appears during the record all is new.
            0 if self.series.absent() > 0 => 0.0,
            bucket => *least.get(bucket)?,
        };
        Some(last.live_bytes as f64 - before)
    }

    /// The curves span `curve_points`: the site's own, or the whole record's.
    fn judgement(&self, ruling: &Ruling, curve_points: f64, period_s: f64) -> Judgement {
        let record = self.series.points().saturating_add(self.series.absent()) as f64;
        let why = ruling.why.clone();
        if ruling.verdict != Verdict::Leak {
            let spread = Line::through(&self.curves[0].mean).spread;
            let risen = self.bytes.eighths[7] - self.bytes.eighths[0];
            let class = if risen > spread.max(0.05 * self.bytes.full) { Class::Log } else { Class::Constant };
            let judgement = match ruling.verdict {
                Verdict::Undecided => Judgement::undecided(class, record * period_s, why),
                _ => Judgement::no_leak(class, why),
            };
            let open_bytes = ruling.open_bytes as u64;
            return Judgement { by_survivors: ruling.by_survivors, open_bytes, ..judgement };
        }
        let bytes = ruling.adjusted_bytes.as_ref().unwrap_or(self.curves[0]);
        let contest = models(bytes.len()).contest(bytes);
        let class = if contest.bend > 0.0 && self.bytes.pace > 0.6 { Class::Exp } else { Class::Linear };
        // No more can have leaked than is live in the end, and a leak is more than nothing.
        let live = self.curves[0].max.last().copied().unwrap_or(0.0);
        let by_births = ruling.retained_bytes.filter(|retained| {
            // A curve that seems to gain more than is there ends high in a wave, and knows nothing.
            let low = if contest.growth > live { 0.0 } else { 0.5 * contest.growth };
            class == Class::Linear && *retained > low && *retained < 2.0 * contest.growth
        });
        let estimated = by_births.unwrap_or(contest.growth).clamp(1.0, live.max(1.0));
        let leaked =
            self.kept_since(contest.begins).filter(|kept| is_near(*kept, estimated)).unwrap_or(estimated);
        // A rate over the time before it began would let a gate pass what leaks fast and late.
        let window = ((1.0 - contest.begins) * curve_points).min(self.series.points() as f64);
        let window_s = window * period_s;
        let is_young = record * period_s < STRICT_SECONDS;
        let mut why = why;
        if ruling.strict && is_young {
            why.push(reasons::young(STRICT_SECONDS));
        }
        Judgement {
            leak_bytes: leaked as u64,
            rate_bytes_per_s: if window_s > 0.0 { leaked / window_s } else { 0.0 },
            began_s: (record - window) * period_s,
            confidence: Some(match ruling.strict && !is_young {
                true => Confidence::Strict,
                false => Confidence::Suspect,
            }),
            verdict: Verdict::Leak,
            by_survivors: ruling.by_survivors,
            ..Judgement::no_leak(class, why)
        }
    }
}

/// Whether all that was kept may be the leak: if it is much more than the estimate, a base that loads is in it.
fn is_near(kept: f64, estimated: f64) -> bool {
    kept > estimated / 1.5 && kept < estimated * 1.5
}

fn judge_edleak(series: &Series, period_s: f64) -> Judgement {
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
