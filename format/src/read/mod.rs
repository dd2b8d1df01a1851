//! Reading a trace: sound blocks are found, opened by column, and read for many sites at once.

pub(crate) mod columns;
pub(crate) mod growing;
pub(crate) mod index;
pub(crate) mod prefetch;
pub(crate) mod source;
pub(crate) mod tiles;
pub(crate) mod trace;
