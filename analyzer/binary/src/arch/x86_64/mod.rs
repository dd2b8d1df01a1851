//! x86-64.

pub(crate) mod calls;
pub(crate) mod unwind;
