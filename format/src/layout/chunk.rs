//! The bytes of the journal. The journal holds the newest slices and records until there are enough slices
//! and records for a compressed block.
//!
//! The journal's payload is a sequence of uncompressed chunks. A chunk is a header of 16 bytes and its
//! content:
//!
//! | bytes  | field      | meaning                                                                     |
//! |--------|------------|-----------------------------------------------------------------------------|
//! | 0..4   | `checksum` | CRC-32 of salt, the journal's sequence, bytes 4..16 and the content         |
//! | 4..8   | `bytes`    | length of the content                                                       |
//! | 8..12  | `kind`     | 1 slice, 2 records                                                          |
//! | 12..16 | `index`    | number of the chunk in this journal, so a reader sees if a chunk is missing |
//!
//! Sixteen zero bytes follow the last chunk. If the bytes after a chunk are not zero, they are the next
//! chunk, which may be torn.
//!
//! A slice is a sequence of varints: tick, time, RssAnon, VmSwap, and the number of changed sites. Then each
//! changed site has five numbers: its id minus the previous id minus 1, and the differences of allocations,
//! frees, allocated bytes and freed bytes, in zig-zag encoding. All differences are from the previous slice
//! in the same journal, so the first slice of a journal holds absolute values. If the size of a memory area
//! changed, the changed areas follow the sites ([`Areas`]).

use crate::ids::SiteId;
use crate::layout::areas::Areas;
use crate::layout::block::{BlockHeader, checksum, u32_at};
use crate::layout::delta::MAX_SITES;
use crate::layout::varint::{put, take, unzigzag, zigzag};
use crate::memory::AreaBytes;
use crate::slice::{Counters, SliceHeader};

/// Length of the header of a chunk, in bytes. After the last chunk of a journal, as many zero bytes follow as
/// a header has.
pub(crate) const CHUNK_HEADER_BYTES: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChunkKind {
    Slice = 1,
    Records = 2,
}

pub(crate) struct Chunk<'a> {
    pub kind: ChunkKind,
    pub content: &'a [u8],
}

pub(crate) fn chunk_header(
    salt: u64,
    sequence: u64,
    kind: ChunkKind,
    index: u32,
    content: &[u8],
) -> [u8; CHUNK_HEADER_BYTES] {
    let mut bytes = [0; CHUNK_HEADER_BYTES];
    let length = u32::try_from(content.len()).expect("a chunk fits a journal, and that is at most 16 MiB");
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..12].copy_from_slice(&(kind as u32).to_le_bytes());
    bytes[12..].copy_from_slice(&index.to_le_bytes());
    let sum = checksum(&[&salt.to_le_bytes(), &sequence.to_le_bytes(), &bytes[4..], content]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// An iterator over the chunks of a journal. The iterator ends before the first damaged chunk.
pub(crate) struct Chunks<'a> {
    salt: u64,
    sequence: u64,
    index: u32,
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(salt: u64, header: &BlockHeader, payload: &'a [u8]) -> Chunks<'a> {
        Chunks::from_index(salt, header, payload, 0)
    }

    /// The chunks of a journal from the chunk with the number `index` on. `payload` begins with the bytes of
    /// this chunk.
    pub(crate) fn from_index(salt: u64, header: &BlockHeader, payload: &'a [u8], index: u32) -> Chunks<'a> {
        Chunks { salt, sequence: header.sequence, index, rest: payload }
    }

    /// Whether the journal ends in a torn chunk: the zeros that end an undamaged journal are missing. The
    /// answer is valid only after the iterator has returned the last undamaged chunk.
    pub(crate) fn is_torn(&self) -> bool {
        !self.rest.get(..CHUNK_HEADER_BYTES).is_some_and(|end| end.iter().all(|&byte| byte == 0))
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let (head, rest) = self.rest.split_at_checked(CHUNK_HEADER_BYTES)?;
        let (content, rest) = rest.split_at_checked(u32_at(head, 4) as usize)?;
        let kind = match u32_at(head, 8) {
            1 => ChunkKind::Slice,
            2 => ChunkKind::Records,
            _ => return None,
        };
        (chunk_header(self.salt, self.sequence, kind, self.index, content) == *head).then_some(())?;
        self.index = self.index.wrapping_add(1);
        self.rest = rest;
        Some(Chunk { kind, content })
    }
}

/// Writes a slice as the content of a chunk. The caller updates `previous` after the chunk is in the file.
pub(crate) fn encode_slice(
    out: &mut Vec<u8>,
    header: &SliceHeader,
    counters: &[Counters],
    previous: &[Counters],
    memory: &[AreaBytes],
    areas: &mut Areas,
) {
    let was = |index: usize| previous.get(index).copied().unwrap_or_default();
    let changed = counters.iter().enumerate().filter(|(index, now)| **now != was(*index)).count();
    out.clear();
    for number in [header.tick, header.time_ns, header.rss_anon_bytes, header.swap_bytes, changed as u64] {
        put(out, number);
    }
    let mut next_index = 0;
    for (index, now) in counters.iter().enumerate() {
        let was = was(index);
        if *now == was {
            continue;
        }
        put(out, (index - next_index) as u64);
        next_index = index + 1;
        put(out, zigzag(now.allocs.wrapping_sub(was.allocs)));
        put(out, zigzag(now.frees.wrapping_sub(was.frees)));
        put(out, zigzag(now.allocated_bytes.wrapping_sub(was.allocated_bytes)));
        put(out, zigzag(now.freed_bytes.wrapping_sub(was.freed_bytes)));
    }
    areas.encode(memory, out);
}

/// Reads the numbers that a slice stores before the numbers of its sites.
pub(crate) fn decode_slice_header(content: &mut &[u8]) -> Option<SliceHeader> {
    Some(SliceHeader {
        tick: take(content)?,
        time_ns: take(content)?,
        rss_anon_bytes: take(content)?,
        swap_bytes: take(content)?,
    })
}

/// Reads a slice. `table` and `areas` hold the values of the previous slice, and the function updates both.
/// `changed` receives the sites that changed.
pub(crate) fn decode_slice(
    mut content: &[u8],
    table: &mut Vec<Counters>,
    changed: &mut Vec<(SiteId, Counters)>,
    areas: &mut Areas,
) -> Option<SliceHeader> {
    let header = decode_slice_header(&mut content)?;
    changed.clear();
    let mut next_id = 0u64;
    for _ in 0..take(&mut content)? {
        let id = next_id.checked_add(take(&mut content)?).filter(|&id| id < MAX_SITES as u64)?;
        next_id = id + 1;
        if id as usize >= table.len() {
            table.resize(id as usize + 1, Counters::ZERO);
        }
        let counters = &mut table[id as usize];
        for field in [
            &mut counters.allocs,
            &mut counters.frees,
            &mut counters.allocated_bytes,
            &mut counters.freed_bytes,
        ] {
            *field = field.wrapping_add(unzigzag(take(&mut content)?));
        }
        changed.push((SiteId(id as u32), *counters));
    }
    areas.begin_slice();
    if !content.is_empty() {
        areas.decode(&mut content)?;
    }
    content.is_empty().then_some(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::areas::Areas;
    use crate::layout::block::BlockKind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_slices_survive(
            slices in prop::collection::vec(prop::collection::vec(any::<[u64; 4]>(), 0..20), 0..6)
        ) {
            let mut previous = Vec::new();
            let (mut table, mut changed, mut content) = (Vec::new(), Vec::new(), Vec::new());
            let (mut written, mut areas) = (Areas::default(), Areas::default());
            for (tick, slice) in slices.iter().enumerate() {
                // The number of sites never falls. Sites with an odd index keep the counters of the previous
                // slice.
                let mut counters = previous.clone();
                for (index, &[allocated_bytes, allocs, freed_bytes, frees]) in slice.iter().enumerate() {
                    let now = Counters { allocated_bytes, allocs, freed_bytes, frees };
                    match counters.get_mut(index) {
                        Some(site) if index % 2 == 0 => *site = now,
                        Some(_) => {}
                        None => counters.push(now),
                    }
                }
                let header = SliceHeader { tick: tick as u64, time_ns: u64::MAX, ..SliceHeader::default() };
                let memory = [AreaBytes { resident_bytes: tick as u64 / 2 + 1, ..AreaBytes::ZERO }];
                encode_slice(&mut content, &header, &counters, &previous, &memory, &mut written);
                prop_assert_eq!(decode_slice(&content, &mut table, &mut changed, &mut areas), Some(header));
                prop_assert_eq!(areas.changed().len(), usize::from(tick % 2 == 0));
                prop_assert_eq!(areas.all(), &memory);
                prop_assert!(changed.iter().all(|(SiteId(id), now)| counters[*id as usize] == *now));
                let last = counters.iter().rposition(|now| *now != Counters::ZERO).map_or(0, |last| last + 1);
                prop_assert_eq!(&table[..], &counters[..last.max(table.len())]);
                let cut = &content[..content.len() - 1];
                prop_assert_eq!(decode_slice(cut, &mut Vec::new(), &mut changed, &mut areas.clone()), None);
                previous = counters;
            }
        }

        #[test]
        fn no_content_makes_the_decoder_panic(content: Vec<u8>) {
            let _unsound = decode_slice(&content, &mut Vec::new(), &mut Vec::new(), &mut Areas::default());
        }
    }

    #[test]
    fn a_torn_chunk_ends_the_journal() {
        let header = BlockHeader::new(BlockKind::Journal, 5, 0);
        let mut payload = Vec::new();
        for (index, content) in [&b"first"[..], b"second"].into_iter().enumerate() {
            payload.extend(chunk_header(1, 5, ChunkKind::Records, index as u32, content));
            payload.extend(content);
        }
        payload.extend([0; CHUNK_HEADER_BYTES]);
        let walk = |payload: &[u8]| {
            let mut chunks = Chunks::new(1, &header, payload);
            let contents: Vec<Vec<u8>> = chunks.by_ref().map(|chunk| chunk.content.to_vec()).collect();
            (contents.len(), chunks.is_torn())
        };
        assert_eq!(walk(&payload), (2, false));
        assert_eq!(walk(&payload[..payload.len() - 1]), (2, true));
        for at in 21..43 {
            let mut torn = payload.clone();
            torn[at] ^= 0x40;
            assert_eq!(walk(&torn), (1, true), "byte {at}");
        }
        // Chunks of an earlier journal at the same position in the file must have a wrong checksum.
        let later = BlockHeader { sequence: 6, ..header };
        assert_eq!(Chunks::new(1, &later, &payload).count(), 0);
    }
}
