//! How the writer opens the journal, appends to the journal, and turns the journal into compressed blocks.

use crate::error::Error;
use crate::layout::areas::Areas;
use crate::layout::block::{BlockHeader, BlockKind, HEADER_BYTES, MAX_RAW_BYTES, extent_bytes, payload_sum};
use crate::layout::catalog::EncodedRecords;
use crate::layout::chunk::{self, CHUNK_HEADER_BYTES, ChunkKind, Chunks};
use crate::layout::stride::Stride;
use crate::write::blocks::{Journal, SliceBlock};
use crate::write::trace_writer::TraceWriter;

/// Maximum size of a journal, in bytes. To compress a journal, the writer needs memory of a few times the
/// journal's size.
const MAX_JOURNAL_BYTES: u64 = 16 << 20;
/// Maximum size, in bytes, of a catalog block that the writer may compress densely. A larger catalog block is
/// compressed with the fast level of zstd.
const MAX_DENSE_CATALOG_BYTES: usize = 256 << 10;
/// Compressing a catalog block may take at most 1/32 of the time to the next slice: half of
/// 1/`CATALOG_PAUSE_SHARE`.
const CATALOG_PAUSE_SHARE: u64 = 16;
/// A journal should have room for this number of slices with absolute values. The first slice of each block
/// holds absolute values, which take more bytes than differences, so larger blocks save space.
const JOURNAL_FULL_SLICES: u64 = 24;
/// Maximum size of a journal, in bytes, if few sites change. If few sites change, a block of 256 KiB already
/// holds thousands of slices.
const MAX_STEADY_JOURNAL_BYTES: u64 = 256 << 10;

impl TraceWriter {
    /// Makes sure that a journal with room for `content` more bytes is open. The writer calls this function
    /// only if no journal is open or if the open journal is empty.
    pub(crate) fn open_journal(&mut self, content: usize) -> Result<(), Error> {
        if self.journal.is_some_and(|journal| journal.has_room(content)) {
            return Ok(());
        }
        if let Some(journal) = self.journal.take() {
            self.ring.release(journal.at);
        }
        let needed = (content + 2 * CHUNK_HEADER_BYTES) as u64;
        if needed > self.most_journal_bytes() {
            return Err(self.too_small());
        }
        let payload = self.wanted_journal_bytes().max(2 * needed).min(self.most_journal_bytes());
        self.place_journal(payload)
    }

    /// Opens a journal of the smallest possible size. To end a recording on a full disk, the writer needs a
    /// journal that is smaller than usual.
    pub(crate) fn open_last_journal(&mut self, content: usize) -> Result<(), Error> {
        self.place_journal((content + 2 * CHUNK_HEADER_BYTES) as u64)
    }

    fn place_journal(&mut self, payload: u64) -> Result<(), Error> {
        self.make_room(extent_bytes(payload), false)?;
        let at = self.ring.allocate(extent_bytes(payload))?.ok_or_else(|| self.too_small())?;
        self.start_journal(at, payload);
        Ok(())
    }

    pub(crate) fn most_journal_bytes(&self) -> u64 {
        (self.ring.capacity() / 8).min(MAX_JOURNAL_BYTES)
    }

    /// The size for a new journal. The journal is large enough that slices with absolute values are rare, but
    /// takes only a small share of the capacity.
    pub(crate) fn wanted_journal_bytes(&self) -> u64 {
        let full_slice = (self.full_slice_bytes + CHUNK_HEADER_BYTES) as u64;
        let ample = (full_slice * JOURNAL_FULL_SLICES).min(self.ring.capacity() / 16);
        ample.max(2 * full_slice).max(self.journal_bytes).min(self.most_journal_bytes()).next_multiple_of(64)
    }

    /// Starts an empty journal in its own extent.
    fn start_journal(&mut self, at: u64, payload_bytes: u64) {
        let header = BlockHeader {
            level: self.stride.level(),
            from_tick: self.from_tick,
            first_tick: self.from_tick,
            last_tick: u64::MAX - 1,
            ..self.next_header(BlockKind::Journal, payload_bytes)
        };
        self.ring.write(at + HEADER_BYTES as u64, &[0; CHUNK_HEADER_BYTES]);
        self.ring.write_header(at, header);
        self.journal = Some(Journal {
            at,
            header,
            used: 0,
            chunks: 0,
            slices: 0,
            first_slice: None,
            has_records: false,
        });
        self.previous.clear();
        self.previous_areas.clear();
        self.stride = Stride::new(self.stride.level());
    }

    /// If the open journal is empty, gives the journal a sequence that is higher than the sequence of every
    /// block in the file.
    pub(crate) fn renew_empty_journal(&mut self) {
        if let Some(journal) = self.journal.filter(|journal| journal.chunks == 0) {
            self.start_journal(journal.at, journal.header.payload_bytes);
        }
    }

    /// Appends a chunk. The writer first writes the content of the chunk and the zeros after it, and then the
    /// header of the chunk. So a reader never sees an incomplete chunk.
    pub(crate) fn append(&mut self, kind: ChunkKind, content: &[u8]) {
        let journal = self.journal.as_mut().expect("the caller opened a journal with room");
        let header =
            chunk::chunk_header(self.ring.salt(), journal.header.sequence, kind, journal.chunks, content);
        let at = journal.at + HEADER_BYTES as u64 + journal.used;
        let end = at + (CHUNK_HEADER_BYTES + content.len()) as u64;
        journal.used += (CHUNK_HEADER_BYTES + content.len()) as u64;
        journal.chunks += 1;
        self.ring.write(end, &[0; CHUNK_HEADER_BYTES]);
        self.ring.write(at + CHUNK_HEADER_BYTES as u64, content);
        self.ring.write(at, &header);
    }

    /// Turns the journal into compressed blocks and starts an empty journal in its place. While the writer
    /// writes the compressed blocks, the file holds both the journal and these blocks. If a reader finds
    /// both, it uses the compressed blocks, because they have the higher sequence.
    pub(crate) fn close_journal(&mut self) -> Result<(), Error> {
        let Some(journal) = self.journal.filter(|journal| journal.chunks > 0) else {
            return Ok(());
        };
        let payload = self.ring.read(journal.at + HEADER_BYTES as u64, journal.used as usize).to_vec();
        if journal.has_records {
            let mut records = EncodedRecords::default();
            for chunk in Chunks::new(self.ring.salt(), &journal.header, &payload) {
                if chunk.kind == ChunkKind::Records {
                    records.add(chunk.content).expect("the writer encoded them");
                }
            }
            self.add_catalog(&records)?;
            self.journal.as_mut().expect("still open").has_records = false;
        }
        if journal.slices > 0 {
            self.encode_journal(&journal.header, &payload);
            let header = BlockHeader {
                level: self.stride.level(),
                from_tick: self.from_tick,
                last_tick: self.last_tick.expect("there is a slice"),
                ..self.next_header(BlockKind::Slices, 0)
            };
            self.add_slices(header)?;
            self.from_tick = header.last_tick + 1;
        }
        self.journal_bytes =
            (self.journal_bytes * 2).min(MAX_STEADY_JOURNAL_BYTES).min(self.ring.capacity() / 16);
        let journal = self.journal.expect("still open, though maybe moved");
        if journal.header.payload_bytes < self.wanted_journal_bytes() {
            self.ring.release(journal.at);
            self.journal = None;
            self.previous.clear();
            self.previous_areas.clear();
            self.stride = Stride::new(self.stride.level());
        } else {
            self.start_journal(journal.at, journal.header.payload_bytes);
        }
        self.ring.drop_resident_pages();
        Ok(())
    }

    fn encode_journal(&mut self, header: &BlockHeader, payload: &[u8]) {
        let mut table = Vec::new();
        let (mut changed, mut areas) = (Vec::new(), Areas::default());
        self.encoder.begin(self.from_tick);
        for chunk in Chunks::new(self.ring.salt(), header, payload) {
            if chunk.kind == ChunkKind::Slice {
                let header = chunk::decode_slice(chunk.content, &mut table, &mut changed, &mut areas)
                    .expect("the writer encoded it");
                self.encoder.memory(areas.all());
                self.encoder.slice(&header, changed.iter().copied());
            }
        }
    }

    /// Adds the slices of another trace's journal, which [`rewrite`](crate::rewrite()) has put into the
    /// encoder.
    pub(crate) fn add_copied(&mut self, source: BlockHeader) -> Result<(), Error> {
        let header = BlockHeader {
            level: source.level,
            from_tick: source.from_tick,
            last_tick: source.last_tick,
            ..self.next_header(BlockKind::Slices, 0)
        };
        self.first_tick.get_or_insert(source.first_tick);
        self.last_tick = Some(source.last_tick);
        self.from_tick = source.last_tick + 1;
        self.add_slices(header)
    }

    /// Compresses the slices in the encoder and adds the result as a block.
    pub(crate) fn add_slices(&mut self, header: BlockHeader) -> Result<(), Error> {
        let (header, payload) = self.compress_slices(header)?;
        let at = self.add_block(&header, &payload)?;
        self.blocks.push(SliceBlock { at, header });
        Ok(())
    }

    pub(crate) fn compress_slices(&mut self, header: BlockHeader) -> Result<(BlockHeader, Vec<u8>), Error> {
        let raw = self.encoder.finish();
        let header =
            BlockHeader { slices: self.encoder.slices(), first_tick: self.encoder.first_tick(), ..header };
        self.compress(header, &raw)
    }

    pub(crate) fn compress(
        &mut self,
        header: BlockHeader,
        raw: &[u8],
    ) -> Result<(BlockHeader, Vec<u8>), Error> {
        if raw.len() > MAX_RAW_BYTES {
            return Err(self.too_small());
        }
        // If tens of thousands of stacks have live allocations, the `Survivors` records of these stacks have
        // very similar bytes. The dense level of zstd is slow on similar bytes: it took more than half of the
        // collector's time.
        let is_large_catalog = header.kind == BlockKind::Catalog && raw.len() > MAX_DENSE_CATALOG_BYTES;
        let pause_ns = match header.kind {
            _ if is_large_catalog => 0,
            // A program that makes many stacks adds a catalog block at each slice, so each block gets less
            // time than a block of slices.
            BlockKind::Catalog if !self.is_ending => self.pause_ns / CATALOG_PAUSE_SHARE,
            _ => self.pause_ns,
        };
        let payload = self
            .compressor
            .compress(raw, pause_ns)
            .map_err(|error| Error::io("cannot compress a block", error))?;
        let header = BlockHeader {
            payload_bytes: payload.len() as u64,
            raw_bytes: raw.len() as u32,
            payload_sum: payload_sum(self.ring.salt(), header.sequence, &payload),
            ..header
        };
        Ok((header, payload))
    }

    /// Makes room for a block and writes it.
    pub(crate) fn add_block(&mut self, header: &BlockHeader, payload: &[u8]) -> Result<u64, Error> {
        let moves_aside = header.kind == BlockKind::Slices;
        self.make_room(header.extent_bytes(), moves_aside)?;
        self.place_block(header, payload)?.ok_or_else(|| self.too_small())
    }

    /// Writes a block into a free extent. The payload is written before the header, so a reader never sees an
    /// incomplete block.
    pub(crate) fn place_block(&mut self, header: &BlockHeader, payload: &[u8]) -> Result<Option<u64>, Error> {
        let Some(at) = self.ring.allocate(header.extent_bytes())? else {
            return Ok(None);
        };
        self.ring.write(at + HEADER_BYTES as u64, payload);
        self.ring.write_header(at, *header);
        Ok(Some(at))
    }

    pub(crate) fn next_header(&mut self, kind: BlockKind, payload_bytes: u64) -> BlockHeader {
        self.sequence += 1;
        BlockHeader {
            catalog_blocks: u16::try_from(self.catalog.len()).unwrap_or(u16::MAX),
            ..BlockHeader::new(kind, self.sequence, payload_bytes)
        }
    }
}
