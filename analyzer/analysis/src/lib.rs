//! Turns a trace into findings: which sites leak, how many bytes per second they leak, and which stacks lead
//! to them.
//!
//! ```text
//! 1 load       a trace (mapped, indexed), edLeak's JSON slices, or series lines
//! 2 replay     turns blocks into one series per site, in parallel; memory grows with the number of sites
//! 3 judge      the model turns series into verdicts; a watched site is judged together with its stacks
//!   per_mark   verdicts by the iterations of a mark instead of by time; only if asked
//! 4 gate       which sites are listed, and which fail the build, by class, suppressions, baseline and budget
//! 5 naming     turns return addresses into frames, only for sites that may be listed
//!   steps      leaks that grow in step, to list them as one finding
//!   profile    the memory of each site at one instant, or its change in a range; only if asked
//! ```
//!
//! Each phase borrows the result of the previous phase and uses no code of a later phase.
#![deny(unsafe_code)]

pub mod analysis;
pub mod baseline;
mod common_function;
pub mod diff;
mod error;
pub mod finding;
pub mod frame;
pub mod gate;
pub mod group;
pub mod history;
mod identity;
pub mod judge;
pub mod load;
pub mod mapped;
mod marks;
pub mod naming;
pub mod outlook;
mod own_heap;
mod parting;
pub mod per_mark;
pub mod pools;
pub mod profile;
pub mod replacement;
pub mod replay;
pub mod rewrite;
pub mod score;
pub mod site;
mod slices;
mod steps;
pub mod suppressions;
pub mod uncounted;
mod unexplained;
pub mod verify;

pub use error::{Error, ErrorKind, Result};

use analysis::Analysis;
use edleak_binary::Symbolizer;
use edleak_model::classify::Model;
use gate::Policy;
use load::{Input, LoadOptions};
use std::path::Path;

/// Loads and judges one recording, and looks up the symbols of its sites. The caller must then call
/// [`Policy::apply`] once for all recordings, so that the gate decides which sites are listed.
///
/// # Errors
/// The recording cannot be read.
pub fn analyze(
    path: &Path,
    options: LoadOptions,
    model: Model,
    policy: &Policy,
    symbolizer: &Symbolizer,
) -> Result<(Input, Analysis)> {
    let recording = load::load(path, options)?;
    let mut analysis = judge::judge_recording(path.display().to_string(), &recording, model);
    if let Some(options) = &policy.per_mark {
        per_mark::judge_by_marks(&mut analysis, &recording, options);
    }
    naming::name_sites(&mut analysis, &recording, symbolizer, |site| policy.wants(site));
    analysis.steps = steps::Steps::of(&recording, &analysis.sites);
    Ok((recording, analysis))
}
