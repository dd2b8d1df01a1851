//! Functions for the fuzz targets and for the test that runs the corpus of these targets. `read_everything`
//! reads a whole trace; `file_of` makes a file with right checksums.

use crate::ids::SiteId;
use crate::layout::block::{BlockHeader, BlockKind, MAX_RAW_BYTES, extent_bytes, payload_sum};
use crate::layout::chunk::{CHUNK_HEADER_BYTES, ChunkKind, chunk_header};
use crate::layout::header::{FORMAT_VERSION, Header};
use crate::read::trace::Trace;
use crate::slice::{Counters, SliceHeader, SliceVisitor};

const SALT: u64 = 0x5a17;

/// Opens `file` as a trace, reads all of it and checks the guarantees of [`SliceVisitor`]. Returns the number
/// of slices.
pub fn read_everything(file: Vec<u8>) -> u64 {
    let Ok(trace) = Trace::from_bytes(file) else { return 0 };
    let grid = trace.grid();
    assert!(grid.points <= 16_384);
    let mut slices = 0;
    let mut next_tick = 0;
    for (index, block) in trace.blocks().iter().enumerate() {
        assert!(block.last_tick >= next_tick || block.slices == 0, "blocks do not overlap");
        let mut check = Check { last: None, slices: 0 };
        // An error means that the content of the block does not match the block's header.
        let _result = trace.replay_block(index, &mut check);
        assert!(check.last <= Some(block.last_tick));
        slices += check.slices;
        next_tick = block.last_tick.saturating_add(1);
    }
    assert!(trace.sites().is_sorted_by_key(|site| site.id));
    let _records = trace.records();
    slices
}

struct Check {
    last: Option<u64>,
    slices: u64,
}

impl SliceVisitor for Check {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        assert!(self.last < Some(header.tick), "ticks increase");
        assert!(changed.is_sorted_by_key(|(id, _)| *id));
        self.last = Some(header.tick);
        self.slices += 1;
    }
}

/// Makes a file with right checksums and with the blocks that `input` describes. For each block, `input`
/// holds one byte each for the kind, the level and the ticks, then two bytes for the length of the content,
/// and then the uncompressed content.
pub fn file_of(mut input: &[u8]) -> Vec<u8> {
    let header = Header { version: FORMAT_VERSION, capacity_bytes: 1 << 20, salt: SALT };
    let mut file = header.to_page();
    let mut sequence = 0;
    while let Some((&[kind, level, ticks, low, high], rest)) = input.split_first_chunk::<5>() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        input = rest;
        sequence += 1;
        add_block(&mut file, [kind, level, ticks], sequence, content);
    }
    file
}

fn add_block(file: &mut Vec<u8>, [kind, level, ticks]: [u8; 3], sequence: u64, content: &[u8]) {
    let from_tick = u64::from(ticks >> 4) << 4;
    let compress = |content| zstd::bulk::compress(content, 1).expect("memory to memory");
    let (kind, payload) = match kind % 4 {
        0 => (BlockKind::Slices, compress(content)),
        1 => (BlockKind::Catalog, compress(content)),
        2 => (BlockKind::Journal, chunk(sequence, ChunkKind::Slice, content)),
        _ => (BlockKind::Journal, chunk(sequence, ChunkKind::Records, content)),
    };
    assert!(content.len() <= MAX_RAW_BYTES);
    let header = BlockHeader {
        level: level % 63,
        slices: u32::from(ticks & 15),
        raw_bytes: content.len() as u32,
        payload_sum: payload_sum(SALT, sequence, &payload),
        from_tick,
        first_tick: from_tick,
        last_tick: from_tick + u64::from(level),
        ..BlockHeader::new(kind, sequence, payload.len() as u64)
    };
    file.extend(header.to_bytes(SALT));
    file.extend(&payload);
    let padding = extent_bytes(payload.len() as u64) as usize - 64 - payload.len();
    file.extend(std::iter::repeat_n(0, padding));
}

fn chunk(sequence: u64, kind: ChunkKind, content: &[u8]) -> Vec<u8> {
    let mut payload = chunk_header(SALT, sequence, kind, 0, content).to_vec();
    payload.extend(content);
    payload.extend([0; CHUNK_HEADER_BYTES]);
    payload
}
