//! Tells the user where the symbols of a module come from, and what to do if symbols are missing.

use edleak_format::ModuleId;
use std::fmt;
use std::path::PathBuf;

/// The result of looking up the addresses of one module.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The module.
    pub module: ModuleId,
    /// The path of the module, as the trace has it.
    pub path: String,
    /// Where the module's names come from.
    pub source: Source,
    /// `true`: the trace has no build ID for the module, so edleak could not check that the file is the
    /// recorded file. The user may have rebuilt the file after the recording, and then the names are wrong.
    pub is_unverified: bool,
    /// Number of different addresses in the requests for this module.
    pub addresses: usize,
    /// Number of different addresses in this module that got no function name.
    pub unresolved: usize,
    /// Number of split debug files (.dwo) that edleak needed and did not find.
    pub missing_dwo: usize,
}

/// Where a module's names come from. The list begins with the sources that give the most information.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Source {
    /// The trace has embedded symbols of the module.
    Embedded,
    /// This file has debug information.
    DebugInfo(PathBuf),
    /// This file has a full symbol table but no debug information: all functions get names, but no line
    /// numbers.
    SymbolTable(PathBuf),
    /// This file is stripped, so only its exported functions get names.
    ExportedOnly(PathBuf),
    /// This file has no symbols.
    NoSymbols(PathBuf),
    /// This file exists, but belongs to another build.
    Rebuilt {
        /// The file.
        file: PathBuf,
        /// The build ID of the file; empty if the file has none.
        found: Vec<u8>,
        /// The build ID in the trace.
        expected: Vec<u8>,
    },
    /// The module has no file, because it is the kernel's `[vdso]`, or code that the program generated.
    NoFile,
    /// The file of the module does not exist.
    Missing {
        /// The build ID in the trace; empty if the trace has none.
        build_id: Vec<u8>,
    },
    /// A file exists, but cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: String,
    },
}

impl Outcome {
    /// Whether the user can do something to get more function names or line numbers, for example install a
    /// debug file.
    pub fn needs_attention(&self) -> bool {
        if is_pseudonym(&self.path) {
            return false;
        }
        self.is_unverified
            || self.missing_dwo > 0
            || !matches!(self.source, Source::Embedded | Source::DebugInfo(_) | Source::NoFile)
    }
}

/// Whether this path is a hash that `edleak-analyze anonymize` wrote in place of the real path. A hash is
/// not the path of a real file, so edleak does not ask the user for this file.
fn is_pseudonym(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|name| name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Prints one line: the problem with a module's symbols, and what the user can do.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.source {
            Source::Embedded => write!(f, "`{path}`: symbols embedded in the trace")?,
            Source::DebugInfo(file) if file.as_os_str() == path.as_str() => {
                write!(f, "`{path}`: debug information")?;
            }
            Source::DebugInfo(file) => {
                write!(f, "`{path}`: debug information of `{}`", file.display())?;
            }
            Source::SymbolTable(_) => write!(
                f,
                "`{path}` has no debug information, so lines are unknown (build it with -g, or give \
                 --debug-dir its debug files)"
            )?,
            Source::ExportedOnly(_) => write!(
                f,
                "`{path}` is stripped, so only its exported functions are known (install its debug symbols, \
                 or give --debug-dir them)"
            )?,
            Source::NoSymbols(_) => write!(
                f,
                "`{path}` is stripped of all symbols (install its debug symbols, or give --debug-dir them)"
            )?,
            Source::Rebuilt { file, found, expected } if found.is_empty() => write!(
                f,
                "`{}` was rebuilt since: it has no build ID, the recorded one has {} (give --debug-dir the \
                 old one)",
                file.display(),
                Hex(expected)
            )?,
            Source::Rebuilt { file, found, expected } => write!(
                f,
                "`{}` was rebuilt since: build ID {} is not {} (give --debug-dir the old one)",
                file.display(),
                Hex(found),
                Hex(expected)
            )?,
            Source::NoFile => write!(f, "`{path}` is not a file, so it has no symbols")?,
            Source::Missing { build_id } if build_id.is_empty() => {
                write!(f, "`{path}` was not found (give --debug-dir a directory that has it)")?;
            }
            Source::Missing { build_id } => write!(
                f,
                "`{path}` was not found (give --debug-dir a directory that has it; its build ID is {})",
                Hex(build_id)
            )?,
            Source::Unreadable { file, reason } => {
                write!(f, "`{}` cannot be read: {reason} (give --debug-dir a sound copy)", file.display())?;
            }
        }
        if self.is_unverified {
            write!(f, "; the trace has no build ID of it, so whether it was rebuilt since is unknown")?;
        }
        if self.missing_dwo > 0 {
            write!(
                f,
                "; {} of its split debug files were not found (give --debug-dir the .dwo or .dwp files)",
                self.missing_dwo
            )?;
        }
        Ok(())
    }
}

/// A build ID in hexadecimal.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
