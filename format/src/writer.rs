//! Slices and records to the file: into the journal at once, and from there into sealed blocks.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zstd::bulk::{Compressor, Decompressor};

use crate::block::{BlockHeader, BlockKind, HEADER_BYTES, MAX_RAW_BYTES, extent_bytes, payload_sum};
use crate::catalog::{self, Records};
use crate::delta::{Decoder, Encoder, MAX_SITES};
use crate::error::{self, Error, ErrorKind};
use crate::header::{FORMAT_VERSION, Header};
use crate::journal::{self, CHUNK_HEADER_BYTES, ChunkKind, Chunks};
use crate::record::Record;
use crate::ring::Ring;
use crate::slice::{Counters, SliceHeader};
use crate::stride::Stride;

/// The capacity of a trace when nobody asks for another: 64 MiB.
pub const DEFAULT_CAPACITY_BYTES: u64 = 64 << 20;
/// The smallest capacity that holds a useful trace: 256 KiB.
pub const MIN_CAPACITY_BYTES: u64 = 256 << 10;

/// A good ratio at a cost that does not show beside a slice; higher levels gain under 3 % on slices.
const ZSTD_LEVEL: i32 = 3;
/// The first journal. Later ones double, so that a short recording leaves a small file even when it is killed.
const FIRST_JOURNAL_BYTES: u64 = 32 << 10;
const MAX_JOURNAL_BYTES: u64 = 16 << 20;
/// Slices of whole values that a journal should have room for; a block then repeats them rarely enough.
const JOURNAL_WHOLE_SLICES: u64 = 16;
/// Records beyond this go into a block of their own and not through the journal.
const JOURNAL_RECORDS_SHARE: u64 = 4;

/// Writes a trace.
///
/// Every slice is in the file when [`TraceWriter::slice`] returns: a writer killed at any instant loses at most the one it
/// was writing. Memory is proportional to the number of sites and does not grow with the recording.
pub struct TraceWriter {
    pub(crate) ring: Ring,
    path: PathBuf,
    pub(crate) sequence: u64,
    /// Sealed slices, by ascending tick.
    pub(crate) blocks: Vec<SliceBlock>,
    /// Sealed records, oldest first.
    pub(crate) catalog: Vec<CatalogBlock>,
    pub(crate) journal: Option<Journal>,
    /// Least size of the next journal.
    journal_bytes: u64,
    /// Size of the last slice that held whole values.
    whole_bytes: usize,
    /// Encoded records that are not in the file yet.
    pending: Vec<u8>,
    /// Counters as of the last slice in the journal; zero where it has none.
    previous: Vec<Counters>,
    sites: usize,
    stride: Stride,
    pub(crate) first_tick: Option<u64>,
    pub(crate) last_tick: Option<u64>,
    /// One past the last tick of the sealed blocks.
    pub(crate) from_tick: u64,
    pub(crate) encoder: Encoder,
    compressor: Compressor<'static>,
    pub(crate) decoder: Decoder,
    pub(crate) decompressor: Decompressor<'static>,
    content: Vec<u8>,
}

/// A sealed block of slices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SliceBlock {
    pub at: u64,
    pub header: BlockHeader,
}

/// A sealed block of records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CatalogBlock {
    pub at: u64,
    pub header: BlockHeader,
}

/// The open journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journal {
    pub at: u64,
    pub header: BlockHeader,
    used: u64,
    chunks: u32,
    slices: u32,
    /// Tick of its first slice.
    pub first_slice: Option<u64>,
    has_records: bool,
}

impl Journal {
    /// A chunk with this much content fits, and the zeros after it.
    fn has_room(&self, content: usize) -> bool {
        self.used + (content + 2 * CHUNK_HEADER_BYTES) as u64 <= self.header.payload_bytes
    }
}

impl TraceWriter {
    /// Creates a trace, readable by its owner only. What was in the file is lost; the caller has moved it away.
    ///
    /// # Errors
    /// `CapacityTooSmall` below [`MIN_CAPACITY_BYTES`]; `NoSpace` where not even the first page fits; `Io`.
    pub fn create(path: &Path, capacity_bytes: u64) -> Result<TraceWriter, Error> {
        Self::create_inner(path, capacity_bytes).map_err(|error| error.context(error::writing(path)))
    }

    fn create_inner(path: &Path, capacity_bytes: u64) -> Result<TraceWriter, Error> {
        if capacity_bytes < MIN_CAPACITY_BYTES {
            return Err(Error::new(
                ErrorKind::CapacityTooSmall,
                format!(
                    "a capacity of {capacity_bytes} bytes is less than {MIN_CAPACITY_BYTES} (use --size 256K or more)"
                ),
            ));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| Error::io("cannot create the file", error))?;
        let capacity = capacity_bytes / 4096 * 4096;
        let salt = random_salt();
        let page = Header { version: FORMAT_VERSION, capacity_bytes: capacity, salt }.to_page();
        let zstd = |error| Error::io("cannot set up zstd", error);
        let compressor = Compressor::new(ZSTD_LEVEL).map_err(zstd)?;
        let decompressor = Decompressor::new().map_err(zstd)?;
        Ok(TraceWriter {
            ring: Ring::new(file, capacity, salt, &page)?,
            path: path.to_owned(),
            sequence: 0,
            blocks: Vec::new(),
            catalog: Vec::new(),
            journal: None,
            journal_bytes: FIRST_JOURNAL_BYTES.min(capacity / 16),
            whole_bytes: 0,
            pending: Vec::new(),
            previous: Vec::new(),
            sites: 0,
            stride: Stride::default(),
            first_tick: None,
            last_tick: None,
            from_tick: 0,
            encoder: Encoder::new(),
            compressor,
            decoder: Decoder::default(),
            decompressor,
            content: Vec::new(),
        })
    }

    /// Adds a record to the catalog. It is in the file after the next [`slice`](Self::slice) or [`sync`](Self::sync).
    ///
    /// # Errors
    /// `InvalidInput` for a site whose id is not below 2^20; else as for `sync`, because a great many records are written
    /// at once.
    pub fn record(&mut self, record: &Record) -> Result<(), Error> {
        if let Record::Site(site) = record
            && site.id.0 as usize >= MAX_SITES
        {
            return Err(self.named(too_many_sites(site.id.0 as usize + 1)));
        }
        catalog::encode(record, &mut self.pending);
        if self.pending.len() >= MAX_RAW_BYTES / 4 { self.sync() } else { Ok(()) }
    }

    /// Writes one slice; `counters[i]` are those of `SiteId(i)`. Sites never become fewer, ticks increase.
    ///
    /// # Errors
    /// `NoSpace`: the slice is not in the trace, everything before it is. `CapacityTooSmall`, `CatalogTooLarge`,
    /// `InvalidInput`.
    pub fn slice(&mut self, header: &SliceHeader, counters: &[Counters]) -> Result<(), Error> {
        self.slice_inner(header, counters).map_err(|error| self.named(error))
    }

    fn slice_inner(&mut self, header: &SliceHeader, counters: &[Counters]) -> Result<(), Error> {
        if counters.len() > MAX_SITES {
            return Err(too_many_sites(counters.len()));
        }
        if counters.len() < self.sites {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{} sites after {} (keep every site once seen)", counters.len(), self.sites),
            ));
        }
        if self.last_tick.is_some_and(|last| header.tick <= last) || header.tick == u64::MAX {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("tick {} is not after the one before (let ticks increase)", header.tick),
            ));
        }
        self.flush_records()?;
        let mut content = std::mem::take(&mut self.content);
        journal::encode_slice(&mut content, header, counters, &self.previous);
        if !self.journal.is_some_and(|journal| journal.has_room(content.len())) {
            self.seal()?;
            journal::encode_slice(&mut content, header, counters, &self.previous);
            self.whole_bytes = content.len();
            self.open_journal(content.len())?;
        }
        self.append(ChunkKind::Slice, &content);
        self.content = content;

        let journal = self.journal.as_mut().expect("opened above");
        journal.slices += 1;
        journal.first_slice.get_or_insert(header.tick);
        self.previous.clear();
        self.previous.extend_from_slice(counters);
        self.sites = counters.len();
        self.stride.note(header.tick);
        self.first_tick.get_or_insert(header.tick);
        self.last_tick = Some(header.tick);
        Ok(())
    }

    /// Puts the records added so far into the file.
    ///
    /// # Errors
    /// `NoSpace`; `CatalogTooLarge` if the catalog needs more than a third of the capacity.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.flush_records().map_err(|error| self.named(error))
    }

    /// Bytes of the file if it were finished now; a journal counts as it is, not yet compressed.
    pub fn bytes(&self) -> u64 {
        let spare = self.journal.map_or(0, |journal| journal.header.payload_bytes - journal.used);
        self.ring.capacity() - self.ring.free_bytes() - spare
    }

    /// Seals what is in the journal, moves the blocks together and cuts the file to its size, which is returned.
    ///
    /// # Errors
    /// `NoSpace` if records added last found no room. A disk that is too full to seal the journal is no error: it stays
    /// as it is, and readable.
    pub fn finish(mut self) -> Result<u64, Error> {
        let path = std::mem::take(&mut self.path);
        let done = self.flush_records().and_then(|()| match self.seal() {
            Err(error) if error.kind() != ErrorKind::NoSpace => Err(error),
            _ => Ok(()),
        });
        let packed = done.and_then(|()| {
            if self.journal.is_none_or(|journal| journal.chunks == 0) {
                if let Some(journal) = self.journal.take() {
                    self.ring.release(journal.at);
                }
            }
            match self.pack() {
                Err(error) if error.kind() != ErrorKind::NoSpace => Err(error),
                _ => Ok(()),
            }
        });
        let length = self.ring.truncate();
        packed.and(length).map_err(|error| error.context(error::writing(&path)))
    }

    fn named(&self, error: Error) -> Error {
        error.context(error::writing(&self.path))
    }

    /// Moves pending records into the journal, or, where they are many, into a block of their own.
    fn flush_records(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let result = self.write_records(&pending);
        self.pending = pending;
        if result.is_ok() {
            self.pending.clear();
            self.pending.shrink_to(MAX_PENDING_KEPT_BYTES);
        }
        result
    }

    fn write_records(&mut self, encoded: &[u8]) -> Result<(), Error> {
        if encoded.len() as u64 > self.journal_bytes / JOURNAL_RECORDS_SHARE {
            // What the journal holds is older than these records and must not replace them.
            self.seal()?;
            let mut records = Records::new();
            catalog::decode(encoded, &mut records).expect("the writer encoded them");
            return self.add_catalog(&records);
        }
        if !self.journal.is_some_and(|journal| journal.has_room(encoded.len())) {
            self.seal()?;
            self.open_journal(encoded.len())?;
        }
        self.append(ChunkKind::Records, encoded);
        self.journal.as_mut().expect("opened above").has_records = true;
        Ok(())
    }

    /// Makes sure that there is an open journal with room for `content` bytes more. Called when there is none, or an
    /// empty one.
    fn open_journal(&mut self, content: usize) -> Result<(), Error> {
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
        self.make_room(extent_bytes(payload), false)?;
        let at = self.ring.allocate(extent_bytes(payload))?.ok_or_else(|| self.too_small())?;
        self.start_journal(at, payload);
        Ok(())
    }

    fn most_journal_bytes(&self) -> u64 {
        (self.ring.capacity() / 8).min(MAX_JOURNAL_BYTES)
    }

    /// Enough for whole values to be repeated rarely, and a small share of the capacity.
    pub(crate) fn wanted_journal_bytes(&self) -> u64 {
        let whole = (self.whole_bytes + CHUNK_HEADER_BYTES) as u64;
        let ample = (whole * JOURNAL_WHOLE_SLICES).min(self.ring.capacity() / 16);
        ample.max(2 * whole).max(self.journal_bytes).min(self.most_journal_bytes()).next_multiple_of(64)
    }

    /// Begins an empty journal in an extent of its own.
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
        self.stride = Stride::new(self.stride.level());
    }

    /// Appends a chunk: its content and the zeros after it first, so that a chunk is there whole or not at all.
    fn append(&mut self, kind: ChunkKind, content: &[u8]) {
        let journal = self.journal.as_mut().expect("the caller opened a journal with room");
        let header =
            journal::chunk_header(self.ring.salt(), journal.header.sequence, kind, journal.chunks, content);
        let at = journal.at + HEADER_BYTES as u64 + journal.used;
        let end = at + (CHUNK_HEADER_BYTES + content.len()) as u64;
        journal.used += (CHUNK_HEADER_BYTES + content.len()) as u64;
        journal.chunks += 1;
        self.ring.write(end, &[0; CHUNK_HEADER_BYTES]);
        self.ring.write(at + CHUNK_HEADER_BYTES as u64, content);
        self.ring.write(at, &header);
    }

    /// Turns the journal into sealed blocks and begins it anew. Until then both are in the file, and the sealed ones win.
    fn seal(&mut self) -> Result<(), Error> {
        let Some(journal) = self.journal.filter(|journal| journal.chunks > 0) else {
            return Ok(());
        };
        let payload = self.ring.read(journal.at + HEADER_BYTES as u64, journal.used as usize).to_vec();
        if journal.has_records {
            let mut records = Records::new();
            for chunk in Chunks::new(self.ring.salt(), &journal.header, &payload) {
                if chunk.kind == ChunkKind::Records {
                    catalog::decode(chunk.content, &mut records).expect("the writer encoded them");
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
            self.stride = Stride::new(self.stride.level());
        } else {
            self.start_journal(journal.at, journal.header.payload_bytes);
        }
        self.ring.drop_resident_pages();
        Ok(())
    }

    fn encode_journal(&mut self, header: &BlockHeader, payload: &[u8]) {
        let mut table = Vec::new();
        let mut changed = Vec::new();
        self.encoder.begin(self.from_tick);
        for chunk in Chunks::new(self.ring.salt(), header, payload) {
            if chunk.kind == ChunkKind::Slice {
                let header = journal::decode_slice(chunk.content, &mut table, &mut changed)
                    .expect("the writer encoded it");
                self.encoder.slice(&header, changed.iter().copied());
            }
        }
    }

    /// Seals what [`rewrite`](crate::rewrite()) has put into the encoder: the journal of another trace.
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

    /// Compresses what the encoder holds and adds it to the sealed slices.
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
        let payload =
            self.compressor.compress(raw).map_err(|error| Error::io("cannot compress a block", error))?;
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

    /// Writes a block where it fits: the payload first, so that it is there whole or not at all.
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

    pub(crate) fn too_small(&self) -> Error {
        Error::new(
            ErrorKind::CapacityTooSmall,
            format!(
                "a capacity of {} bytes cannot hold the slices of {} sites (use a larger --size)",
                self.ring.capacity(),
                self.sites
            ),
        )
    }
}

/// What a large batch of records leaves allocated for the next.
const MAX_PENDING_KEPT_BYTES: usize = 64 << 10;
/// A journal that only few sites fill need not be larger: such a block already holds thousands of slices.
const MAX_STEADY_JOURNAL_BYTES: u64 = 256 << 10;

fn too_many_sites(sites: usize) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("{sites} sites are more than a trace can name (merge some, at most {MAX_SITES})"),
    )
}

/// Differs from trace to trace. It need not be secret.
fn random_salt() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
