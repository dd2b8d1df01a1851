//! What the target is told of its code: which callers to step over, which to watch, and the rules to walk by.

pub mod code_options;
pub mod code_range;
pub mod compiled;
pub mod publisher;
pub mod stack_bounds;
pub mod wrapper_list;
pub mod wrappers;
