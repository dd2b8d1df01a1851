//! The exported symbols, and their code before the fast path.

pub(crate) mod detour;
mod exports;
pub(crate) mod forward;
pub(crate) mod mapping;
