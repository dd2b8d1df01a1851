//! The fast path behind the stubs, and the walk of a watched stack.

pub(crate) mod frame;
pub(crate) mod free;
pub(crate) mod live;
pub(crate) mod tables;
pub(crate) mod thread;
pub(crate) mod walk;
