//! Starts a recording of a program: checks the program, reserves the name of the trace, and creates the
//! target's process. This module also starts a recording of a process that already runs.

pub mod attach;
pub mod check;
pub mod detached;
pub(crate) mod launch;
pub mod library;
mod library_copy;
mod loadable;
mod permission;
mod proc_mount;
pub mod run;
pub mod unpack;
