//! Writing a trace: the journal of the newest slices, the compressed blocks, and the space for them.

pub(crate) mod blocks;
pub(crate) mod compression;
pub(crate) mod journal;
pub(crate) mod new_file;
pub(crate) mod rewrite;
pub(crate) mod ring;
pub(crate) mod space;
pub(crate) mod thin;
pub(crate) mod trace_writer;
