//! Compiles and publishes the rules for the target's code: which functions are wrappers, so that their frames
//! are skipped; which callers to watch; and the unwind rules, with which the library walks stacks.

mod cache;
pub mod code_options;
pub(crate) mod code_range;
pub(crate) mod compiled;
pub(crate) mod file_facts;
pub(crate) mod modules;
pub(crate) mod publisher;
pub(crate) mod stack_bounds;
pub mod unwind;
pub(crate) mod wrapper_list;
pub mod wrappers;
