//! x86-64: the instructions at an entry, the branches of a module, and code for stubs.

pub(crate) mod branches;
pub(crate) mod code;
pub(crate) mod prologue;
