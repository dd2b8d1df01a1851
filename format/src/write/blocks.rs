//! The writer's own list of the blocks in the file: compressed blocks and the open journal.

use crate::layout::block::BlockHeader;
use crate::layout::chunk::CHUNK_HEADER_BYTES;

/// A compressed block of slices in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SliceBlock {
    pub at: u64,
    pub header: BlockHeader,
}

/// A compressed block of records in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CatalogBlock {
    pub at: u64,
    pub header: BlockHeader,
}

/// The journal to which the writer is appending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journal {
    pub at: u64,
    pub header: BlockHeader,
    pub used: u64,
    pub chunks: u32,
    pub slices: u32,
    /// Tick of the first slice.
    pub first_slice: Option<u64>,
    pub has_records: bool,
}

impl Journal {
    /// Whether the journal has room for a chunk with `content` bytes, and for the zeros after the chunk.
    pub(crate) fn has_room(&self, content: usize) -> bool {
        self.used + (content + 2 * CHUNK_HEADER_BYTES) as u64 <= self.header.payload_bytes
    }
}
