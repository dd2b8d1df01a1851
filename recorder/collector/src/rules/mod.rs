//! What the target is told of its code: which callers to step over, which to watch, and the rules to walk by.

pub mod code_options;
pub(crate) mod code_range;
pub(crate) mod compiled;
pub(crate) mod publisher;
pub(crate) mod stack_bounds;
pub mod unwind;
pub(crate) mod wrapper_list;
pub mod wrappers;
