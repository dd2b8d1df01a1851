//! Beside the target: edleak-record. A library so that its parts can be tested; `main.rs` is the program.
//!
//! ```text
//! args run        the command line · one run: checks, starts, follows, reports
//! check launch    what cannot be recorded · starts the target
//! detached        started by a bare LD_PRELOAD
//! follow          every image from its claim to its end
//! offer shm bell  sessions on offer · the memory they are made of · that one was claimed
//! recording       one image: from its session, slice by slice, into its trace
//! slicer period inject   every counter at one instant · when that is due · a leak that is none
//! modules process image   which code is where · what /proc says · whether a process is still what is recorded
//! wrappers watch pieces   which functions are wrappers · which are watched · both laid over each other
//! compiled guide  what the files say · telling the target
//! stacks auto_watch   watched stacks and their survivors · picking what to watch
//! bounds          where stacks end
//! control steering commands progress   requests to a running recording: the socket · what they change · who sends
//!                 them · what `sessions` shows
//! wrapper_list    the known wrappers
//! after           symbols into the finished trace, and the analysis printed
//! signals limits  signals and the ends of processes · which limit of the system was met
//! say stdio       what is told on stderr · standard descriptors that were closed
//! ```
#![deny(unsafe_code)]

pub mod after;
pub mod args;
pub mod auto_watch;
pub mod bell;
pub mod bounds;
pub mod check;
pub mod commands;
pub mod compiled;
pub mod control;
pub mod detached;
pub mod follow;
pub mod guide;
pub mod image;
pub mod inject;
pub mod launch;
pub mod limits;
pub mod modules;
pub mod offer;
pub mod output;
pub mod period;
pub mod pieces;
pub mod process;
pub mod progress;
pub mod recording;
pub mod run;
pub mod say;
pub mod shm;
pub mod signals;
pub mod slicer;
pub mod stacks;
pub mod stdio;
pub mod steering;
pub mod watch;
pub mod wrapper_list;
pub mod wrappers;
