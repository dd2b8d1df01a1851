//! The exported functions, and the hooks that these functions call. There are hooks for functions that may
//! call other entry points, for mmap and similar calls, for the pools of the program, and for detoured
//! functions.

pub(crate) mod aligned;
pub(crate) mod detour;
mod exports;
pub(crate) mod hooks;
pub(crate) mod mapping;
pub(crate) mod operators;
pub(crate) mod pending;
pub(crate) mod pool;
