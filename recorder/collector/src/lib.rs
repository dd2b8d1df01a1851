//! The library beside the target: it starts the target, reads its counters and writes the trace. The program
//! `edleak-record` (`recorder/cli`) is built on it.
//!
//! ```text
//! doctor     checks this machine and lists the reasons why a recording would fail
//! start      checks a program, reserves the trace's name, starts the target; or serves a bare LD_PRELOAD
//! follow     every image of the run: from its claim of a session, over exec and fork, to its end
//! recording  one image: reads its session and writes slice after slice into its trace
//! attach     a running process without the library: loads the library, and redirects malloc to it
//! rules      the rules that the target gets: callers to step over, callers to watch, unwind rules
//! detour     allocators inside a module: the jumps and stubs for their entry points
//! watch      requests to record full stacks: from the user, from auto-watch, from a running session
//! control    the socket of a running recording: the collector's end
//! sys        the operating system: shared memory, /proc, signals, limits, stderr
//! error      the errors of all of these
//! ```
//! Each module uses only the modules after it in this list: `doctor → start → follow → {recording, attach}
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
