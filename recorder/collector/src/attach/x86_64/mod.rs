//! x86-64: the registers of a stopped thread, the code that it runs to load the library, and the frame that
//! restores its registers.

pub(crate) mod code;
pub(crate) mod frame;
pub(crate) mod registers;
