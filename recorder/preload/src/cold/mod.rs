//! All code of the library that is not on the fast path.

mod claim;
mod definitions;
pub(crate) mod detached;
pub(crate) mod detours;
pub(crate) mod elf;
pub(crate) mod environment;
pub(crate) mod given_name;
mod identity;
pub(crate) mod idle;
pub(crate) mod inside;
pub(crate) mod lifecycle;
mod lines;
pub(crate) mod marks;
pub(crate) mod module_table;
pub(crate) mod modules;
mod only;
pub(crate) mod path;
pub(crate) mod phase;
mod publish;
pub(crate) mod real;
pub(crate) mod sites;
pub(crate) mod slow;
pub(crate) mod symbols;
pub(crate) mod sys;
mod thread_id;
