//! What a binary says: its functions and their names, the lines of its code, its rules to unwind, its calls.
//!
//! ```text
//! file_bytes elf binary_file      a file's bytes · its headers, sections, links · kept open
//! functions own_malloc            what its symbol tables name · the allocator it brings along
//! demangle names                  mangled names to source names · patterns' view of a name
//! module debuginfod symbol_files  which files belong to a module · from servers · where its functions get their names
//! bounded sections                hostile debug information · its sections, unpacked
//! symtab cache                    the function at an address · opened modules
//! dwarf split embedded resolve    frames · split debug files · symbols in a trace · a batch of addresses
//! embed                           symbols for a trace that must outlive its binaries
//! arch calls unwind               machines · where code may call · how to find a caller
//! outcome                         what was found, for the user
//! ```
//!
//! A line uses those above it. Return addresses become frames offline, from whatever files of the recorded build can be found.
#![deny(unsafe_code)]
#![warn(unreachable_pub)]

mod arch;
mod binary_file;
mod bounded;
mod cache;
pub mod calls;
mod debuginfod;
pub mod demangle;
mod demangle_other;
mod dwarf;
pub mod elf;
pub mod embed;
mod embedded;
pub mod file_bytes;
pub mod functions;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod module;
pub mod names;
mod outcome;
mod own_malloc;
mod resolve;
mod sections;
mod split;
mod symbol_files;
mod symtab;
pub mod unwind;

pub use binary_file::BinaryFile;
pub use demangle::demangle;
pub use module::Options;
pub use outcome::{Outcome, Source};
pub use own_malloc::OwnMalloc;
pub use resolve::{Request, Resolution, Resolved, Symbolizer};
pub use symbol_files::SymbolFiles;
