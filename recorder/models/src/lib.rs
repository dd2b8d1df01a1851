//! The protocols by which threads and processes use the shared memory of `recorder/session`. This crate
//! compiles the files of `recorder/session` with loom's atomics instead of the processor's atomics.
//!
//! The tests run each protocol with two or three threads, and try every order of memory accesses that the
//! memory model allows.

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
}

/// Stands for the number of the layouts, which the files name. The models compare no versions.
pub const VERSION: u32 = 0;

#[path = "../../session/src/caller.rs"]
pub mod caller;
#[path = "../../session/src/control.rs"]
pub mod control;
#[path = "../../session/src/counters.rs"]
pub mod counters;
#[path = "../../session/src/event.rs"]
pub mod event;
#[path = "../../session/src/mapping.rs"]
pub mod mapping;
#[path = "../../session/src/mark.rs"]
pub mod mark;
#[path = "../../session/src/pool.rs"]
pub mod pool;
#[path = "../../session/src/rule/mod.rs"]
pub mod rule;
#[path = "../../session/src/site.rs"]
pub mod site;
#[path = "../../session/src/stack.rs"]
pub mod stack;
