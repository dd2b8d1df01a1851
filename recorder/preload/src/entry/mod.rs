//! The exported symbols, and the hooks: of functions that call other entry points, of mmap and similar calls,
//! of the program's pools, and of detoured functions.

pub(crate) mod detour;
mod exports;
pub(crate) mod forward;
pub(crate) mod mapping;
pub(crate) mod pool;
