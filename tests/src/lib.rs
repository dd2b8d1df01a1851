//! Shared code of the end-to-end tests: finds the programs, runs them with a deadline, reads reports.
//!
//! The tests run the release build of edleak-record, edleak-analyze and the preload library, as users do. The
//! variable `EDLEAK_BIN_DIR` names the directory of the built programs and of the library. If this variable
//! is not set, the first test builds the programs and the library.
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
pub mod module_uses;
pub mod programs;
pub mod record;
pub mod report;
pub mod run;
pub mod sources;
pub mod temp;
pub mod terminal;
pub mod tools;
