//! Reading a trace: the reader finds the undamaged blocks, reads their columns, and decodes many sites in one
//! step.

pub(crate) mod columns;
pub(crate) mod growing;
pub(crate) mod index;
pub(crate) mod prefetch;
pub(crate) mod source;
pub(crate) mod tiles;
pub(crate) mod trace;
