//! The rules that the target gets for its code: callers to step over, callers to watch, and unwind rules.

mod cache;
pub mod code_options;
pub(crate) mod code_range;
pub(crate) mod compiled;
pub(crate) mod publisher;
pub(crate) mod stack_bounds;
pub mod unwind;
pub(crate) mod wrapper_list;
pub mod wrappers;
