//! Measures the accuracy of the models on a labelled corpus, which is a collection of series with known
//! answers. The result says how often a verdict is right: for each behaviour of a program (such as a cache,
//! or a steady leak), and for series of each length.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use edleak_model::classify::{Confidence, Judgement, Model, Verdict, judge};
use edleak_model::growth_class::Class;
use edleak_model::series::{Births, Point, Series, SeriesBuilder};

/// One line of the corpus, which is a labelled series. The reader ignores unknown fields. The number of
/// surviving allocations of each birth epoch may be in this line, or in a separate file.
#[derive(Debug, Deserialize)]
struct Curve {
    id: String,
    family: String,
    label: Label,
    shape: String,
    period_s: f64,
    live_bytes: Vec<u64>,
    live_count: Vec<u64>,
    allocs: Vec<u64>,
    frees: Vec<u64>,
    leak_bytes: Option<f64>,
    #[serde(flatten)]
    births: BirthFields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Label {
    Leak,
    NotLeak,
}

/// For each birth epoch of one series, the allocations that are still live at the end; all fields are
/// optional.
#[derive(Clone, Debug, Default, Deserialize)]
struct BirthFields {
    epoch_live_bytes: Option<Vec<u64>>,
    epoch_live_count: Option<Vec<u64>>,
    epoch_allocs: Option<Vec<u64>>,
    last_free_slice: Option<f64>,
    max_age_at_free: Option<f64>,
}

impl BirthFields {
    fn into_births(self) -> Option<Births> {
        Some(Births {
            epoch_live_bytes: self.epoch_live_bytes?,
            epoch_live_count: self.epoch_live_count?,
            epoch_allocs: self.epoch_allocs?,
            last_free_slice: self.last_free_slice.unwrap_or(0.0),
            max_age_at_free: self.max_age_at_free.unwrap_or(0.0),
        })
    }
}

/// One line of the separate file that gives the surviving allocations for each birth epoch.
#[derive(Debug, Deserialize)]
struct BirthLine {
    id: String,
    leak_bytes: Option<f64>,
    #[serde(flatten)]
    births: BirthFields,
}

/// One series of the corpus, ready to be judged.
#[derive(Debug)]
pub struct Case {
    /// The id of the series in the corpus.
    pub id: String,
    /// The name of the behaviour of the program that produced the series, such as `ttl_cache` or
    /// `leak_linear`.
    pub family: String,
    /// Whether the series is a leak.
    pub leaks: bool,
    /// The kind of growth, as the corpus names it.
    pub shape: String,
    /// Seconds between two slices.
    pub period_s: f64,
    /// The true number of leaked bytes, if the corpus gives it.
    pub leak_bytes: Option<f64>,
    /// Two versions of the series: the first has no birth times of the surviving allocations, and the second
    /// has these times.
    pub series: [Series; 2],
}

/// Reads a labelled corpus. If `births` is given, the function reads the birth times of the surviving
/// allocations from this file. Each line of the file gives the id of the series to which its birth times
/// belong.
///
/// # Errors
/// The corpus cannot be read, or a line of it has a wrong form.
fn read(corpus: &Path, births: Option<&Path>) -> Result<Vec<Case>> {
    let mut known: HashMap<String, BirthLine> = HashMap::new();
    if let Some(path) = births {
        known = lines::<BirthLine>(path)?.into_iter().map(|line| (line.id.clone(), line)).collect();
    }
    Ok(lines::<Curve>(corpus)?
        .into_iter()
        .map(|curve| {
            let line = known.remove(&curve.id);
            let (bytes, births) = line.map_or((None, None), |l| (l.leak_bytes, l.births.into_births()));
            let mut builder = SeriesBuilder::new();
            for (((b, c), a), f) in
                curve.live_bytes.iter().zip(&curve.live_count).zip(&curve.allocs).zip(&curve.frees)
            {
                builder.push(Point { live_bytes: *b, live_count: *c, allocs: *a, frees: *f });
            }
            let plain = builder.clone().finish();
            if let Some(births) = curve.births.into_births().or(births) {
                builder.births(births);
            }
            Case {
                id: curve.id,
                family: curve.family,
                leaks: curve.label == Label::Leak,
                shape: curve.shape,
                period_s: curve.period_s,
                leak_bytes: curve.leak_bytes.or(bytes),
                series: [plain, builder.finish()],
            }
        })
        .collect())
}

fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Vec<T>> {
    let name = path.display();
    let file = File::open(path).map_err(|e| {
        Error::new(ErrorKind::Io, format!("failed to read corpus `{name}`: {e}"))
            .with_remedy("give a file of labelled series")
    })?;
    let fault = |line: usize, why: String| {
        Error::new(ErrorKind::Unreadable, format!("line {line} of corpus `{name}`: {why}"))
            .with_remedy("correct or remove the line")
    };
    let mut read = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|e| fault(i + 1, e.to_string()))?;
        if !line.trim().is_empty() {
            read.push(serde_json::from_str(&line).map_err(|e| fault(i + 1, e.to_string()))?);
        }
    }
    Ok(read)
}

/// The result of one method on a corpus, or on a part of the corpus.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Number of series that leak and that the method reported as leaks.
    pub(crate) found: u32,
    /// Number of series that leak and that the method did not report.
    pub(crate) missed: u32,
    /// Number of series that do not leak, but that the method reported as leaks.
    pub false_alarms: u32,
    /// Number of series that do not leak and that the method did not report.
    pub quiet: u32,
    /// Two numbers of series that the method reported with the confidence `Strict`: the first counts series
    /// that leak, and the second counts series that do not leak.
    pub strict: [u32; 2],
    /// Number of series that the method left undecided.
    pub(crate) undecided: u32,
    /// Two numbers, which show how exact the estimates of leaked bytes are. The first number counts the leaks
    /// whose true number of bytes is known. The second number counts the leaks among them whose estimated
    /// number of bytes differs from the true number by at most a quarter.
    pub(crate) amounts: [u32; 2],
    /// Number of series for each true shape of growth (constant, log, linear, exp; first index) and for each
    /// class of growth that the method found (second index).
    pub(crate) shapes: [[u32; 4]; 4],
}

impl Tally {
    fn add(&mut self, case: &Case, judged: &Judgement) {
        let reported = judged.verdict == Verdict::Leak;
        match (case.leaks, reported) {
            (true, true) => self.found += 1,
            (true, false) => self.missed += 1,
            (false, true) => self.false_alarms += 1,
            (false, false) => self.quiet += 1,
        }
        self.undecided += u32::from(judged.verdict == Verdict::Undecided);
        if reported && judged.confidence == Some(Confidence::Strict) {
            self.strict[usize::from(!case.leaks)] += 1;
        }
        if let (true, true, Some(truth)) = (case.leaks, reported, case.leak_bytes) {
            self.amounts[0] += 1;
            self.amounts[1] += u32::from((judged.leak_bytes as f64 - truth).abs() <= 0.25 * truth);
        }
        let shapes = [Class::Constant, Class::Log, Class::Linear, Class::Exp];
        if let Some(truth) = shapes.iter().position(|class| class.name() == case.shape) {
            self.shapes[truth][judged.class as usize] += 1;
        }
    }

    /// Of the series that the method reported as leaks, the share that really leaks.
    pub fn precision(&self) -> f64 {
        share(self.found, self.found + self.false_alarms)
    }

    /// The share of the leaks in the corpus that the method reported.
    pub fn recall(&self) -> f64 {
        share(self.found, self.found + self.missed)
    }

    /// The harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        share(2 * self.found, 2 * self.found + self.false_alarms + self.missed)
    }

    /// Of the series that do not leak, the share that the method reported as leaks.
    pub fn false_positive_rate(&self) -> f64 {
        share(self.false_alarms, self.false_alarms + self.quiet)
    }

    /// The share of right classes of growth, among the series whose true shape is constant, log, linear or
    /// exp.
    pub fn shape_accuracy(&self) -> f64 {
        let right = (0..4).map(|i| self.shapes[i][i]).sum();
        share(right, self.shapes.iter().flatten().sum())
    }

    /// Of the reported leaks whose true number of bytes is known, the share for which the estimate differs
    /// from the true number by at most a quarter.
    pub fn amount_accuracy(&self) -> f64 {
        share(self.amounts[1], self.amounts[0])
    }

    /// Of all series, the share for which the method gave the right verdict.
    fn accuracy(&self) -> f64 {
        share(self.found + self.quiet, self.found + self.missed + self.false_alarms + self.quiet)
    }
}

fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
}

/// The names of the three methods that judge a corpus.
const METHODS: [&str; 3] = ["edleak formula", "curves only", "with births"];

/// The scores of every method on a whole corpus and on parts of the corpus.
#[derive(Debug, Default)]
pub struct ScoreReport {
    /// The scores on the whole corpus. The methods are, in this order: `edleak formula`, `curves only`,
    /// `with births`. The entry of the method `with births` is empty if the birth times of the surviving
    /// allocations are not known.
    pub all: [Tally; 3],
    /// The scores on the series of each behaviour of a program; the key is the name of the behaviour, such as
    /// `ttl_cache` or `leak_linear`.
    pub(crate) families: BTreeMap<String, [Tally; 3]>,
    /// The scores on the series of each length; the key is the number of slices.
    pub(crate) lengths: BTreeMap<u64, [Tally; 3]>,
    /// Whether the birth times of the surviving allocations were known for every series.
    pub has_births: bool,
}

/// Scores a corpus of labelled series. `births` is a separate file with the birth times of the surviving
/// allocations; each of its lines names the id of a series.
///
/// # Errors
/// The corpus cannot be read, or the corpus has no series.
pub fn run(corpus: &Path, births: Option<&Path>) -> Result<ScoreReport> {
    let cases = read(corpus, births)?;
    if cases.is_empty() {
        let message = format!("`{}` holds no series", corpus.display());
        return Err(Error::new(ErrorKind::Unreadable, message).with_remedy("give labelled series lines"));
    }
    Ok(score(&cases))
}

/// Judges all series of a corpus with each method, and counts the right and the wrong verdicts.
pub fn score(cases: &[Case]) -> ScoreReport {
    let judged: Vec<[Judgement; 3]> = cases
        .par_iter()
        .map(|case| {
            let [plain, born] = &case.series;
            [(plain, Model::LeakFactor), (plain, Model::Growth), (born, Model::Growth)]
                .map(|(series, model)| judge(series, case.period_s, model))
        })
        .collect();
    let has_births = !cases.is_empty() && cases.iter().all(|case| case.series[1].survivors().is_some());
    let mut report = ScoreReport { has_births, ..ScoreReport::default() };
    for (case, judged) in cases.iter().zip(&judged) {
        let family = report.families.entry(case.family.clone()).or_default();
        let length = report.lengths.entry(case.series[0].points()).or_default();
        for (method, judged) in judged.iter().enumerate().take(if has_births { 3 } else { 2 }) {
            report.all[method].add(case, judged);
            family[method].add(case, judged);
            length[method].add(case, judged);
        }
    }
    report
}

impl fmt::Display for ScoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods = if self.has_births { 3 } else { 2 };
        writeln!(
            f,
            "method           precision  recall     F1    FPR  shape  amount  strict found/false  undecided"
        )?;
        for (name, t) in METHODS.iter().zip(&self.all).take(methods) {
            writeln!(
                f,
                "{name:<16} {:>9.3} {:>7.3} {:>6.3} {:>6.3} {:>6.3} {:>7.3} {:>12}/{:<5} {:>10}",
                t.precision(),
                t.recall(),
                t.f1(),
                t.false_positive_rate(),
                t.shape_accuracy(),
                t.amount_accuracy(),
                t.strict[0],
                t.strict[1],
                t.undecided
            )?;
        }
        writeln!(f, "\nslices     F1 by method")?;
        for (slices, t) in &self.lengths {
            write!(f, "{slices:<8}")?;
            t.iter().take(methods).try_for_each(|t| write!(f, " {:>6.3}", t.f1()))?;
            writeln!(f)?;
        }
        writeln!(f, "\nfamily               judged rightly, by method")?;
        for (family, t) in &self.families {
            write!(f, "{family:<20}")?;
            t.iter().take(methods).try_for_each(|t| write!(f, " {:>6.3}", t.accuracy()))?;
            writeln!(f)?;
        }
        for (name, t) in METHODS.iter().zip(&self.all).take(methods) {
            writeln!(f, "\n{name}: true shape (rows) and class given (constant, log, linear, exp)")?;
            for (shape, row) in ["constant", "log", "linear", "exp"].iter().zip(&t.shapes) {
                writeln!(f, "{shape:<10} {:>6} {:>6} {:>6} {:>6}", row[0], row[1], row[2], row[3])?;
            }
        }
        Ok(())
    }
}
