//! Makes room in the file: drops every other old slice, merges catalog blocks, and closes gaps between
//! blocks.

use crate::error::{Error, ErrorKind};
use crate::layout::block::{BlockHeader, BlockKind, HEADER_BYTES, MAX_RAW_BYTES, payload_sum};
use crate::layout::catalog::EncodedRecords;
use crate::write::blocks::{CatalogBlock, SliceBlock};
use crate::write::thin::{Candidate, Thinner, choose_pair};
use crate::write::trace_writer::TraceWriter;

/// The catalog may take at most 1/3 of the capacity. While the writer merges the catalog, the file holds two
/// copies of the catalog, and the last third of the capacity is for slices.
const CATALOG_SHARE: u64 = 3;
/// If catalog blocks have more bytes than this number together, the writer merges them only if it needs
/// space, because a merge needs memory of a few times the size of the blocks.
const MAX_MERGED_BYTES: usize = 8 << 20;
/// Estimated cost of merging catalog blocks, in nanoseconds per byte of their records. In measurements, a
/// merge cost 25 to 35 ns per byte.
const MERGE_NS: u64 = 32;
/// A merge between two slices may take at most 1/`MERGE_SHARE` of the time to the next slice.
const MERGE_SHARE: u64 = 8;
/// A merge of at most this number of bytes takes at most 2 ms, so the writer never delays such a merge.
const SMALL_MERGE_BYTES: u64 = 64 << 10;
/// If the catalog has more blocks than this number, the writer merges catalog blocks even if the merge may
/// delay a slice.
const MOST_CATALOG_BLOCKS: usize = 256;
/// The catalog has more blocks than this number only if the writer has delayed merges of catalog blocks.
const USUAL_CATALOG_BLOCKS: usize = 8;
/// The highest level of a block of slices. At level 62, slices are 2^62 ticks apart and ticks have 64 bits,
/// so a block has at most a few slices.
const MAX_LEVEL: u8 = 62;

impl TraceWriter {
    /// Makes sure that an extent of `length` bytes is free; thins old slices if needed.
    ///
    /// Besides these `length` bytes, twice the size of the largest block of slices stays free. The writer
    /// needs this free space to write a merged block before it releases the two old blocks, and to copy a
    /// block whose new position overlaps its old position.
    pub(crate) fn make_room(&mut self, length: u64, is_for_slices: bool) -> Result<(), Error> {
        let largest = self.largest_extent().max(if is_for_slices { length } else { 0 });
        let spare = 2 * largest;
        let mut is_packed = false;
        while !self.ring.fits(length, spare) {
            if !is_packed && self.ring.free_bytes() >= length + spare {
                self.pack()?;
                is_packed = true;
                continue;
            }
            is_packed = false;
            if !self.merge_once()? {
                // No two blocks can be merged any more, so use the space that was kept free for merges.
                if self.ring.fits(length, 0) {
                    return Ok(());
                }
                return Err(self.too_small());
            }
        }
        Ok(())
    }

    fn largest_extent(&self) -> u64 {
        self.blocks.iter().map(|block| block.header.extent_bytes()).max().unwrap_or(0)
    }

    /// Merges two neighbouring blocks of slices. If the merged block would be too large, the function instead
    /// drops every other slice of one of the two blocks: the block with the lower level. Returns `false` if
    /// no blocks can be merged.
    fn merge_once(&mut self) -> Result<bool, Error> {
        let candidates: Vec<Candidate> = self
            .blocks
            .iter()
            .map(|block| Candidate { level: block.header.level, bytes: block.header.extent_bytes() })
            .collect();
        let span = self.last_tick.unwrap_or(0) - self.first_tick.unwrap_or(0);
        let Some(older) = choose_pair(&candidates, span) else {
            return Ok(false);
        };
        let level = candidates[older].level.min(candidates[older + 1].level) + 1;
        if self.thin(older, 2, level)? {
            return Ok(true);
        }
        let finer = if candidates[older].level < level { older } else { older + 1 };
        // A block may take as many bytes as before after half of its slices are dropped. For example, if a
        // site changed in every second slice, it then changes in every remaining slice. So if the block is
        // still too large at one level, the loop tries the next higher level.
        for level in level..=MAX_LEVEL {
            if self.thin(finer, 1, level)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Replaces `count` blocks from `index` on by one block at `level` or a higher level. Returns `false` if
    /// no free extent is large enough for the new block, or if the new block would be larger than the largest
    /// block that a journal can give. This limit on the size of a block bounds the memory that thinning
    /// needs, and keeps blocks small compared with the capacity.
    fn thin(&mut self, index: usize, count: usize, level: u8) -> Result<bool, Error> {
        let sources: Vec<SliceBlock> = self.blocks[index..index + count].to_vec();
        let (oldest, newest) = (sources[0].header, sources[count - 1].header);
        let next_tick = match self.blocks.get(index + count) {
            Some(next) => next.header.first_tick,
            // The slice after the last compressed block is the first slice of the journal. If there is no
            // journal, the last block holds the newest slice of the trace, and thinning must not drop this
            // slice.
            None => self.journal.and_then(|journal| journal.first_slice).unwrap_or(u64::MAX),
        };
        self.encoder.begin(oldest.from_tick);
        let mut thinner = Thinner::new(&mut self.encoder, 1 << level, self.first_tick.unwrap_or(0));
        for SliceBlock { at, header } in &sources {
            let payload = self.ring.read(at + HEADER_BYTES as u64, header.payload_bytes as usize);
            let raw = self
                .decompressor
                .decompress(payload, header.raw_bytes as usize)
                .map_err(|error| Error::io("cannot read back a block", error))?;
            thinner.begin_block();
            // If another process has damaged a block, the slices of that block are lost, but the recording
            // continues.
            let _damaged = self.decoder.decode(&raw, header.from_tick, header.last_tick, &mut thinner);
        }
        thinner.finish(next_tick);
        if count > 1 && self.encoder.raw_bytes() as u64 > 2 * self.wanted_journal_bytes() {
            return Ok(false);
        }
        let level = sources.iter().map(|block| block.header.level).fold(level, u8::max);
        let header = BlockHeader {
            level,
            from_tick: oldest.from_tick,
            last_tick: newest.last_tick,
            ..self.next_header(BlockKind::Slices, 0)
        };
        let (header, payload) = self.compress_slices(header)?;
        let length = header.extent_bytes();
        if !self.ring.fits(length, length.max(self.largest_extent())) {
            // Close the gaps between blocks while there is still room to copy a block.
            self.pack()?;
        }
        let placed = self.place_block(&header, &payload)?;
        // `None`: no free extent is large enough for the new block. But if a single block became shorter, the
        // new block fits into the extent of the old block.
        if placed.is_none() && (count > 1 || length > oldest.extent_bytes()) {
            return Ok(false);
        }
        // `pack` may have moved the source blocks, so read their positions again.
        for source in index..index + count {
            self.ring.release(self.blocks[source].at);
        }
        // If the catalog is too large to be moved, free space can stay in pieces that are too small for the
        // new block. Then the writer releases the source blocks before it writes the new block. If the
        // recorder is killed after the release and before the write, the slices of the source blocks are
        // lost. The writer takes the risk of this loss, because otherwise the recording would have to end.
        let at = match placed {
            Some(at) => at,
            None => self.place_block(&header, &payload)?.ok_or_else(|| self.too_small())?,
        };
        self.blocks.splice(index..index + count, [SliceBlock { at, header }]);
        Ok(true)
    }

    /// Adds records to the catalog blocks, and merges the newest blocks while they are of similar size. So
    /// the number of blocks grows only with the logarithm of the catalog's size. The number of times that the
    /// writer rewrites a record also grows only with the logarithm of the catalog's size.
    pub(crate) fn add_catalog(&mut self, records: &EncodedRecords) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let (header, payload) = self.encode_catalog(records)?;
        let most = self.ring.capacity() / CATALOG_SHARE;
        if self.catalog_bytes() + header.extent_bytes() > most {
            // A merge drops records that newer records have replaced, and may free enough space.
            self.merge_catalog(0, true)?;
        }
        let bytes = self.catalog_bytes() + header.extent_bytes();
        if bytes > most {
            return Err(self.catalog_too_large(bytes));
        }
        let header = BlockHeader { catalog_blocks: self.catalog_blocks(1), ..header };
        let at = self.add_catalog_block(&header, &payload)?;
        self.catalog.push(CatalogBlock { at, header });
        while let [.., older, newer] = self.catalog[..]
            && newer.header.payload_bytes * 2 >= older.header.payload_bytes
            && self.is_merge_affordable(newer.header.raw_bytes as usize + older.header.raw_bytes as usize)
            && self.merge_catalog(self.catalog.len() - 2, false)?
        {}
        Ok(())
    }

    /// Whether the writer may now merge catalog blocks that have `raw_bytes` bytes together. A merge of all
    /// records of 30,000 stacks takes several times as long as the time between two slices. So the writer
    /// delays a large merge until slices are farther apart, or until the end of the recording.
    fn is_merge_affordable(&self, raw_bytes: usize) -> bool {
        let limit = if self.is_ending || self.catalog.len() > MOST_CATALOG_BLOCKS {
            MAX_MERGED_BYTES as u64
        } else {
            (self.gap_ns / MERGE_SHARE / MERGE_NS).max(SMALL_MERGE_BYTES)
        };
        raw_bytes as u64 <= limit.min(MAX_MERGED_BYTES as u64)
    }

    /// At the end of the recording, merges the blocks whose merge was delayed. If the disk has no room for a
    /// merge, the blocks stay as they are.
    pub(crate) fn merge_put_off(&mut self) -> Result<(), Error> {
        self.is_ending = true;
        let mut index = self.catalog.len();
        let mut bytes = 0;
        while let Some(block) = index.checked_sub(1).and_then(|index| self.catalog.get(index)) {
            bytes += block.header.raw_bytes as usize;
            if bytes > MAX_MERGED_BYTES {
                break;
            }
            index -= 1;
        }
        if self.catalog.len() - index > USUAL_CATALOG_BLOCKS {
            self.merge_catalog(index, false)?;
        }
        Ok(())
    }

    fn add_catalog_block(&mut self, header: &BlockHeader, payload: &[u8]) -> Result<u64, Error> {
        self.add_block(header, payload).map_err(|error| match error.kind() {
            ErrorKind::CapacityTooSmall => {
                self.catalog_too_large(self.catalog_bytes() + header.extent_bytes())
            }
            _ => error,
        })
    }

    /// Whether the catalog takes more than half of the bytes that it may take.
    pub(crate) fn is_catalog_nearly_full(&self) -> bool {
        self.catalog_bytes() > self.ring.capacity() / CATALOG_SHARE / 2
    }

    /// Number of catalog blocks in the file, plus `more`.
    fn catalog_blocks(&self, more: usize) -> u16 {
        u16::try_from(self.catalog.len() + more).unwrap_or(u16::MAX)
    }

    fn encode_catalog(&mut self, records: &EncodedRecords) -> Result<(BlockHeader, Vec<u8>), Error> {
        let raw = records.to_bytes();
        if raw.len() > MAX_RAW_BYTES {
            return Err(self.catalog_too_large(raw.len() as u64));
        }
        let header = self.next_header(BlockKind::Catalog, 0);
        self.compress(header, &raw)
    }

    /// Replaces the catalog blocks from `first` on by one block that holds the newest record of each key.
    /// Returns `false` if the file has no room for the old and new blocks together. The function drops slices
    /// to make room only if `is_needed`.
    fn merge_catalog(&mut self, first: usize, is_needed: bool) -> Result<bool, Error> {
        let sources = self.catalog[first..].to_vec();
        let [_, .., newest] = sources[..] else {
            return Ok(false);
        };
        let mut records = EncodedRecords::default();
        // Begin with the newest catalog block, so that for a key with several records, `records` keeps the
        // newest record.
        for CatalogBlock { at, header } in sources.iter().rev() {
            let payload = self.ring.read(at + HEADER_BYTES as u64, header.payload_bytes as usize);
            let raw = self
                .decompressor
                .decompress(payload, header.raw_bytes as usize)
                .map_err(|error| Error::io("cannot read back the catalog", error))?;
            records.add_older(&raw).ok_or_else(|| {
                Error::new(ErrorKind::Io, "the catalog in the file was damaged")
                    .with_remedy("let no other program write to it")
            })?;
        }
        let raw = records.to_bytes();
        // Use the sequence of the newest source block, because records in an open journal are newer than the
        // merged block.
        let next = self.next_header(BlockKind::Catalog, 0);
        let header = BlockHeader {
            sequence: newest.header.sequence,
            catalog_blocks: u16::try_from(first + 1).unwrap_or(u16::MAX),
            first_tick: next.sequence,
            ..next
        };
        let (header, payload) = self.compress(header, &raw)?;
        let spare = 2 * self.largest_extent();
        if !is_needed && !self.ring.fits(header.extent_bytes(), spare) {
            return Ok(false);
        }
        let at = self.add_catalog_block(&header, &payload)?;
        for block in &self.catalog[first..] {
            self.ring.release(block.at);
        }
        self.catalog.truncate(first);
        self.catalog.push(CatalogBlock { at, header });
        Ok(true)
    }

    fn catalog_bytes(&self) -> u64 {
        self.catalog.iter().map(|block| block.header.extent_bytes()).sum()
    }

    fn catalog_too_large(&self, bytes: u64) -> Error {
        Error::new(
            ErrorKind::CatalogTooLarge,
            format!(
                "modules, sites, stacks and symbols need {bytes} bytes, more than a third of the capacity of \
                 {}",
                self.ring.capacity()
            ),
        )
        .with_remedy("use a larger --size")
    }

    /// Moves every block towards the start of the file: into the lowest free extent that is large enough, or
    /// to the start of the free extent just before the block. If the new position would overlap the old
    /// position, the block is first copied elsewhere, so the file always holds an undamaged copy. If there is
    /// no room for a copy of the block, the block stays at its old position.
    pub(crate) fn pack(&mut self) -> Result<(), Error> {
        let mut end = crate::layout::header::PAGE_BYTES as u64;
        let mut has_gaps = false;
        while let Some((at, length)) = self.ring.next_live(end) {
            let is_above_gap = self.ring.end_before(at) < at;
            has_gaps |= is_above_gap;
            if has_gaps {
                self.move_down(at, length, is_above_gap)?;
            }
            end = at + length;
        }
        Ok(())
    }

    fn move_down(&mut self, at: u64, length: u64, is_above_gap: bool) -> Result<(), Error> {
        let lowest = self.ring.gaps().find(|(_, gap)| *gap >= length);
        if lowest.is_none_or(|(gap, _)| gap > at && !is_above_gap) {
            return Ok(());
        }
        let place = self.ring.allocate(length)?.expect("it was found");
        let bytes = self.ring.read(at, length as usize).to_vec();
        self.copy_block(place, &bytes);
        self.ring.release(at);
        let to = if place < at {
            place
        } else {
            let to = self.ring.allocate(length)?.expect("it has just been given up");
            self.copy_block(to, &bytes);
            self.ring.release(place);
            to
        };
        self.rename(at, to);
        Ok(())
    }

    fn copy_block(&mut self, to: u64, bytes: &[u8]) {
        let (header, payload) = bytes.split_at(HEADER_BYTES);
        self.ring.write(to + HEADER_BYTES as u64, payload);
        self.ring.write(to, header);
    }

    /// Updates the position of a block that moved from `from` to `to`.
    fn rename(&mut self, from: u64, to: u64) {
        let positions = self
            .blocks
            .iter_mut()
            .map(|block| &mut block.at)
            .chain(self.catalog.iter_mut().map(|block| &mut block.at))
            .chain(self.journal.iter_mut().map(|journal| &mut journal.at));
        for position in positions.filter(|position| **position == from) {
            *position = to;
        }
    }

    /// Adds a complete block of another trace unchanged.
    pub(crate) fn copy_compressed(&mut self, header: &BlockHeader, payload: &[u8]) -> Result<(), Error> {
        let next = self.next_header(BlockKind::Slices, header.payload_bytes);
        let header = BlockHeader {
            sequence: next.sequence,
            catalog_blocks: next.catalog_blocks,
            payload_sum: payload_sum(self.ring.salt(), next.sequence, payload),
            ..*header
        };
        let at = self.add_block(&header, payload)?;
        self.blocks.push(SliceBlock { at, header });
        self.first_tick.get_or_insert(header.first_tick);
        self.last_tick = Some(header.last_tick);
        self.from_tick = header.last_tick.saturating_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{DEFAULT_CAPACITY_BYTES, Record, Site, SiteId, SiteKind, SliceHeader, Trace, TraceWriter};

    /// A merge of all catalog records takes several times as long as the time between two slices. So the
    /// writer delays this merge until slices are farther apart, or until the end of the recording.
    #[test]
    fn large_catalogs_merge_only_when_slices_are_far_apart() {
        const EACH: u32 = 8_000;
        let blocks_with = |gap_ns: u64| {
            let name = format!("edleak-merges-{}-{gap_ns}.edl", std::process::id());
            let path = std::env::temp_dir().join(name);
            let mut writer = TraceWriter::create(&path, DEFAULT_CAPACITY_BYTES).expect("a new file");
            for tick in 0..40 {
                for id in tick as u32 * EACH..(tick as u32 + 1) * EACH {
                    let (id, address) = (SiteId(id), u64::from(id) << 20);
                    let (kind, parent, module, stack) = (SiteKind::Caller, None, None, None);
                    let site = Site { id, kind, parent, address, module, stack };
                    writer.record(&Record::Site(site)).expect("there is room");
                }
                let header = SliceHeader { tick, time_ns: tick * gap_ns, ..SliceHeader::default() };
                writer.slice(&header, &[]).expect("there is room");
            }
            let blocks = writer.catalog.len();
            writer.finish().expect("there is room");
            let sites = Trace::open(&path).expect("a sound trace").sites().len();
            std::fs::remove_file(&path).expect("it is ours");
            assert_eq!(sites as u32, 40 * EACH);
            blocks
        };
        let (dense, sparse) = (blocks_with(20_000_000), blocks_with(5_000_000_000));
        assert!(dense >= 10 && sparse <= 8, "{dense} blocks with dense slices, {sparse} with sparse ones");
    }
}
