//! Reads binaries: functions and their names, line numbers, unwind rules, and calls.
//!
//! ```text
//! file_bytes elf binary_file      a file's bytes · its headers, sections, links · an open file
//! functions own_malloc            functions that symbol tables name · an allocator linked into the program
//! demangle names                  mangled names to source names · the names that a pattern may match
//! module debuginfod symbol_files  files of a module · files from servers · files with a module's functions
//! bounded sections                reader with a budget · sections of debug information, decompressed
//! symtab cache                    the function at an address · opened modules
//! dwarf split embedded resolve    frames · split debug files · symbols in a trace · a batch of addresses
//! embed                           symbols to store in a trace, for use without the binaries
//! arch calls unwind               machines · possible calls in code · rules to find a caller
//! outcome                         message to the user: from which file a module's symbols come
//! ```
//!
//! The list of modules below is sorted by dependency: each module uses only modules that stand before it in
//! the list. edleak turns return addresses into frames only after the recording, with the files of the
//! recorded build.
#![deny(unsafe_code)]

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
mod error;
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
pub use error::{Error, ErrorKind};
pub use module::Options;
pub use outcome::{Outcome, Source};
pub use own_malloc::OwnMalloc;
pub use resolve::{Request, Resolution, Resolved, Symbolizer};
pub use symbol_files::SymbolFiles;
