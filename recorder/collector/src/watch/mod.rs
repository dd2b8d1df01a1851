//! Chooses the sites whose full stacks are recorded. A user requests sites before or during the recording,
//! and auto-watch picks sites that look like leaks.

pub(crate) mod auto_watch;
pub(crate) mod budget;
pub mod request;
