//! x86-64: the code that a thread runs to load the library, and the frame that restores its registers.

pub(crate) mod code;
pub(crate) mod frame;
