//! The exported symbols, and what they do before they reach the fast path.

mod exports;
pub(crate) mod forward;
