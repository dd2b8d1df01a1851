//! How people write sizes, rates, durations and patterns: one grammar for both programs.
#![forbid(unsafe_code)]

pub mod error;
pub mod globs;
pub mod meter;
pub mod units;

pub use error::{Error, ErrorKind, Result};
