//! Reads a trace again and again while a recorder still writes it. Each refresh reads only the new parts of
//! the file.
//!
//! A refresh reads the headers of all blocks (64 bytes each), but only those payloads that are new. New
//! payloads are the end of the journal, blocks of slices after the newest slice that the reader has read, and
//! catalog blocks that were written since the last refresh. If the recorder moves or thins blocks, their
//! slices are already known, so the refresh does not read them again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{self, Error, ErrorKind};
use crate::ids::{AreaId, ModuleId, SiteId, StackId};
use crate::layout::areas::Areas;
use crate::layout::block::{ALIGN_BYTES, BlockHeader, BlockKind, HEADER_BYTES, payload_sum, u32_at};
use crate::layout::catalog::{self, Key, Records};
use crate::layout::chunk::{self, CHUNK_HEADER_BYTES, ChunkKind, Chunks};
use crate::layout::delta::Decoder;
use crate::layout::header::{Header, PAGE_BYTES};
use crate::memory::AreaBytes;
use crate::place::identity;
use crate::read::index::{Found, inflate, newest_cover, raw_limit};
use crate::read::source::Source;
use crate::record::{Children, End, Losses, Module, Record, Site, Stack, Start};
use crate::slice::{Counters, SliceHeader, SliceVisitor};

/// Number of times that a refresh tries to read the blocks. An attempt fails if the recorder moves blocks
/// during the read. If the last attempt does not find a block either, the refresh continues without this
/// block.
const ATTEMPTS: usize = 4;
/// Number of bytes of the journal that one step reads.
const JOURNAL_READ_BYTES: u64 = 64 << 10;
/// Number of bytes that one step of the search for the next undamaged header reads.
const SEARCH_BYTES: u64 = 64 << 10;

/// The result of a refresh.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Update {
    /// Number of slices that the refresh passed to the visitor.
    pub slices: u64,
    /// Number of catalog records that are new or that replaced a record.
    pub records: u64,
    /// Whether the file holds another recording than at the previous refresh. If the file holds another
    /// recording, the reader has already dropped the data of the old recording.
    pub is_new_recording: bool,
    /// Number of blocks that the refresh could not read. The visitor does not get the slices of a block that
    /// could not be read.
    pub torn_blocks: u64,
}

/// A trace that is being written. Reading a growing trace never disturbs the recorder. Dropping this value
/// closes the file.
pub struct GrowingTrace {
    path: PathBuf,
    file: File,
    /// Device and inode of the file. If the name now leads to another file, that file has another device or
    /// inode.
    identity: (u64, u64),
    header: Header,
    /// Whether the first refresh reads only the newest block of slices and skips all older blocks of slices.
    skips_history: bool,
    journal: Option<OpenJournal>,
    /// The highest sequence of the catalog blocks that were read.
    catalog_sequence: u64,
    /// Number of bytes that decompressed catalog blocks may still take in this refresh.
    catalog_raw_left: u64,
    records: Records,
    /// The reader has read all slices before this tick, and no slice at this tick or after it.
    next_tick: u64,
    /// The counters of every site in the newest slice that was read.
    known: Vec<Counters>,
    bytes_read: u64,
}

/// The part of the journal that earlier refreshes have read.
struct OpenJournal {
    sequence: u64,
    used_bytes: u64,
    chunks: u32,
    table: Vec<Counters>,
    areas: Areas,
}

/// The headers of all blocks of a file at one moment.
#[derive(Default)]
struct Headers {
    slices: Vec<Found>,
    catalogs: Vec<Found>,
    /// The header of the block that the recorder wrote last.
    newest: Option<BlockHeader>,
}

/// The error for a read that failed because the recorder changed the block at the same time.
struct Changed;

impl GrowingTrace {
    /// Opens a trace and reads only its first page.
    ///
    /// # Errors
    /// The errors of [`Trace::open`](crate::Trace::open).
    pub fn open(path: &Path) -> Result<GrowingTrace, Error> {
        let (file, identity, header) =
            open_file(path).map_err(|error| error.context(error::opening(path)))?;
        Ok(GrowingTrace {
            path: path.to_owned(),
            file,
            identity,
            header,
            skips_history: false,
            journal: None,
            catalog_sequence: 0,
            catalog_raw_left: 0,
            records: Records::new(),
            next_tick: 0,
            known: Vec::new(),
            bytes_read: PAGE_BYTES as u64,
        })
    }

    /// Makes the first refresh skip all blocks of slices except the newest block. Call this function before
    /// the first refresh.
    pub fn skip_history(&mut self) {
        self.skips_history = true;
    }

    /// Reads all data that is new since the last refresh. `visitor` gets every slice once, by ascending tick.
    /// For each slice, `changed` holds the sites that changed since the previous slice that `visitor`
    /// received.
    ///
    /// # Errors
    /// `Io`; if another file has taken the name of the trace, also the errors of [`GrowingTrace::open`].
    pub fn refresh<V: SliceVisitor + ?Sized>(&mut self, visitor: &mut V) -> Result<Update, Error> {
        let path = self.path.clone();
        self.refresh_inner(visitor).map_err(|error| error.context(error::opening(&path)))
    }

    fn refresh_inner<V: SliceVisitor + ?Sized>(&mut self, visitor: &mut V) -> Result<Update, Error> {
        let mut update = Update { is_new_recording: self.follow_name()?, ..Update::default() };
        // If a block is missing, the last attempt to read the blocks continues without it; an earlier attempt
        // fails.
        let mut attempts = (1..=ATTEMPTS).map(|attempt| attempt == ATTEMPTS);
        while let Some(is_last) = attempts.next()
            && self.read_new(visitor, &mut update, is_last)?.is_err()
        {}
        self.skips_history = false;
        Ok(update)
    }

    /// Returns whether the path or the file now holds another recording. If another recording has begun,
    /// drops all data of the old recording.
    fn follow_name(&mut self) -> Result<bool, Error> {
        let named = std::fs::metadata(&self.path).ok().map(|named| identity(&named));
        if named.is_some_and(|named| named != self.identity) {
            match open_file(&self.path) {
                Ok((file, identity, header)) => {
                    (self.file, self.identity) = (file, identity);
                    self.forget(header);
                    return Ok(true);
                }
                // Another file now has the name of the trace, but its recorder has not yet written the first
                // page.
                Err(error) if matches!(error.kind(), ErrorKind::Empty | ErrorKind::TruncatedHeader) => {}
                Err(error) => return Err(error),
            }
        }
        let length = self.length()?;
        let page = self.read(length, 0, PAGE_BYTES as u64)?;
        match Header::from_page(&page) {
            Ok((header, _)) if header.salt != self.header.salt => {
                self.forget(header);
                Ok(true)
            }
            // The file still holds the old recording, or its first page is damaged, or the recorder is just
            // writing the first page. In each of these three cases, keep the data that earlier refreshes have
            // read.
            _ => Ok(false),
        }
    }

    fn forget(&mut self, header: Header) {
        self.header = header;
        self.journal = None;
        self.catalog_sequence = 0;
        self.records.clear();
        self.next_tick = 0;
        self.known.clear();
    }

    fn length(&self) -> Result<u64, Error> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(cannot_read)
    }

    fn read(&mut self, length: u64, at: u64, bytes: u64) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::new();
        Source::read_file(&self.file, length, at, bytes, &mut buffer).map_err(cannot_read)?;
        self.bytes_read += buffer.len() as u64;
        Ok(buffer)
    }

    fn read_new<V: SliceVisitor + ?Sized>(
        &mut self,
        visitor: &mut V,
        update: &mut Update,
        is_last: bool,
    ) -> Result<Result<(), Changed>, Error> {
        let length = self.length()?;
        let Headers { slices, mut catalogs, newest } = self.headers(length)?;
        let expected = newest.map_or(0, |newest| usize::from(newest.catalog_blocks));
        if catalogs.len() < expected && !is_last {
            // While this loop read the headers, the recorder moved a catalog block to a position that the
            // loop had already read, so the loop did not find this block.
            return Ok(Err(Changed));
        }
        self.catalog_raw_left = raw_limit(length);
        catalogs.retain(|block| block.header.sequence > self.catalog_sequence);
        catalogs.sort_by_key(|block| block.header.sequence);
        for block in catalogs {
            match self.catalog_block(length, &block, update)? {
                Err(Changed) if !is_last => return Ok(Err(Changed)),
                Err(Changed) => update.torn_blocks += 1,
                Ok(()) => {}
            }
            self.catalog_sequence = block.header.sequence;
        }
        let mut cover = newest_cover(slices);
        cover.retain(|block| block.header.last_tick >= self.next_tick);
        if self.skips_history {
            // Keep the last compressed block too: if the journal has no slice yet, this block holds the
            // newest slice.
            let closed = cover.iter().rposition(|block| block.header.kind == BlockKind::Slices);
            cover.drain(..closed.unwrap_or(0));
            self.next_tick = self.next_tick.max(cover.first().map_or(0, |block| block.header.from_tick));
        }
        for block in cover {
            // Each block begins at the tick at which the previous block ends. If `block` begins at a later
            // tick than `next_tick`, the block before it is missing.
            if block.header.from_tick > self.next_tick {
                if !is_last {
                    return Ok(Err(Changed));
                }
                update.torn_blocks += 1;
            }
            let done = match block.header.kind {
                BlockKind::Journal => self.journal(length, &block, visitor, update)?,
                _ => self.slice_block(length, &block, visitor, update)?,
            };
            match done {
                Err(Changed) if !is_last => return Ok(Err(Changed)),
                Err(Changed) => update.torn_blocks += 1,
                Ok(()) => {}
            }
        }
        Ok(Ok(()))
    }

    /// The headers of all undamaged blocks. After the last extent that was ever used, the file holds only
    /// zeros, so the search ends there.
    fn headers(&mut self, length: u64) -> Result<Headers, Error> {
        let mut headers = Headers::default();
        let mut at = PAGE_BYTES as u64;
        while at < length {
            let bytes = self.read(length, at, HEADER_BYTES as u64)?;
            let Some(header) = BlockHeader::from_bytes(&bytes, self.header.salt) else {
                if bytes.iter().all(|&byte| byte == 0) {
                    break;
                }
                at = self.search(length, at)?;
                continue;
            };
            if header.kind != BlockKind::Free
                && headers.newest.is_none_or(|newest| header.written() >= newest.written())
            {
                headers.newest = Some(header);
            }
            match header.kind {
                BlockKind::Slices | BlockKind::Journal => headers.slices.push(Found { at, header }),
                BlockKind::Catalog => headers.catalogs.push(Found { at, header }),
                BlockKind::Free => {}
            }
            at = at.saturating_add(header.extent_bytes());
        }
        Ok(headers)
    }

    /// The position of the next undamaged header, or the end of the file.
    fn search(&mut self, length: u64, mut at: u64) -> Result<u64, Error> {
        while at < length {
            let bytes = self.read(length, at, SEARCH_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            let salt = self.header.salt;
            let mut lines = bytes.chunks(ALIGN_BYTES as usize);
            if let Some(line) = lines.position(|line| BlockHeader::from_bytes(line, salt).is_some()) {
                return Ok(at + line as u64 * ALIGN_BYTES);
            }
            at += bytes.len().next_multiple_of(ALIGN_BYTES as usize) as u64;
        }
        Ok(length)
    }

    /// The decompressed payload of a block.
    fn inflate(&mut self, length: u64, block: &Found) -> Result<Result<Vec<u8>, Changed>, Error> {
        let Found { at, header } = block;
        let payload = self.read(length, at + HEADER_BYTES as u64, header.payload_bytes)?;
        let is_sound = payload.len() as u64 == header.payload_bytes
            && payload_sum(self.header.salt, header.sequence, &payload) == header.payload_sum;
        if !is_sound {
            return Ok(Err(Changed));
        }
        let mut unlimited = u64::MAX;
        let left =
            if header.kind == BlockKind::Catalog { &mut self.catalog_raw_left } else { &mut unlimited };
        Ok(inflate(&payload, header.raw_bytes as usize, left).ok_or(Changed))
    }

    fn catalog_block(
        &mut self,
        length: u64,
        block: &Found,
        update: &mut Update,
    ) -> Result<Result<(), Changed>, Error> {
        let raw = match self.inflate(length, block)? {
            Ok(raw) => raw,
            Err(Changed) => return Ok(Err(Changed)),
        };
        update.records += self.take_records(&raw);
        Ok(Ok(()))
    }

    /// Adds encoded records to the catalog. Returns the number of records that are new or that replaced a
    /// record.
    fn take_records(&mut self, encoded: &[u8]) -> u64 {
        let mut found = Records::new();
        // Decoding stops at the first damaged record, and the records before it are used.
        let _unsound = catalog::decode(encoded, self.header.version, &mut found);
        let mut count = 0;
        for (key, record) in found {
            if self.records.get(&key) != Some(&record) {
                self.records.insert(key, record);
                count += 1;
            }
        }
        count
    }

    fn slice_block<V: SliceVisitor + ?Sized>(
        &mut self,
        length: u64,
        block: &Found,
        visitor: &mut V,
        update: &mut Update,
    ) -> Result<Result<(), Changed>, Error> {
        let raw = match self.inflate(length, block)? {
            Ok(raw) => raw,
            Err(Changed) => return Ok(Err(Changed)),
        };
        let (from_tick, last_tick) = (block.header.from_tick, block.header.last_tick);
        let mut new = NewSlices::after(self.next_tick, &mut self.known, visitor);
        let _slices = Decoder::default().decode(&raw, from_tick, last_tick, &mut new);
        update.slices += new.count;
        self.next_tick = self.next_tick.max(new.next_tick).max(last_tick.saturating_add(1));
        Ok(Ok(()))
    }

    /// Reads the journal from the position at which the last refresh stopped.
    fn journal<V: SliceVisitor + ?Sized>(
        &mut self,
        length: u64,
        block: &Found,
        visitor: &mut V,
        update: &mut Update,
    ) -> Result<Result<(), Changed>, Error> {
        let header = &block.header;
        let mut journal = match self.journal.take().filter(|open| open.sequence == header.sequence) {
            Some(open) => open,
            None => OpenJournal {
                sequence: header.sequence,
                used_bytes: 0,
                chunks: 0,
                table: Vec::new(),
                areas: Areas::default(),
            },
        };
        let mut changed = Vec::new();
        let mut wanted = JOURNAL_READ_BYTES;
        loop {
            let left = header.payload_bytes.saturating_sub(journal.used_bytes);
            let at = block.at + HEADER_BYTES as u64 + journal.used_bytes;
            let bytes = self.read(length, at, wanted.min(left))?;
            let before = journal.used_bytes;
            for chunk in Chunks::from_index(self.header.salt, header, &bytes, journal.chunks) {
                if chunk.kind == ChunkKind::Records {
                    update.records += self.take_records(chunk.content);
                } else {
                    let OpenJournal { table, areas, .. } = &mut journal;
                    let Some(slice) = chunk::decode_slice(chunk.content, table, &mut changed, areas) else {
                        break;
                    };
                    let mut new = NewSlices::after(self.next_tick, &mut self.known, visitor);
                    if !areas.changed().is_empty() {
                        new.memory(&slice, areas.changed());
                    }
                    new.slice(&slice, &changed);
                    update.slices += new.count;
                    self.next_tick = self.next_tick.max(new.next_tick);
                }
                journal.used_bytes += (CHUNK_HEADER_BYTES + chunk.content.len()) as u64;
                journal.chunks += 1;
            }
            if journal.used_bytes == before {
                // The next chunk may be longer than the bytes read so far.
                let needed = bytes
                    .get(..CHUNK_HEADER_BYTES)
                    .map_or(0, |head| CHUNK_HEADER_BYTES as u64 + u64::from(u32_at(head, 4)));
                if needed <= bytes.len() as u64 || needed > left {
                    break;
                }
                wanted = needed;
            } else {
                wanted = JOURNAL_READ_BYTES;
            }
        }
        self.journal = Some(journal);
        Ok(Ok(()))
    }

    /// The record of the recorded process. `None`: the reader has not read this record yet.
    pub fn start(&self) -> Option<&Start> {
        match self.records.get(&Key::Start) {
            Some(Record::Start(start)) => Some(start),
            _ => None,
        }
    }

    /// The end of the recording. `None`: the recording still runs, or its end is lost because the recorder
    /// was killed.
    pub fn end(&self) -> Option<&End> {
        match self.records.get(&Key::End) {
            Some(Record::End(end)) => Some(end),
            _ => None,
        }
    }

    /// Events that the recording has missed so far.
    pub fn losses(&self) -> Losses {
        match self.records.get(&Key::Losses) {
            Some(Record::Losses(losses)) => *losses,
            _ => Losses::default(),
        }
    }

    /// Number of child processes without a trace.
    pub fn children(&self) -> Children {
        match self.records.get(&Key::Children) {
            Some(Record::Children(children)) => *children,
            _ => Children::default(),
        }
    }

    /// The site with this id.
    pub fn site(&self, id: SiteId) -> Option<&Site> {
        match self.records.get(&Key::Site(id.0)) {
            Some(Record::Site(site)) => Some(site),
            _ => None,
        }
    }

    /// The module with this id.
    pub fn module(&self, id: ModuleId) -> Option<&Module> {
        match self.records.get(&Key::Module(id.0)) {
            Some(Record::Module(module)) => Some(module),
            _ => None,
        }
    }

    /// The stack with this id.
    pub fn stack(&self, id: StackId) -> Option<&Stack> {
        match self.records.get(&Key::Stack(id.0)) {
            Some(Record::Stack(stack)) => Some(stack),
            _ => None,
        }
    }

    /// All records that were read. If several records have the same key, the list has only the newest one.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The counters of every site in the newest slice that was read; `counters[i]` belongs to `SiteId(i)`.
    pub fn counters(&self) -> &[Counters] {
        &self.known
    }

    /// Bytes read from the file so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}

/// Passes to the visitor only slices that earlier refreshes have not passed, each with the changes since the
/// last slice that was passed.
struct NewSlices<'a, V: ?Sized> {
    next_tick: u64,
    known: &'a mut Vec<Counters>,
    /// Counters from those slices of the present block that earlier refreshes have already passed to the
    /// visitor. The next slice for the visitor also contains those of these counters that have changed.
    carried: BTreeMap<SiteId, Counters>,
    changed: Vec<(SiteId, Counters)>,
    visitor: &'a mut V,
    count: u64,
}

impl<'a, V: SliceVisitor + ?Sized> NewSlices<'a, V> {
    fn after(next_tick: u64, known: &'a mut Vec<Counters>, visitor: &'a mut V) -> NewSlices<'a, V> {
        let (carried, changed) = (BTreeMap::new(), Vec::new());
        NewSlices { next_tick, known, carried, changed, visitor, count: 0 }
    }
}

impl<V: SliceVisitor + ?Sized> SliceVisitor for NewSlices<'_, V> {
    fn memory(&mut self, header: &SliceHeader, changed: &[(AreaId, AreaBytes)]) {
        // Each slice after the first of a block holds only the areas that changed; the visitor already has
        // the other areas.
        if header.tick >= self.next_tick {
            self.visitor.memory(header, changed);
        }
    }

    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        if header.tick < self.next_tick {
            self.carried.extend(changed.iter().copied());
            return;
        }
        let mut all = std::mem::take(&mut self.changed);
        all.clear();
        if self.carried.is_empty() {
            all.extend_from_slice(changed);
        } else {
            let mut merged = std::mem::take(&mut self.carried);
            merged.extend(changed.iter().copied());
            all.extend(merged);
        }
        let known = &mut *self.known;
        all.retain(|&(SiteId(id), counters)| {
            let id = id as usize;
            if id >= known.len() {
                known.resize(id + 1, Counters::ZERO);
            }
            std::mem::replace(&mut known[id], counters) != counters
        });
        self.visitor.slice(header, &all);
        self.changed = all;
        self.next_tick = header.tick + 1;
        self.count += 1;
    }
}

fn cannot_read(error: io::Error) -> Error {
    Error::io("cannot read the file", error)
}

/// Opens a regular file and reads its first page.
fn open_file(path: &Path) -> Result<(File, (u64, u64), Header), Error> {
    // Opening a FIFO would wait until another process opens the FIFO for writing.
    let metadata = std::fs::metadata(path).map_err(cannot_read)?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::NotATrace, "not a regular file")
            .with_remedy("give the file that is written"));
    }
    let file = File::open(path).map_err(cannot_read)?;
    let metadata = file.metadata().map_err(cannot_read)?;
    let mut page = Vec::new();
    Source::read_file(&file, metadata.len(), 0, PAGE_BYTES as u64, &mut page).map_err(cannot_read)?;
    let (header, _) = Header::from_page(&page)?;
    Ok((file, identity(&metadata), header))
}
