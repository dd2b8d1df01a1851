//! How people write sizes, rates, durations and patterns: one grammar for both programs.
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

pub mod error;
pub mod globs;
pub mod meter;
pub mod units;

pub use error::{Error, ErrorKind, Result};
