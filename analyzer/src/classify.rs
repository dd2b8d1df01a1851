//! Leak factor and shape to a verdict: which growth is a leak, how sure that is, and why.

use crate::model::bank::bank;
use crate::model::curve::Curve;
use crate::model::trend;
use crate::regression::{Class, leak_factor};
use crate::series::Series;

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
    /// The figures that decided, in words.
    pub why: Vec<String>,
    /// If undecided: how much longer to record.
    pub record_longer_s: Option<f64>,
}

/// Points below which no verdict is given.
const LEAST_POINTS: u64 = 12;

/// Judges one site of a record whose slices are `period_s` seconds apart.
pub fn judge(series: &Series, period_s: f64, model: Model) -> Judgement {
    match model {
        Model::Edleak => judge_edleak(series, period_s),
        Model::Growth => judge_growth(series, period_s),
    }
}

fn judge_growth(series: &Series, period_s: f64) -> Judgement {
    let total = series.points().saturating_add(series.absent());
    if series.points() == 0 || total < LEAST_POINTS {
        return Judgement {
            class: Class::Constant,
            verdict: Verdict::Undecided,
            confidence: None,
            leak_bytes: 0,
            rate_bytes_per_s: 0.0,
            why: vec![format!("only {total} of the {LEAST_POINTS} slices a verdict needs")],
            record_longer_s: Some((LEAST_POINTS - total) as f64 * period_s),
        };
    }
    let none = Judgement {
        class: Class::Constant,
        verdict: Verdict::NoLeak,
        confidence: None,
        leak_bytes: 0,
        rate_bytes_per_s: 0.0,
        why: Vec::new(),
        record_longer_s: None,
    };
    let Some(buckets) = series.buckets() else { return none };
    let (mut b, mut c) = (Curve::live_bytes(buckets), Curve::live_count(buckets));
    if series.points() < LEAST_POINTS || series.points() < total / 8 {
        b = b.after_absence(series.absent() / buckets.width());
        c = c.after_absence(series.absent() / buckets.width());
    }
    if b.full() <= 1.0 {
        return none;
    }
    let v = b.eighths();
    let n = c.eighths();
    let grow = |e: &[f64; 8]| trend::ratio(e[7], e[2]) - 1.0;
    let size_driven = v[2] > 0.0 && n[2] > 0.0 && grow(&v) > 0.05 && grow(&n) < 0.25 * grow(&v);
    let contest = bank(b.len()).contest(&b);
    let leak = if size_driven {
        trend::sav(&b) > 4.0
            && contest.bic > 0.0
            && trend::dec(&b) > 0.05
            && trend::mxe(&b) < 0.6
            && trend::t_after(&b, 0.25) > 2.0
    } else {
        trend::sav(&b).min(trend::sav(&c)) > 2.2
            && contest.bic > -0.9
            && trend::dec(&b).min(trend::dec(&c)) > 0.05
            && trend::mxe(&b).min(trend::mxe(&c)) < 0.87
            && trend::t_after(&b, 0.25) > 1.3
    };
    if !leak {
        let spread = trend::Line::through(&b.mean).spread;
        let class = if v[7] - v[0] > spread.max(0.05 * b.full()) { Class::Log } else { Class::Constant };
        return Judgement { class, ..none };
    }
    let class = if trend::dec(&b) > 0.65 { Class::Exp } else { Class::Linear };
    let leak_bytes = contest.growth.max(0.0) as u64;
    let window = (1.0 - contest.begins) * series.points() as f64 * period_s;
    Judgement {
        class,
        verdict: Verdict::Leak,
        confidence: Some(Confidence::Suspect),
        leak_bytes,
        rate_bytes_per_s: trend::ratio(leak_bytes as f64, window),
        ..none
    }
}

fn judge_edleak(series: &Series, period_s: f64) -> Judgement {
    let factor = leak_factor(series.sums());
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
        why: vec![format!(
            "the fitted parabola gains {} bytes and bends by {:+.2}",
            factor.leak_bytes, factor.coef[0]
        )],
        record_longer_s: (verdict == Verdict::Undecided)
            .then(|| 3u64.saturating_sub(series.points()) as f64 * period_s),
    }
}
