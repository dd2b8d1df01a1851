//! The collector as a library: starts the target, reads the target's counters and writes the trace. The
//! program `edleak-record` (`recorder/cli`) uses this library.
//!
//! ```text
//! doctor     checks this machine, and lists the reasons why a recording would fail
//! start      checks and starts the target; records programs without edleak-record
//! follow     follows each program of the run, also after exec and fork, until the program ends
//! recording  records one program in one process: reads its counters, and writes slices into its trace
//! attach     attaches to a running process: loads the library and redirects malloc to the library
//! rules      the target's modules, and rules for them: callers to skip or to watch, how to unwind stacks
//! detour     compiles jumps and stubs for the functions of an allocator that is inside a module
//! watch      handles requests to record full stacks: from the user, from auto-watch, from a running session
//! control    serves the socket through which a user controls a running recording
//! sys        calls the operating system: shared memory, /proc, signals, limits, stderr
//! error      the errors of all these modules
//! ```
//! Each module uses only modules to the right of its own name: `doctor → start → follow → {recording, attach}
//! → {rules → {watch, detour}, control} → sys`.
#![deny(unsafe_code)]

pub mod attach;
pub mod control;
pub mod detour;
pub mod doctor;
mod error;
pub mod follow;
pub mod recording;
pub mod rules;
pub mod start;
pub mod sys;
pub mod watch;

pub use error::{Error, ErrorKind};
