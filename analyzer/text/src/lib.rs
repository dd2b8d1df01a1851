//! Sizes, rates, durations and patterns as people write them. `edleak-record` and `edleak-analyze` accept the
//! same forms.
#![forbid(unsafe_code)]

pub mod error;
pub mod globs;
pub mod meter;
pub mod units;

pub use error::{Error, ErrorKind, Result};
