//! The part of the detour compiler for x86-64.

pub(crate) mod branches;
pub(crate) mod code;
pub(crate) mod prologue;
