//! Chooses the sites that record full stacks: requests of the user, picks of auto-watch, changes while the
//! target runs.

pub(crate) mod auto_watch;
pub(crate) mod budget;
pub mod request;
