//! The bytes of a trace and their meaning: first page, blocks, chunks of the journal, records, slices.

pub(crate) mod areas;
pub(crate) mod block;
pub(crate) mod catalog;
pub(crate) mod chunk;
pub(crate) mod delta;
pub(crate) mod header;
pub(crate) mod record_v1;
pub(crate) mod stride;
pub(crate) mod varint;
