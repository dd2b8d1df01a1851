//! The exported symbols, and their code before the fast path.

mod exports;
pub(crate) mod forward;
pub(crate) mod mapping;
