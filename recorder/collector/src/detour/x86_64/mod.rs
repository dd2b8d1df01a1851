//! The part of the detour compiler that depends on the processor (x86-64).

pub(crate) mod branches;
pub(crate) mod code;
pub(crate) mod prologue;
