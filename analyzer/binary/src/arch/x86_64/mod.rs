//! The machine x86-64: its call instructions, and the registers that are needed to unwind a stack.

pub(crate) mod calls;
pub(crate) mod unwind;
