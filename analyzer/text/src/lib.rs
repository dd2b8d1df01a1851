//! Reads and prints sizes, rates, durations and patterns as people write them. `edleak-record` and
//! `edleak-analyze` both use this crate, so they accept the same forms.
#![forbid(unsafe_code)]

pub mod error;
pub mod globs;
pub mod meter;
pub mod reason;
pub mod units;

pub use error::{Error, ErrorKind, Result};
