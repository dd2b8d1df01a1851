//! Turns the bytes of a file into slices and records. The reader returns undamaged data and counts damage.

use std::cell::Cell;
use std::fs::File;
use std::path::Path;

use zstd::bulk::Decompressor;

use crate::error::{self, Error, ErrorKind};
use crate::ids::{ModuleId, PoolId, SiteId, StackId};
use crate::layout::areas::Areas;
use crate::layout::block::{BlockHeader, BlockKind, HEADER_BYTES, payload_sum};
use crate::layout::catalog::Key;
use crate::layout::chunk::{ChunkKind, Chunks, decode_slice};
use crate::layout::delta::Decoder;
use crate::layout::header::{Header, PAGE_BYTES};
use crate::layout::stride::Grid;
use crate::lock;
use crate::memory::MemoryArea;
use crate::read::columns::{Columns, JOIN_STRIDE};
use crate::read::index::{Damage, Found, Index, index};
use crate::read::source::Source;
use crate::record::{
    Allocator, Attached, Children, CpuTotals, CpuUse, Earlier, End, GivenBack, Losses, Mappings, Mark,
    MarkLosses, MarkSlice, Module, ModuleSymbols, Pool, Pools, Record, Site, Stack, Start, Survivors,
    ThreadStart, UncountedFunctions, WatchEnd,
};
use crate::slice::{Counters, SliceVisitor};

/// Maximum size of a trace, in bytes, that the reader copies into memory first because a recorder still
/// writes the trace.
const MAX_SNAPSHOT_BYTES: u64 = 1 << 30;
/// Maximum number of times that the reader copies a trace which a recorder still writes. If the recorder
/// moves blocks during the copy, the reader makes another copy.
const SNAPSHOTS: usize = 3;

/// An undamaged block of slices. Blocks can be replayed in any order and in parallel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Tick of the first slice.
    pub first_tick: u64,
    /// Last tick that the block covers.
    pub last_tick: u64,
    /// Number of slices.
    pub slices: u32,
    /// Distance between two slices, in ticks.
    pub stride_ticks: u64,
}

/// An opened trace, with the list of its blocks.
pub struct Trace {
    source: Source,
    header: Header,
    found: Vec<Found>,
    blocks: Vec<BlockInfo>,
    damage: Damage,
    catalog: Catalog,
}

#[derive(Default)]
struct Catalog {
    start: Start,
    end: Option<End>,
    losses: Losses,
    children: Children,
    areas: Vec<MemoryArea>,
    allocators: Vec<Allocator>,
    cpu_time: Option<CpuTotals>,
    processor: Option<CpuUse>,
    marks: Vec<Mark>,
    mark_slices: Vec<MarkSlice>,
    mark_losses: Option<MarkLosses>,
    attached: Option<Attached>,
    mappings: Option<Mappings>,
    thread_starts: Vec<SiteId>,
    watch_ends: Vec<WatchEnd>,
    pools: Vec<Pool>,
    pool_totals: Option<Pools>,
    uncounted_functions: Vec<UncountedFunctions>,
    given_back: Vec<GivenBack>,
    earlier: Earlier,
    modules: Vec<Module>,
    sites: Vec<Site>,
    stacks: Vec<Stack>,
    survivors: Vec<Survivors>,
    symbols: Vec<ModuleSymbols>,
}

/// Buffers that a thread reuses for the next block.
#[derive(Default)]
struct Scratch {
    file: Vec<u8>,
    raw: Vec<u8>,
    decoder: Decoder,
    zstd: Option<Decompressor<'static>>,
    table: Vec<Counters>,
    changed: Vec<(SiteId, Counters)>,
}

thread_local! {
    // While a thread replays a block, it takes the buffers out of `SCRATCH`. If a visitor replays another
    // block meanwhile, `SCRATCH` is empty, and the replay of the other block gets new buffers.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Trace {
    /// Opens a trace. The recorder may still be writing the trace.
    ///
    /// # Errors
    /// `Empty`, `NotATrace`, `TruncatedHeader`, `NewerVersion`, `Io`. Damage after the first page does not
    /// cause an error.
    pub fn open(path: &Path) -> Result<Trace, Error> {
        Self::open_inner(path).map_err(|error| error.context(error::opening(path)))
    }

    fn open_inner(path: &Path) -> Result<Trace, Error> {
        let load = |in_memory: bool| {
            let io = |error| Error::io("cannot read the file", error);
            let file = File::open(path).map_err(io)?;
            let metadata = file.metadata().map_err(io)?;
            if metadata.is_dir() {
                return Err(Error::new(ErrorKind::NotATrace, "a directory is not a trace")
                    .with_remedy("give the file in it"));
            }
            // Refuse a FIFO, for example: it has no length, and its bytes cannot be read twice.
            let source = if metadata.is_file() {
                Source::File { file, length: metadata.len() }
            } else {
                return Err(Error::new(ErrorKind::NotATrace, "not a regular file")
                    .with_remedy("copy it into one first"));
            };
            let source = if in_memory { source.into_memory().map_err(io)? } else { source };
            Self::from_source(source)
        };
        // A recorder that still writes the file may move blocks, so the reader first copies the whole file
        // into memory.
        let is_short = std::fs::metadata(path).is_ok_and(|file| file.len() <= MAX_SNAPSHOT_BYTES);
        let in_memory = is_short && lock::may_be_written(path);
        let mut trace = load(in_memory)?;
        for _ in 1..if in_memory { SNAPSHOTS } else { 1 } {
            if trace.damage.is_sound() {
                break;
            }
            trace = load(true)?;
        }
        Ok(trace)
    }

    /// Reads a trace from memory.
    ///
    /// # Errors
    /// The errors of [`Trace::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Trace, Error> {
        Self::from_source(Source::Bytes(bytes))
    }

    fn from_source(source: Source) -> Result<Trace, Error> {
        let io = |error| Error::io("cannot read the file", error);
        let mut page = Vec::new();
        let page = source.read(0, PAGE_BYTES as u64, &mut page).map_err(io)?;
        let (header, unsound_copies) = Header::from_page(page)?;
        let Index { slices: found, records, mut damage } = index(&source, header).map_err(io)?;
        damage.skipped_bytes += unsound_copies * 32;
        let blocks = found.iter().map(|found| info(&found.header)).collect();
        let catalog = Catalog::new(records.into_iter());
        Ok(Trace { source, header, found, blocks, damage, catalog })
    }

    /// The recorded process; all fields are empty if the trace has lost this record.
    pub fn start(&self) -> &Start {
        &self.catalog.start
    }

    /// The end of the recording. `None`: the recording still runs, or its end is lost because the recorder
    /// was killed.
    pub fn end(&self) -> Option<&End> {
        self.catalog.end.as_ref()
    }

    /// Number of child processes without a trace.
    pub fn children(&self) -> &Children {
        &self.catalog.children
    }

    /// The memory areas whose sizes the slices hold, by ascending id. For a trace of format version 1 or 2,
    /// the list is empty.
    pub fn memory_areas(&self) -> &[MemoryArea] {
        &self.catalog.areas
    }

    /// The allocators of modules that have their own allocator, by ascending module id.
    pub fn allocators(&self) -> &[Allocator] {
        &self.catalog.allocators
    }

    /// The sites that start threads, by ascending id. At a site that starts threads, every allocation is
    /// memory that libc needs for one new thread.
    pub fn thread_starts(&self) -> &[SiteId] {
        &self.catalog.thread_starts
    }

    /// The ends of watches, by ascending site. If a site is watched again after its watch has ended, the time
    /// of the end is 0.
    pub fn watch_ends(&self) -> &[WatchEnd] {
        &self.catalog.watch_ends
    }

    /// Processor time of the process and its children. `None`: the trace has no record `CpuTotals`.
    pub fn cpu_totals(&self) -> Option<CpuTotals> {
        self.catalog.cpu_time
    }

    /// Processor time of the target. `None`: the trace has no record `CpuUse`.
    pub fn cpu_use(&self) -> Option<&CpuUse> {
        self.catalog.processor.as_ref()
    }

    /// The marks, by ascending id.
    pub fn marks(&self) -> &[Mark] {
        &self.catalog.marks
    }

    /// The slices of all marks, sorted by the number of the slice.
    pub fn mark_slices(&self) -> &[MarkSlice] {
        &self.catalog.mark_slices
    }

    /// Number of marks that are not in the trace, and number of slices of marks that are not in the trace.
    pub fn mark_losses(&self) -> MarkLosses {
        self.catalog.mark_losses.unwrap_or_default()
    }

    /// The state of the process when the recording began. `None`: the process did not run before the
    /// recording.
    pub fn attached(&self) -> Option<&Attached> {
        self.catalog.attached.as_ref()
    }

    /// The events that the recording missed in the domain of mapped memory. `None`: the recording does not
    /// count mapped memory.
    pub fn mappings(&self) -> Option<&Mappings> {
        self.catalog.mappings.as_ref()
    }

    /// The names of pools, by ascending id.
    pub fn pools(&self) -> &[Pool] {
        &self.catalog.pools
    }

    /// The pools with this id: all pools of one name.
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        by_key(&self.catalog.pools, id, |pool| pool.id)
    }

    /// The totals of the domain of pools. `None`: the recording does not count objects of pools.
    pub fn pool_totals(&self) -> Option<&Pools> {
        self.catalog.pool_totals.as_ref()
    }

    /// Functions whose calls the recording does not count, although it counts the other functions of the same
    /// allocator; by ascending module id.
    pub fn uncounted_functions(&self) -> &[UncountedFunctions] {
        &self.catalog.uncounted_functions
    }

    /// Pages that the program gave back with madvise, sorted by site. Pages whose site is unknown come first.
    pub fn given_back(&self) -> &[GivenBack] {
        &self.catalog.given_back
    }

    /// The file names of the traces of the programs that the process executed before this one.
    pub fn earlier_traces(&self) -> &[String] {
        &self.catalog.earlier.traces
    }

    /// Events that the recording missed.
    pub fn losses(&self) -> &Losses {
        &self.catalog.losses
    }

    /// Modules, by ascending id.
    pub fn modules(&self) -> &[Module] {
        &self.catalog.modules
    }

    /// Sites, by ascending id. If the record of a site is lost, this list does not have the site, although
    /// slices hold its counters.
    pub fn sites(&self) -> &[Site] {
        &self.catalog.sites
    }

    /// Stacks, by ascending id.
    pub fn stacks(&self) -> &[Stack] {
        &self.catalog.stacks
    }

    /// The allocations of each watched site, counted separately for each birth epoch; by ascending site id.
    pub fn survivors(&self) -> &[Survivors] {
        &self.catalog.survivors
    }

    /// The symbols that are stored in the trace, by ascending module id.
    pub fn symbols(&self) -> &[ModuleSymbols] {
        &self.catalog.symbols
    }

    /// The site with this id.
    pub fn site(&self, id: SiteId) -> Option<&Site> {
        by_key(&self.catalog.sites, id, |site| site.id)
    }

    /// The module with this id.
    pub fn module(&self, id: ModuleId) -> Option<&Module> {
        by_key(&self.catalog.modules, id, |module| module.id)
    }

    /// The stack with this id.
    pub fn stack(&self, id: StackId) -> Option<&Stack> {
        by_key(&self.catalog.stacks, id, |stack| stack.id)
    }

    /// All records of the catalog. If several records have the same key, the list has only the newest one. In
    /// the list, `Start` comes first and `End` last.
    pub fn records(&self) -> Vec<Record> {
        let catalog = &self.catalog;
        let mut records = vec![Record::Start(catalog.start.clone())];
        records.extend(catalog.modules.iter().cloned().map(Record::Module));
        records.extend(catalog.stacks.iter().cloned().map(Record::Stack));
        records.extend(catalog.sites.iter().cloned().map(Record::Site));
        records.extend(catalog.survivors.iter().cloned().map(Record::Survivors));
        records.extend(catalog.symbols.iter().cloned().map(Record::Symbols));
        records.extend(catalog.areas.iter().cloned().map(Record::MemoryArea));
        records.extend(catalog.allocators.iter().cloned().map(Record::Allocator));
        records.extend(catalog.cpu_time.map(Record::CpuTotals));
        records.push(Record::Losses(catalog.losses));
        if catalog.children != Children::default() {
            records.push(Record::Children(catalog.children));
        }
        records.extend(catalog.processor.map(Record::CpuUse));
        records.extend(catalog.marks.iter().cloned().map(Record::Mark));
        records.extend(catalog.mark_slices.iter().cloned().map(Record::MarkSlice));
        records.extend(catalog.mark_losses.map(Record::MarkLosses));
        records.extend(catalog.attached.clone().map(Record::Attached));
        records.extend(catalog.mappings.map(Record::Mappings));
        let starts = catalog.thread_starts.iter().map(|&site| Record::ThreadStart(ThreadStart { site }));
        records.extend(starts);
        records.extend(catalog.watch_ends.iter().copied().map(Record::WatchEnd));
        records.extend(catalog.pools.iter().cloned().map(Record::Pool));
        records.extend(catalog.pool_totals.map(Record::Pools));
        records.extend(catalog.uncounted_functions.iter().cloned().map(Record::UncountedFunctions));
        records.extend(catalog.given_back.iter().copied().map(Record::GivenBack));
        if catalog.earlier != Earlier::default() {
            records.push(Record::Earlier(catalog.earlier.clone()));
        }
        records.extend(catalog.end.map(Record::End));
        records
    }

    /// The undamaged blocks of slices by ascending tick, without overlaps.
    pub fn blocks(&self) -> &[BlockInfo] {
        &self.blocks
    }

    /// Passes the slices of one block to `visitor`.
    ///
    /// # Errors
    /// `ChangedWhileRead` if the block has changed since the trace was opened; `Io` if the file cannot be
    /// read.
    ///
    /// # Panics
    /// Panics if there is no block with this index.
    pub fn replay_block<V: SliceVisitor>(&self, index: usize, visitor: &mut V) -> Result<(), Error> {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let done = self.replay_with(&self.found[index], &mut scratch, visitor);
        SCRATCH.set(Some(scratch));
        done
    }

    /// Prepares one block for reading site by site.
    ///
    /// # Errors
    /// The errors of [`Trace::replay_block`]. After an error, `columns` holds the slices that could be read.
    ///
    /// # Panics
    /// Panics if there is no block with this index.
    pub fn columns(&self, index: usize, columns: &mut Columns) -> Result<(), Error> {
        columns.clear();
        let found = &self.found[index];
        if found.header.kind == BlockKind::Journal {
            // Turn the journal into columns. The conversion takes little time, because a trace has at most
            // one journal and a journal is short.
            return columns.encode(found.header.from_tick, |visitor| self.replay_block(index, visitor));
        }
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let inflated = self.inflate(found, &mut scratch, &mut columns.raw);
        SCRATCH.set(Some(scratch));
        if inflated? {
            columns.locate(found.header.from_tick, found.header.last_tick);
        }
        Ok(())
    }

    pub(crate) fn block_header(&self, index: usize) -> BlockHeader {
        self.found[index].header
    }

    /// The header and the compressed payload of a complete block. `None`: the block is a journal.
    pub(crate) fn compressed_block(&self, index: usize) -> Result<Option<(BlockHeader, Vec<u8>)>, Error> {
        let Found { at, header } = self.found[index];
        if header.kind == BlockKind::Journal {
            return Ok(None);
        }
        let mut buffer = Vec::new();
        let payload = self
            .source
            .read(at + HEADER_BYTES as u64, header.payload_bytes, &mut buffer)
            .map_err(|error| Error::io("cannot read the file", error))?
            .to_vec();
        if payload_sum(self.header.salt, header.sequence, &payload) != header.payload_sum {
            return Err(changed_while_read());
        }
        Ok(Some((header, payload)))
    }

    fn replay_with<V: SliceVisitor>(
        &self,
        found: &Found,
        scratch: &mut Scratch,
        visitor: &mut V,
    ) -> Result<(), Error> {
        let header = &found.header;
        if header.kind == BlockKind::Journal {
            let Scratch { file, table, changed, .. } = scratch;
            return self.replay_journal(header, self.payload(found, file)?, table, changed, visitor);
        }
        let mut raw = std::mem::take(&mut scratch.raw);
        let inflated = self.inflate(found, scratch, &mut raw);
        scratch.raw = raw;
        if inflated? {
            let decoder = &mut scratch.decoder;
            let _slices = decoder.decode(&scratch.raw, header.from_tick, header.last_tick, visitor);
        }
        Ok(())
    }

    fn payload<'a>(&'a self, found: &Found, file: &'a mut Vec<u8>) -> Result<&'a [u8], Error> {
        let length = HEADER_BYTES as u64 + found.header.payload_bytes;
        let block = self
            .source
            .read(found.at, length, file)
            .map_err(|error| Error::io("cannot read the file", error))?;
        block.get(HEADER_BYTES..).ok_or_else(changed_while_read)
    }

    /// Decompresses a complete block. `false`: the checksum is right but zstd rejects the payload, so the
    /// file was written with a wrong payload.
    fn inflate(&self, found: &Found, scratch: &mut Scratch, raw: &mut Vec<u8>) -> Result<bool, Error> {
        let Scratch { file, zstd, .. } = scratch;
        let header = &found.header;
        let payload = self.payload(found, file)?;
        if payload.len() as u64 != header.payload_bytes
            || payload_sum(self.header.salt, header.sequence, payload) != header.payload_sum
        {
            return Err(changed_while_read());
        }
        let zstd = match zstd {
            Some(zstd) => zstd,
            None => zstd.insert(Decompressor::new().map_err(|error| Error::io("cannot set up zstd", error))?),
        };
        raw.clear();
        raw.reserve(header.raw_bytes as usize + JOIN_STRIDE);
        Ok(zstd.decompress_to_buffer(payload, raw).is_ok())
    }

    fn replay_journal<V: SliceVisitor>(
        &self,
        header: &BlockHeader,
        payload: &[u8],
        table: &mut Vec<Counters>,
        changed: &mut Vec<(SiteId, Counters)>,
        visitor: &mut V,
    ) -> Result<(), Error> {
        table.clear();
        let mut areas = Areas::default();
        let slices = Chunks::new(self.header.salt, header, payload)
            .filter(|chunk| chunk.kind == ChunkKind::Slice)
            .take(header.slices as usize);
        let mut seen = 0;
        for chunk in slices {
            let Some(slice) = decode_slice(chunk.content, table, changed, &mut areas) else { break };
            if !areas.changed().is_empty() {
                visitor.memory(&slice, areas.changed());
            }
            visitor.slice(&slice, changed);
            seen += 1;
        }
        if seen < header.slices { Err(changed_while_read()) } else { Ok(()) }
    }

    /// The damage of this trace: counts of its damaged and lost parts.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// The format version of the trace.
    pub fn format_version(&self) -> u32 {
        self.header.version
    }

    /// The greatest distance between slices in this trace, in ticks.
    pub fn stride_ticks(&self) -> u64 {
        self.grid().stride_ticks
    }

    /// The evenly spaced points of this trace.
    pub fn grid(&self) -> Grid {
        /// If a trace has at most five slices, it has at most four distances between slices, which is too few
        /// to show the stride. For a trace of at most five slices, the grid uses the period in the record
        /// `Start`.
        const FEW: u64 = 5;
        let mut slices = 0u64;
        let mut stride_ticks = 1;
        let mut ticks: Option<(u64, u64)> = None;
        for block in self.blocks.iter().filter(|block| block.slices > 0) {
            slices = slices.saturating_add(u64::from(block.slices));
            stride_ticks = stride_ticks.max(block.stride_ticks);
            ticks = Some((ticks.map_or(block.first_tick, |(first, _)| first), block.last_tick));
        }
        if slices <= FEW {
            let begun = self.start().period_ticks;
            stride_ticks = stride_ticks.max(if begun.is_power_of_two() { begun } else { 1 });
        }
        match ticks {
            Some((first, last)) => Grid::new(stride_ticks, first, last, slices),
            None => Grid { stride_ticks, first_tick: 0, points: 0 },
        }
    }
}

impl Catalog {
    fn new(records: impl Iterator<Item = (Key, Record)>) -> Catalog {
        let mut catalog = Catalog::default();
        for (_, record) in records {
            match record {
                Record::Start(start) => catalog.start = start,
                Record::Module(module) => catalog.modules.push(module),
                Record::Site(site) => catalog.sites.push(site),
                Record::Stack(stack) => catalog.stacks.push(stack),
                Record::Survivors(survivors) => catalog.survivors.push(survivors),
                Record::Symbols(symbols) => catalog.symbols.push(symbols),
                Record::Losses(losses) => catalog.losses = losses,
                Record::Children(children) => catalog.children = children,
                Record::MemoryArea(area) => catalog.areas.push(area),
                Record::Allocator(allocator) => catalog.allocators.push(allocator),
                Record::CpuTotals(time) => catalog.cpu_time = Some(time),
                Record::CpuUse(processor) => catalog.processor = Some(processor),
                Record::Mark(mark) => catalog.marks.push(mark),
                Record::MarkSlice(slice) => catalog.mark_slices.push(slice),
                Record::MarkLosses(losses) => catalog.mark_losses = Some(losses),
                Record::Attached(attached) => catalog.attached = Some(attached),
                Record::Mappings(mappings) => catalog.mappings = Some(mappings),
                Record::ThreadStart(start) => catalog.thread_starts.push(start.site),
                Record::WatchEnd(end) => catalog.watch_ends.push(end),
                Record::Pool(pool) => catalog.pools.push(pool),
                Record::Pools(pools) => catalog.pool_totals = Some(pools),
                Record::UncountedFunctions(functions) => catalog.uncounted_functions.push(functions),
                Record::GivenBack(given) => catalog.given_back.push(given),
                Record::Earlier(earlier) => catalog.earlier = earlier,
                Record::End(end) => catalog.end = Some(end),
            }
        }
        catalog
    }
}

fn by_key<T, K: Ord>(items: &[T], key: K, key_of: impl Fn(&T) -> K) -> Option<&T> {
    items.binary_search_by_key(&key, key_of).ok().map(|index| &items[index])
}

fn info(header: &BlockHeader) -> BlockInfo {
    BlockInfo {
        first_tick: header.first_tick,
        last_tick: header.last_tick,
        slices: header.slices,
        stride_ticks: 1 << header.level,
    }
}

fn changed_while_read() -> Error {
    Error::new(ErrorKind::ChangedWhileRead, "a block changed while the trace was read")
        .with_remedy("read it again")
}
