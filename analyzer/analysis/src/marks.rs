//! The types for the marks of a trace, and for verdicts by the iterations of a mark (`--per-mark`). The
//! structs `Analysis` and `JudgedSite` contain these types.

use edleak_model::iterations::Iterations;

/// One mark of a trace.
#[derive(Clone, PartialEq, Debug)]
pub struct MarkSeen {
    /// The name of the mark.
    pub name: String,
    /// Whether the name of the mark was too long, so that the trace has only the beginning of the name.
    pub is_cut: bool,
    /// How often the program set the mark.
    pub count: u64,
    /// Number of slices in the trace that were taken because the program set this mark.
    pub slices: u64,
    /// Seconds from the start of the recording until the collector read the first slice of this mark.
    pub first_s: f64,
    /// Seconds from the start of the recording until the collector read the last slice of this mark.
    pub last_s: f64,
}

/// The result of `--per-mark`: the marks by whose iterations the sites were judged.
#[derive(Clone, PartialEq, Debug)]
pub struct PerMark {
    /// The pattern of `--per-mark`.
    pub pattern: String,
    /// The marks whose name matches the pattern of `--per-mark`.
    pub marks: Vec<JudgedMark>,
    /// Number of marks whose name is not in the trace, because a trace stores at most 256 names of marks.
    pub unnamed: u64,
}

/// A mark by whose iterations the sites were judged.
#[derive(Clone, PartialEq, Debug)]
pub struct JudgedMark {
    /// The name of the mark.
    pub name: String,
    /// Number of iterations from the first slice of the mark to the last.
    pub iterations: u64,
    /// Number of iterations that belong to the warm-up, which is not judged.
    pub warm_up: u64,
    /// If the mark has too few iterations for a verdict, the message about this; `None`: there are enough
    /// iterations.
    pub too_few: Option<String>,
}

/// The verdict on a site by the iterations of one mark.
#[derive(Clone, PartialEq, Debug)]
pub struct SitePerMark {
    /// The name of the mark.
    pub mark: String,
    /// The verdict, and the memory that the iterations of the mark leave behind at the site.
    pub iterations: Iterations,
}
