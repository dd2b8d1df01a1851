//! What a binary says: its functions and their names, the lines of its code, its rules to unwind, its calls.
//!
//! Return addresses become frames offline, from whatever files of the recorded build can be found. Reading order: `resolve.rs`
//! (a batch), `embedded.rs` (symbols inside the trace), `module.rs` (which files belong to a module), `cache.rs` (opened
//! modules), `dwarf.rs` and `split.rs` (frames), `symtab.rs` (functions only), `demangle.rs`, and `elf.rs`, `bounded.rs` (files
//! that may be hostile) below them all. For the collector: `file.rs` (functions, `malloc`), `names.rs`, `calls.rs`, `unwind.rs`.
#![deny(unsafe_code)]

mod bounded;
mod cache;
pub mod calls;
mod debuginfod;
mod demangle;
mod dwarf;
mod elf;
pub mod embedded;
pub mod file;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod module;
pub mod names;
mod outcome;
mod resolve;
mod split;
mod symtab;
pub mod unwind;

pub use demangle::demangle;
pub use outcome::{Outcome, Source};
pub use resolve::{Options, Request, Resolution, Resolved, Symbolizer};
