//! Leak factor and shape to a verdict: which growth is a leak, how sure that is, and why.

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

/// Judges one site of a record whose slices are `period_s` seconds apart.
pub fn judge(series: &Series, period_s: f64, model: Model) -> Judgement {
    let _ = model;
    judge_edleak(series, period_s)
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
