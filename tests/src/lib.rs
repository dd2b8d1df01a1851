//! What the end-to-end tests share: where the programs are, how one is run with a deadline, how a report is read.
//!
//! The tests run the release build of edleak-record, edleak-analyze and the preload, never a test build of them: what is
//! tested is what is shipped. `EDLEAK_BIN_DIR` names a directory that holds all three; without it they are built once.
//!
//! Nothing here sleeps and hopes. A test waits for a condition, and fails when its deadline is over.

#![deny(unsafe_code)]

pub mod browser;
pub mod directives;
pub mod ledger;
pub mod programs;
pub mod record;
pub mod report;
pub mod run;
pub mod temp;
pub mod terminal;
pub mod tools;
