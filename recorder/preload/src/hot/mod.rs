//! The functions that the entry stubs call on the fast path, and the function that reads the stack of an
//! allocation at a watched site.

pub(crate) mod frame;
pub(crate) mod free;
pub(crate) mod live;
pub(crate) mod tables;
pub(crate) mod thread;
pub(crate) mod walk;
