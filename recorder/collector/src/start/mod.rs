//! Starting a recording: what can be recorded, the name of the trace, the process of the target.

pub mod check;
pub mod detached;
pub mod launch;
pub mod library;
pub mod output;
pub mod run;
pub mod unpack;
