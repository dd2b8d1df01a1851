//! Finds the undamaged blocks of a file; the file may be damaged anywhere.

use std::io;

use crate::layout::block::{ALIGN_BYTES, BlockHeader, BlockKind, HEADER_BYTES, MAX_RAW_BYTES, payload_sum};
use crate::layout::catalog::{self, Records};
use crate::layout::chunk::{ChunkKind, Chunks, decode_slice_header};
use crate::layout::header::{Header, PAGE_BYTES};
use crate::layout::stride::Stride;
use crate::read::source::Source;

/// The damage of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Damage {
    /// Number of damaged blocks: the checksum is wrong, or the block extends past the end of the file, or the
    /// other blocks show that a block is missing. If the last slice of the journal is torn, it counts as one
    /// damaged block.
    pub torn_blocks: u64,
    /// Number of bytes outside of all undamaged blocks.
    pub skipped_bytes: u64,
    /// Number of slices that are known to be lost. If all blocks of a span of ticks are missing, the slices
    /// that were due in this span count as lost.
    pub lost_slices: u64,
}

impl Damage {
    /// Whether the trace has no damage.
    pub fn is_sound(&self) -> bool {
        *self == Damage::default()
    }
}

/// An undamaged block of slices, or a journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub at: u64,
    /// The block's header. In a journal's header, the fields `slices`, `first_tick`, `last_tick` and `level`
    /// (the slices are 2^level ticks apart) are not those of the file: the reader computes them from the
    /// undamaged chunks.
    pub header: BlockHeader,
}

/// The undamaged blocks of a trace.
#[derive(Default)]
pub(crate) struct Index {
    /// The blocks by ascending tick; they do not overlap.
    pub slices: Vec<Found>,
    pub records: Records,
    pub damage: Damage,
}

/// Number of bytes that one step of the search for the next undamaged header reads.
const SEARCH_BYTES: u64 = 64 << 10;
/// The decompressed catalog may take this number of bytes plus `MAX_CATALOG_RATIO` times the length of the
/// file. The decompressed catalogs of real programs take 1/20 of the bytes that this limit allows. Without a
/// limit, a hostile file could make a reader use any amount of memory.
const MIN_CATALOG_RAW_BYTES: u64 = 4 << 20;
const MAX_CATALOG_RATIO: u64 = 64;

/// Maximum size of the decompressed catalog, in bytes, for a file of this length.
pub(crate) fn raw_limit(file_bytes: u64) -> u64 {
    file_bytes.saturating_mul(MAX_CATALOG_RATIO).saturating_add(MIN_CATALOG_RAW_BYTES)
}

struct Scan<'a> {
    source: &'a Source,
    salt: u64,
    version: u32,
    blocks: Vec<Found>,
    torn: Vec<Found>,
    /// For each block or journal, its sequence and its encoded records.
    catalogs: Vec<(u64, Vec<u8>)>,
    catalog_blocks: u64,
    torn_catalog_blocks: u64,
    catalog_raw_left: u64,
    newest: Option<BlockHeader>,
    damage: Damage,
}

/// Reads the whole file once and lists its undamaged blocks.
pub(crate) fn index(source: &Source, Header { salt, version, .. }: Header) -> io::Result<Index> {
    let mut scan = Scan {
        source,
        salt,
        version,
        blocks: Vec::new(),
        torn: Vec::new(),
        catalogs: Vec::new(),
        catalog_blocks: 0,
        torn_catalog_blocks: 0,
        catalog_raw_left: raw_limit(source.length()),
        newest: None,
        damage: Damage::default(),
    };
    scan.run()?;
    Ok(scan.finish())
}

impl Scan<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut at = PAGE_BYTES as u64;
        let (mut head, mut payload) = (Vec::new(), Vec::new());
        while at < self.source.length() {
            let bytes = self.source.read(at, HEADER_BYTES as u64, &mut head)?;
            at = match BlockHeader::from_bytes(bytes, self.salt) {
                Some(header) => self.block(at, header, &mut payload)?,
                None => self.search(at)?,
            };
        }
        Ok(())
    }

    /// Returns the position of the next undamaged header, or the end of the file. Zeros do not count as
    /// skipped bytes, because they are space that the writer has never used.
    fn search(&mut self, mut at: u64) -> io::Result<u64> {
        let mut buffer = Vec::new();
        loop {
            let bytes = self.source.read(at, SEARCH_BYTES, &mut buffer)?;
            if bytes.is_empty() {
                return Ok(self.source.length());
            }
            for line in bytes.chunks(ALIGN_BYTES as usize) {
                if BlockHeader::from_bytes(line, self.salt).is_some() {
                    return Ok(at);
                }
                if line.iter().any(|&byte| byte != 0) {
                    self.damage.skipped_bytes += line.len() as u64;
                }
                at += line.len() as u64;
            }
        }
    }

    /// Reads one block and returns the position of the next block. The function reuses `buffer`, because a
    /// new buffer of several megabytes for each block would cost a thousand page faults.
    fn block(&mut self, at: u64, header: BlockHeader, buffer: &mut Vec<u8>) -> io::Result<u64> {
        let next = at.saturating_add(header.extent_bytes());
        if header.kind == BlockKind::Free {
            return Ok(next);
        }
        if self.newest.is_none_or(|newest| header.written() >= newest.written()) {
            self.newest = Some(header);
        }
        let payload = self.source.read(at + HEADER_BYTES as u64, header.payload_bytes, buffer)?;
        if header.kind == BlockKind::Journal {
            let is_whole = payload.len() as u64 == header.payload_bytes;
            self.journal(at, header, payload, is_whole);
            return Ok(next);
        }
        let is_sound = payload.len() as u64 == header.payload_bytes
            && payload_sum(self.salt, header.sequence, payload) == header.payload_sum;
        match header.kind {
            BlockKind::Slices if is_sound => self.blocks.push(Found { at, header }),
            BlockKind::Catalog if is_sound => {
                let raw = inflate(payload, header.raw_bytes as usize, &mut self.catalog_raw_left);
                match raw {
                    Some(raw) => {
                        self.catalogs.push((header.sequence, raw));
                        self.catalog_blocks += 1;
                    }
                    None => self.torn(at, header),
                }
            }
            _ => self.torn(at, header),
        }
        Ok(next)
    }

    fn torn(&mut self, at: u64, header: BlockHeader) {
        self.damage.torn_blocks += 1;
        let end = at.saturating_add(header.extent_bytes()).min(self.source.length());
        self.damage.skipped_bytes += end - at;
        match header.kind {
            BlockKind::Catalog => self.torn_catalog_blocks += 1,
            _ => self.torn.push(Found { at, header }),
        }
    }

    fn journal(&mut self, at: u64, header: BlockHeader, payload: &[u8], is_whole: bool) {
        let mut chunks = Chunks::new(self.salt, &header, payload);
        let mut stride = Stride::new(header.level);
        let mut ticks: Option<(u64, u64)> = None;
        let mut slices = 0;
        let mut records = Vec::new();
        for chunk in &mut chunks {
            if chunk.kind == ChunkKind::Records {
                records.extend_from_slice(chunk.content);
                continue;
            }
            let Some(slice) = decode_slice_header(&mut &chunk.content[..]) else { break };
            if slice.tick < header.from_tick || ticks.is_some_and(|(_, last)| slice.tick <= last) {
                break;
            }
            ticks = Some((ticks.map_or(slice.tick, |(first, _)| first), slice.tick));
            stride.note(slice.tick);
            slices += 1;
        }
        if !is_whole || chunks.is_torn() {
            self.damage.torn_blocks += 1;
        }
        if !records.is_empty() {
            self.catalogs.push((header.sequence, records));
        }
        if let Some((first_tick, last_tick)) = ticks {
            let header = BlockHeader { slices, first_tick, last_tick, level: stride.level(), ..header };
            self.blocks.push(Found { at, header });
        }
    }

    fn finish(mut self) -> Index {
        // Sort the oldest block first, because a later record replaces an earlier record with the same key.
        self.catalogs.sort_by_key(|&(sequence, _)| sequence);
        let mut records = Records::new();
        for (_, raw) in &self.catalogs {
            if catalog::decode(raw, self.version, &mut records).is_none() {
                self.damage.torn_blocks += 1;
            }
        }
        let expected = self.newest.map_or(0, |newest| u64::from(newest.catalog_blocks));
        self.damage.torn_blocks += expected.saturating_sub(self.catalog_blocks + self.torn_catalog_blocks);
        let slices = newest_cover(self.blocks);
        self.damage.lost_slices = lost_slices(&slices, &self.torn);
        Index { slices, records, damage: self.damage }
    }
}

/// If several blocks contain the same ticks, keeps only the block that was written last, because the writer
/// made this block from the other blocks.
pub(crate) fn newest_cover(mut blocks: Vec<Found>) -> Vec<Found> {
    blocks.sort_by_key(|block| std::cmp::Reverse(block.header.sequence));
    let mut cover: std::collections::BTreeMap<u64, Found> = std::collections::BTreeMap::new();
    for block in blocks {
        let before = cover.range(..=block.header.last_tick).next_back();
        if before.is_none_or(|(_, other)| other.header.last_tick < block.header.from_tick) {
            cover.insert(block.header.from_tick, block);
        }
    }
    cover.into_values().collect()
}

/// Number of lost slices: the recorder took them, or should have taken them, at ticks that no undamaged block
/// covers.
fn lost_slices(cover: &[Found], torn: &[Found]) -> u64 {
    let mut lost = 0u64;
    let mut from = 0;
    for block in cover {
        let header = &block.header;
        let missing = header.from_tick.saturating_sub(from);
        let known = torn
            .iter()
            .map(|torn| torn.header)
            .filter(|torn| torn.from_tick >= from && torn.last_tick < header.from_tick);
        let known_slices: u64 = known.map(|torn| u64::from(torn.slices)).sum();
        lost = lost.saturating_add(if known_slices > 0 {
            known_slices
        } else {
            missing.div_ceil(1 << header.level)
        });
        from = header.last_tick.saturating_add(1);
    }
    let after = torn.iter().map(|torn| torn.header).filter(|torn| torn.from_tick >= from);
    after.fold(lost, |lost, torn| lost.saturating_add(u64::from(torn.slices)))
}

/// Decompresses a payload if its decompressed size is at most `left`.
pub(crate) fn inflate(payload: &[u8], raw_bytes: usize, left: &mut u64) -> Option<Vec<u8>> {
    *left = left.checked_sub(raw_bytes as u64).filter(|_| raw_bytes <= MAX_RAW_BYTES)?;
    let raw = zstd::bulk::decompress(payload, raw_bytes).ok()?;
    (raw.len() == raw_bytes).then_some(raw)
}
