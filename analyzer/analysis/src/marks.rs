//! The marks of a trace, and the verdicts by their iterations, as findings and sites hold them.

use edleak_model::iterations::Iterations;

/// One mark of a trace.
#[derive(Clone, PartialEq, Debug)]
pub struct MarkSeen {
    /// Its name.
    pub name: String,
    /// The name goes on, and the end of it is not known.
    pub is_cut: bool,
    /// How often it was set.
    pub count: u64,
    /// Its slices in the trace.
    pub slices: u64,
    /// When the collector read the first of them, seconds from the start.
    pub first_s: f64,
    /// When it read the last of them.
    pub last_s: f64,
}

/// The verdicts by marks.
#[derive(Clone, PartialEq, Debug)]
pub struct PerMark {
    /// The pattern that was asked for.
    pub pattern: String,
    /// The marks that match.
    pub marks: Vec<JudgedMark>,
    /// Marks of the trace that have no name, since a recording has room for 256.
    pub unnamed: u64,
}

/// A mark that sites were judged by.
#[derive(Clone, PartialEq, Debug)]
pub struct JudgedMark {
    /// Its name.
    pub name: String,
    /// Iterations from the first mark to the last slice.
    pub iterations: u64,
    /// Of those, the ones of the warm-up.
    pub warm_up: u64,
    /// Why they do not suffice.
    pub too_few: Option<String>,
}

/// What the iterations of one mark leave behind at a site.
#[derive(Clone, PartialEq, Debug)]
pub struct SitePerMark {
    /// The mark.
    pub mark: String,
    /// The verdict, and the figures.
    pub iterations: Iterations,
}
