//! Writes slices and records, first into the journal and later into compressed blocks.

use std::path::{Path, PathBuf};

use crate::error::{self, Error, ErrorKind};
use crate::layout::areas::Areas;
use crate::layout::catalog::{self, EncodedRecords, Key, Records};
use crate::layout::chunk::{self, ChunkKind};
use crate::layout::delta::{Decoder, Encoder, MAX_SITES};
use crate::layout::header::FORMAT_VERSION;
use crate::layout::stride::Stride;
use crate::memory::AreaBytes;
use crate::place;
use crate::record::Record;
use crate::slice::{Counters, SliceHeader};
use crate::write::blocks::{CatalogBlock, Journal, SliceBlock};
use crate::write::compression::{PayloadCompressor, PayloadDecompressor};
use crate::write::new_file;
use crate::write::ring::Ring;

/// The default capacity of a trace: 64 MiB.
pub const DEFAULT_CAPACITY_BYTES: u64 = 64 << 20;

/// Size of the first journal. Each later journal has twice the size of the previous journal. Because the
/// first journals are small, the file of a short recording is small, even if the recorder is killed.
const FIRST_JOURNAL_BYTES: u64 = 32 << 10;
/// Number of bytes that a journal keeps free, so that the last records can be written even on a full disk. A
/// `Losses` and an `End` record with the largest numbers take 93 bytes.
const LAST_WORDS_BYTES: usize = 128;
/// While a recording is still short, compression takes at most 1/64 of the recorded time: half of
/// 1/`YOUNG_SHARE`.
const YOUNG_SHARE: u64 = 32;
/// After a lost slice, the writer uses quick compression for 16 slices.
const HURRIED_SLICES: u32 = 16;
/// If the records that are not yet in the file take 2 MiB, the writer writes them immediately.
const MAX_PENDING_BYTES: usize = 2 << 20;
/// Records that need more than 1/4 of a journal are written into a separate block.
const JOURNAL_RECORDS_SHARE: u64 = 4;

/// Writes a trace.
///
/// When [`TraceWriter::slice`] returns, the slice is in the file. If the writer is killed, no slice is lost
/// except the slice that the writer is just writing. A trace [in memory](TraceWriter::in_memory) is in the
/// file only after [`TraceWriter::map_file`] or [`TraceWriter::finish`]. The writer needs memory in
/// proportion to the number of sites. The memory of the writer does not grow with the length of the
/// recording.
pub struct TraceWriter {
    pub(crate) ring: Ring,
    path: PathBuf,
    pub(crate) sequence: u64,
    /// Compressed blocks of slices, by ascending tick.
    pub(crate) blocks: Vec<SliceBlock>,
    /// Catalog blocks, oldest first.
    pub(crate) catalog: Vec<CatalogBlock>,
    pub(crate) journal: Option<Journal>,
    /// Smallest size of the next journal.
    pub(crate) journal_bytes: u64,
    /// Size of the last slice with absolute values.
    pub(crate) full_slice_bytes: usize,
    /// Encoded records that are not in the file yet.
    pending: Vec<u8>,
    /// Counters of the journal's last slice; all zero if the journal has no slice.
    pub(crate) previous: Vec<Counters>,
    /// Sizes of the memory areas for the next slice. `previous_areas` holds the sizes in the journal's last
    /// slice.
    memory: Vec<AreaBytes>,
    pub(crate) previous_areas: Areas,
    pub(crate) sites: usize,
    pub(crate) stride: Stride,
    pub(crate) first_tick: Option<u64>,
    pub(crate) last_tick: Option<u64>,
    /// One past the last tick of the compressed blocks.
    pub(crate) from_tick: u64,
    pub(crate) encoder: Encoder,
    pub(crate) compressor: PayloadCompressor,
    /// Number of slices, from the next slice on, that the writer compresses quickly because slices were lost.
    hurry: u32,
    /// Usual time between two slices, in nanoseconds; less if the recording has just begun; 0 while slices
    /// are lost. From this time, the writer computes how long compression may take.
    pub(crate) pause_ns: u64,
    /// Time between the last two slices, in nanoseconds; 0 while slices are lost.
    pub(crate) gap_ns: u64,
    /// Whether the writer has received the last slice of the recording.
    pub(crate) is_ending: bool,
    last_ns: u64,
    pub(crate) decoder: Decoder,
    pub(crate) decompressor: PayloadDecompressor,
    content: Vec<u8>,
}

impl TraceWriter {
    /// Creates a trace that only its owner can read. If the file exists, it must be empty.
    ///
    /// # Errors
    /// `CapacityTooSmall` below [`MIN_CAPACITY_BYTES`](crate::MIN_CAPACITY_BYTES); `InUse`; `AlreadyExists`;
    /// `NoSpace` if not even the first page fits; `Io`.
    pub fn create(path: &Path, capacity_bytes: u64) -> Result<TraceWriter, Error> {
        Self::create_inner(path, capacity_bytes).map_err(|error| error.context(error::writing(path)))
    }

    fn create_inner(path: &Path, capacity_bytes: u64) -> Result<TraceWriter, Error> {
        let capacity = new_file::checked_capacity(capacity_bytes)?;
        let (salt, page) = new_file::first_page(capacity);
        let ring = Ring::new(new_file::create(path)?, capacity, salt, &page)?;
        Ok(Self::on(ring, path))
    }

    /// Starts a trace in memory, for a process that may end soon. [`create_file`](Self::create_file) gives
    /// the trace a file. [`map_file`](Self::map_file) writes the slices and records so far into the file, and
    /// [`finish`](Self::finish) writes the whole trace with one call.
    ///
    /// # Errors
    /// `CapacityTooSmall` below [`MIN_CAPACITY_BYTES`](crate::MIN_CAPACITY_BYTES).
    pub fn in_memory(path: &Path, capacity_bytes: u64) -> Result<TraceWriter, Error> {
        let start = || {
            let capacity = new_file::checked_capacity(capacity_bytes)?;
            let (salt, page) = new_file::first_page(capacity);
            Ok(Self::on(Ring::in_memory(capacity, salt, &page)?, path))
        };
        start().map_err(|error: Error| error.context(error::writing(path)))
    }

    /// Whether the trace has a file.
    pub fn has_file(&self) -> bool {
        self.ring.file().is_some()
    }

    /// Whether the trace is in memory: it has no file, or its file is still empty.
    pub fn is_in_memory(&self) -> bool {
        self.ring.is_in_memory()
    }

    /// Creates and locks the file of a trace in memory; the file stays empty. If the trace has a file, the
    /// function does nothing.
    ///
    /// # Errors
    /// The errors of [`create`](Self::create). If `create_file` returns an error, the trace stays in memory.
    pub fn create_file(&mut self) -> Result<(), Error> {
        if self.ring.file().is_none() {
            let file = new_file::create(&self.path).map_err(|error| self.named(error))?;
            self.ring.set_file(file);
        }
        Ok(())
    }

    /// Writes a trace in memory into its file. After this call, each slice is in the file when
    /// [`slice`](Self::slice) returns.
    ///
    /// # Errors
    /// The errors of [`create_file`](Self::create_file); `NoSpace`.
    pub fn map_file(&mut self) -> Result<(), Error> {
        self.create_file()?;
        self.ring.map_file().map_err(|error| self.named(error))
    }

    /// Empties the trace and starts it again. The collector calls this function if a process executes another
    /// program just after its recording began. The file keeps its name and its lock.
    ///
    /// # Errors
    /// The errors of [`create`](Self::create).
    pub fn restart(self) -> Result<TraceWriter, Error> {
        let TraceWriter { ring, path, .. } = self;
        let (file, capacity) = ring.into_file();
        let (salt, page) = new_file::first_page(capacity);
        let again = match file {
            None => Ring::in_memory(capacity, salt, &page),
            Some(file) => file
                .set_len(0)
                .map_err(|error| Error::io("cannot empty the file", error))
                .and_then(|()| Ring::new(file, capacity, salt, &page)),
        };
        let ring = again.map_err(|error| error.context(error::writing(&path)))?;
        Ok(Self::on(ring, &path))
    }

    /// Whether the file is still at `path`: another process may have moved or deleted the file. For a trace
    /// that has no file yet, `is_at` returns `true`.
    pub fn is_at(&self, path: &Path) -> bool {
        self.ring.file().is_none_or(|file| place::is_at(file, path))
    }

    /// Starts a trace in an empty ring.
    fn on(ring: Ring, path: &Path) -> TraceWriter {
        let capacity = ring.capacity();
        TraceWriter {
            ring,
            path: path.to_owned(),
            sequence: 0,
            blocks: Vec::new(),
            catalog: Vec::new(),
            journal: None,
            journal_bytes: FIRST_JOURNAL_BYTES.min(capacity / 16),
            full_slice_bytes: 0,
            pending: Vec::new(),
            previous: Vec::new(),
            memory: Vec::new(),
            previous_areas: Areas::default(),
            sites: 0,
            stride: Stride::default(),
            first_tick: None,
            last_tick: None,
            from_tick: 0,
            encoder: Encoder::new(),
            compressor: PayloadCompressor::default(),
            hurry: 0,
            pause_ns: 0,
            gap_ns: 0,
            is_ending: false,
            last_ns: 0,
            decoder: Decoder::default(),
            decompressor: PayloadDecompressor::default(),
            content: Vec::new(),
        }
    }

    /// Adds a record to the catalog. The next call of [`slice`](Self::slice) or [`sync`](Self::sync) writes
    /// the record to the file.
    ///
    /// # Errors
    /// `InvalidInput` for a site whose id is not below 2^20. The errors of `sync` can also occur, because a
    /// large batch of records is written at once.
    pub fn record(&mut self, record: &Record) -> Result<(), Error> {
        if let Record::Site(site) = record
            && site.id.0 as usize >= MAX_SITES
        {
            return Err(self.named(too_many_sites(site.id.0 as usize + 1)));
        }
        catalog::encode(record, &mut self.pending);
        if self.pending.len() >= MAX_PENDING_BYTES { self.sync() } else { Ok(()) }
    }

    /// The largest number of sites for which a slice with absolute values surely fits into the trace. If the
    /// target has more sites, the recording may end because a slice does not fit.
    pub fn most_sites(&self) -> usize {
        /// Number of bytes reserved for a site's id and its four counters; most sites need fewer bytes.
        const BYTES: u64 = 24;
        usize::try_from(self.most_journal_bytes() / BYTES).unwrap_or(usize::MAX)
    }

    /// Whether the catalog is so large that many new records would fill the file and end the recording. If it
    /// is, a recorder can stop recording new stacks, because most new records are stacks.
    pub fn is_nearly_full(&self) -> bool {
        self.is_catalog_nearly_full()
    }

    /// Sets the sizes of the memory areas for the next slice and all later slices; `areas[i]` belongs to
    /// `AreaId(i)`. The writer leaves out areas beyond [`MAX_AREAS`](crate::MAX_AREAS).
    pub fn memory(&mut self, areas: &[AreaBytes]) {
        self.memory.clear();
        self.memory.extend_from_slice(&areas[..areas.len().min(crate::MAX_AREAS)]);
    }

    /// Writes one slice; `counters[i]` belongs to `SiteId(i)`. The number of sites must never fall, and ticks
    /// must increase.
    ///
    /// # Errors
    /// `NoSpace`: the trace does not have this slice, but has all earlier slices and records. `CutOff`:
    /// another process truncated the file, and the data after the new end is lost. `CapacityTooSmall`,
    /// `CatalogTooLarge`, `InvalidInput`.
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
                format!("{} sites after {}", counters.len(), self.sites),
            )
            .with_remedy("keep every site once seen"));
        }
        if self.last_tick.is_some_and(|last| header.tick <= last) || header.tick == u64::MAX {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("tick {} is not after the one before", header.tick),
            )
            .with_remedy("let ticks increase"));
        }
        self.ring.check_length()?;
        // A recording that has just begun may end soon, for example the recording of a shell's child. So
        // compression may take only a small share of the recorded time.
        self.gap_ns = self.usual_gap_ns(header);
        self.pause_ns = self.gap_ns.min(header.time_ns / YOUNG_SHARE);
        self.last_ns = header.time_ns;
        self.flush_records(LAST_WORDS_BYTES)?;
        let mut content = std::mem::take(&mut self.content);
        let mut areas = self.previous_areas.clone();
        chunk::encode_slice(&mut content, header, counters, &self.previous, &self.memory, &mut areas);
        if !self.journal.is_some_and(|journal| journal.has_room(content.len() + LAST_WORDS_BYTES)) {
            self.close_journal()?;
            areas = self.previous_areas.clone();
            chunk::encode_slice(&mut content, header, counters, &self.previous, &self.memory, &mut areas);
            self.full_slice_bytes = content.len();
            self.open_journal(content.len() + LAST_WORDS_BYTES)?;
        }
        self.append(ChunkKind::Slice, &content);
        self.previous_areas = areas;
        self.content = content;

        let journal = self.journal.as_mut().expect("opened above");
        journal.slices += 1;
        journal.first_slice.get_or_insert(header.tick);
        self.previous.clear();
        self.previous.extend_from_slice(counters);
        self.sites = counters.len();
        let level = self.stride.level();
        self.stride.note(header.tick);
        if self.stride.level() > level {
            self.hurry = 0; // the recorder has doubled the period, and no slice was lost
        }
        self.first_tick.get_or_insert(header.tick);
        self.last_tick = Some(header.tick);
        Ok(())
    }

    /// The usual time between two slices, from which the writer computes the time for compression; 0:
    /// compress quickly. When other programs need the processor, slices are lost and the time to the next
    /// slice is long. While slices are lost, the function returns 0, because slow compression would lose even
    /// more slices.
    fn usual_gap_ns(&mut self, header: &SliceHeader) -> u64 {
        let ticks = header.tick.saturating_sub(self.last_tick.unwrap_or(header.tick));
        self.hurry = match ticks >> self.stride.level() {
            0 | 1 => self.hurry.saturating_sub(1),
            _ => HURRIED_SLICES,
        };
        if self.hurry > 0 { 0 } else { header.time_ns.saturating_sub(self.last_ns) }
    }

    /// Writes all records that are not in the file yet.
    ///
    /// # Errors
    /// `NoSpace`; `CatalogTooLarge` if the catalog needs more than a third of the capacity.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.flush_records(LAST_WORDS_BYTES).map_err(|error| self.named(error))
    }

    /// Length that the file would have if the writer finished it now. The length includes the journal, with
    /// its size before compression.
    pub fn bytes(&self) -> u64 {
        let spare = self.journal.map_or(0, |journal| journal.header.payload_bytes - journal.used);
        self.ring.capacity() - self.ring.free_bytes() - spare
    }

    /// Compresses the journal, closes the gaps between blocks and truncates the file. Returns the length of
    /// the file.
    ///
    /// # Errors
    /// `NoSpace` if there is no room for the last records. If the disk is too full to compress the journal,
    /// the journal stays uncompressed and readable; this is not an error.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.create_file()?;
        let path = std::mem::take(&mut self.path);
        let flushed = self.flush_records(0).inspect_err(|_| self.keep_losses_and_end());
        let done = flushed.and_then(|()| match self.close_journal() {
            Err(error) if error.kind() != ErrorKind::NoSpace => Err(error),
            _ => Ok(()),
        });
        let merged = done.and_then(|()| match self.merge_put_off() {
            Err(error) if error.kind() != ErrorKind::NoSpace => Err(error),
            _ => Ok(()),
        });
        let packed = merged.and_then(|()| {
            if let Some(journal) = self.journal.take_if(|journal| journal.chunks == 0) {
                self.ring.release(journal.at);
            }
            match self.pack() {
                Err(error) if error.kind() != ErrorKind::NoSpace => Err(error),
                _ => Ok(()),
            }
        });
        let length = self.ring.finish();
        packed.and(length).map_err(|error| error.context(error::writing(&path)))
    }

    fn named(&self, error: Error) -> Error {
        error.context(error::writing(&self.path))
    }

    /// Writes pending records into the journal; many records are written into a separate block. At least
    /// `keep_bytes` of the journal stay free.
    fn flush_records(&mut self, keep_bytes: usize) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let result = self.write_records(&pending, keep_bytes);
        self.pending = pending;
        if result.is_ok() {
            self.pending.clear();
            self.pending.shrink_to(MAX_PENDING_KEPT_BYTES);
        }
        result
    }

    fn write_records(&mut self, encoded: &[u8], keep_bytes: usize) -> Result<(), Error> {
        if encoded.len() as u64 > self.journal_bytes / JOURNAL_RECORDS_SHARE {
            // The records in the journal are older than the pending records, so they must not replace the
            // pending records.
            self.close_journal()?;
            let mut records = EncodedRecords::default();
            records.add(encoded).expect("the writer encoded them");
            self.add_catalog(&records)?;
            // Records that are written into the open journal from now on are newer than the new catalog
            // block, so the journal needs a higher sequence than this block.
            self.renew_empty_journal();
            return Ok(());
        }
        if !self.journal.is_some_and(|journal| journal.has_room(encoded.len() + keep_bytes)) {
            self.close_journal()?;
            match self.open_journal(encoded.len() + keep_bytes) {
                Err(error) if error.kind() == ErrorKind::NoSpace && keep_bytes == 0 => {
                    self.open_last_journal(encoded.len())?;
                }
                opened => opened?,
            }
        }
        self.append(ChunkKind::Records, encoded);
        self.journal.as_mut().expect("opened above").has_records = true;
        Ok(())
    }

    /// Drops all pending records except `Losses` and `End`, because the file has no room for all pending
    /// records.
    fn keep_losses_and_end(&mut self) {
        let mut records = Records::new();
        catalog::decode(&self.pending, FORMAT_VERSION, &mut records).expect("the writer encoded them");
        let mut words = Vec::new();
        for key in [Key::Losses, Key::End] {
            if let Some(record) = records.get(&key) {
                catalog::encode(record, &mut words);
            }
        }
        if !words.is_empty() && self.journal.is_some_and(|journal| journal.has_room(words.len())) {
            self.append(ChunkKind::Records, &words);
        }
    }

    pub(crate) fn too_small(&self) -> Error {
        Error::new(
            ErrorKind::CapacityTooSmall,
            format!(
                "a capacity of {} bytes cannot hold the slices of {} sites",
                self.ring.capacity(),
                self.sites
            ),
        )
        .with_remedy("use a larger --size")
    }
}

/// Maximum size of the buffer for pending records after a large batch, in bytes.
const MAX_PENDING_KEPT_BYTES: usize = 64 << 10;

fn too_many_sites(sites: usize) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{sites} sites are more than a trace can name"))
        .with_remedy(format!("merge some, at most {MAX_SITES}"))
}
