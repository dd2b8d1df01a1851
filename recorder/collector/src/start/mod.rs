//! Starting a recording: what can be recorded, the name of the trace, the process of the target.

pub mod check;
pub mod detached;
pub(crate) mod launch;
pub mod library;
pub(crate) mod output;
pub mod run;
pub mod unpack;
