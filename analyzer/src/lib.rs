//! After the fact: reads a recording and says who leaks, how fast, by which stack.
//!
//! ```text
//! 1 load       a trace (mapped, indexed), edLeak's JSON slices, or series lines
//! 2 replay     blocks to one series per site, in parallel, memory proportional to sites
//! 3 regression series to leak factor            4 classify   leak factor and shape to a verdict
//!   gate       what is listed and what fails: class, suppressions, baseline, budget
//! 5 symbolize  return addresses to frames, only of what may be listed
//! 6 report     text, JSON, series, folded stacks, JUnit, SARIF, GitHub annotations
//! ```
//!
//! Each phase borrows the one before and uses nothing of a later one.
#![deny(unsafe_code)]

pub mod analysis;
pub mod baseline;
pub mod classify;
pub mod diff;
pub mod error;
pub mod gate;
pub mod growth_kind;
pub mod identity;
pub mod judge;
pub mod load;
pub mod model;
pub mod naming;
pub mod regression;
pub mod replay;
pub mod report;
pub mod rewrite;
pub mod score;
pub mod series;
pub mod suppressions;
pub mod symbolize;
pub mod units;
pub mod verify;

pub use error::{Error, ErrorKind, Result};

use analysis::Analysis;
use classify::Model;
use gate::Policy;
use load::{LoadOptions, Recording};
use std::path::Path;
use symbolize::Symbolizer;

/// Loads, judges and symbolizes one recording; what the policy makes of it is decided over all of them ([`Policy::apply`]).
pub fn analyze(
    path: &Path,
    options: LoadOptions,
    model: Model,
    policy: &Policy,
    symbolizer: &Symbolizer,
) -> Result<(Recording, Analysis)> {
    let recording = load::load(path, options)?;
    let mut analysis = judge::judge_recording(path.display().to_string(), &recording, model);
    naming::name_sites(&mut analysis, &recording, symbolizer, |site| policy.wants(site));
    Ok((recording, analysis))
}
