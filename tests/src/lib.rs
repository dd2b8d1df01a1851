//! Shared code of the end-to-end tests: finds the programs, runs them with a deadline, reads reports.
//!
//! The tests run the release build of edleak-record, edleak-analyze and the preload, as users do.
//! If `EDLEAK_BIN_DIR` is set, it names the directory with all three. Otherwise the first test builds them
//! once.
//!
//! No test relies on a sleep of fixed length. Each test waits for a condition and fails after a deadline.

#![deny(unsafe_code)]

pub mod analyze;
pub mod browser;
pub mod cycles;
pub mod directives;
pub mod fed;
pub mod ledger;
pub mod ledger_program;
pub mod programs;
pub mod record;
pub mod report;
pub mod run;
pub mod temp;
pub mod terminal;
pub mod tools;
