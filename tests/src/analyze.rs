//! Runs edleak-analyze.

use crate::run::{Outcome, run};
use crate::tools::tools;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Runs `edleak-analyze OPTIONS TRACE`.
pub fn analyze<S: AsRef<OsStr>>(options: impl IntoIterator<Item = S>, trace: &Path) -> Outcome {
    run(Command::new(&tools().analyze).args(options).arg(trace))
}
