//! A trace to findings: which sites leak, how fast, by which stack.
//!
//! ```text
//! 1 load       a trace (mapped, indexed), edLeak's JSON slices, or series lines
//! 2 replay     blocks to one series per site, in parallel, memory proportional to sites
//! 3 judge      series to verdicts, by the model; families are settled
//! 4 gate       what is listed and what fails: class, suppressions, baseline, budget
//! 5 naming     return addresses to frames, only of sites that may be listed
//!   profile    who held the memory at one instant, what a range left behind; only if asked
//! ```
//!
//! Each phase borrows the one before and uses nothing of a later one.
#![deny(unsafe_code)]
#![warn(unreachable_pub)]

pub mod baseline;
pub mod diff;
pub mod error;
pub mod findings;
pub mod frame;
pub mod gate;
pub mod group;
pub mod history;
pub mod identity;
pub mod judge;
pub mod load;
pub mod naming;
pub mod outlook;
pub mod own_heap;
pub mod profile;
pub mod replay;
pub mod rewrite;
pub mod score;
pub mod site;
pub mod slices;
pub mod suppressions;
pub mod unexplained;
pub mod verify;

pub use error::{Error, ErrorKind, Result};

use edleak_binary::Symbolizer;
use edleak_model::classify::Model;
use findings::Findings;
use gate::Policy;
use load::{LoadOptions, Recording};
use std::path::Path;

/// Loads, judges and symbolizes one recording; what the policy makes of it is decided over all of them ([`Policy::apply`]).
///
/// # Errors
/// If the recording cannot be read.
pub fn analyze(
    path: &Path,
    options: LoadOptions,
    model: Model,
    policy: &Policy,
    symbolizer: &Symbolizer,
) -> Result<(Recording, Findings)> {
    let recording = load::load(path, options)?;
    let mut findings = judge::judge_recording(path.display().to_string(), &recording, model);
    naming::name_sites(&mut findings, &recording, symbolizer, |site| policy.wants(site));
    Ok((recording, findings))
}
