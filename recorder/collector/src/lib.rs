//! Beside the target: starts it, reads its counters, writes the trace. The program around it is `recorder/cli`.
//!
//! ```text
//! doctor     what of this machine stands in the way of a recording
//! start      checks a program, takes the trace's name, starts the target; or answers a bare LD_PRELOAD
//! follow     every image of the run: from its claim of a session, over exec and fork, to its end
//! recording  one image: from its session, slice by slice, into its trace
//! rules      what the target is told of its code: what to step over, what to watch, how to walk stacks
//! watch      requests to record full stacks: from the user, from auto-watch, from a running session
//! control    the socket of a running recording: the collector's end
//! sys        the operating system: shared memory, /proc, signals, limits, stderr
//! ```
//! A room uses the rooms after it: `doctor → start → follow → recording → {rules → watch, control} → sys`.
#![deny(unsafe_code)]
#![warn(unreachable_pub)]

pub mod control;
pub mod doctor;
pub mod follow;
pub mod recording;
pub mod rules;
pub mod start;
pub mod sys;
pub mod watch;
