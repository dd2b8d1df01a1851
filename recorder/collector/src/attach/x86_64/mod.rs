//! The part of the attach that depends on the processor (x86-64): the registers of a stopped thread, the code
//! that the thread runs to load the library, and the signal frame that restores the registers.

pub(crate) mod code;
pub(crate) mod frame;
pub(crate) mod registers;
