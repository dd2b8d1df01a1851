//! Phase 5: return addresses to frames, offline, from whatever files of the recorded build can be found.
//!
//! Reading order: `resolve.rs` (a batch), `embedded.rs` (symbols inside the trace), `module.rs` (which files belong to a
//! module), `cache.rs` (opened modules), `dwarf.rs` and `split.rs` (frames), `symtab.rs` (functions only),
//! `demangle.rs`, and `elf.rs`, `bounded.rs` (files that may be hostile) below them all.

mod bounded;
mod cache;
mod debuginfod;
mod demangle;
mod dwarf;
mod elf;
pub mod embedded;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod module;
mod outcome;
mod resolve;
mod split;
mod symtab;

pub use demangle::demangle;
pub use outcome::{Outcome, Source};
pub use resolve::{Options, Request, Resolution, Resolved, Symbolizer};
