//! Tests the pipeline from trace to report and exit code, on small traces with known results.

mod bits;
mod cli;
mod domains;
mod formats;
mod gates;
mod profile;
mod programs;
mod text;
mod traces;
mod verdicts;
