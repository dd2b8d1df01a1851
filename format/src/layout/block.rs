//! One block of the file: a checksummed header of 64 bytes, then a payload, padded to 64 bytes.
//!
//! | bytes  | field            | meaning                                                                   |
//! |--------|------------------|---------------------------------------------------------------------------|
//! | 0..4   | `magic`          | `EDLB`                                                                    |
//! | 4..8   | `checksum`       | CRC-32 of salt and bytes 8..64: a torn header cannot pass                 |
//! | 8..16  | `sequence`       | of two blocks, the one written later has the higher sequence              |
//! | 16     | `kind`           | 1 free, 2 catalog, 3 slices, 4 journal                                    |
//! | 17     | `level`          | distance of slices is 2^level ticks                                       |
//! | 18..20 | `catalog_blocks` | number of catalog blocks in the file when this block was written          |
//! | 20..24 | `slices`         | slices in the payload (kind 3)                                            |
//! | 24..32 | `payload_bytes`  | bytes after the header, without padding                                   |
//! | 32..36 | `raw_bytes`      | length of the decompressed payload (kinds 2 and 3)                        |
//! | 36..40 | `payload_sum`    | CRC-32 of salt, sequence and payload (kinds 2 and 3)                      |
//! | 40..48 | `from_tick`      | one past the last tick of the previous block (kinds 3 and 4)              |
//! | 48..56 | `first_tick`     | kind 3: tick of the first slice; merged catalog block: see `written`      |
//! | 56..64 | `last_tick`      | last tick covered; no other block holds slices of `from_tick..=last_tick` |

/// Every block begins at a multiple of this number of bytes, counted from the start of the file.
pub(crate) const ALIGN_BYTES: u64 = 64;
/// Length of the header of a block, in bytes.
pub(crate) const HEADER_BYTES: usize = 64;
/// Maximum length of the decompressed payload of a block, in bytes. A reader rejects a header with a greater
/// length.
pub(crate) const MAX_RAW_BYTES: usize = 64 << 20;

const MAGIC: [u8; 4] = *b"EDLB";
/// The highest level; slices of this level are 2^62 ticks apart. Ticks have 64 bits, so a trace could hold at
/// most two slices of level 63.
const MAX_LEVEL: u8 = 62;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BlockKind {
    Free = 1,
    Catalog = 2,
    Slices = 3,
    Journal = 4,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockHeader {
    pub sequence: u64,
    pub kind: BlockKind,
    pub level: u8,
    pub catalog_blocks: u16,
    pub slices: u32,
    pub payload_bytes: u64,
    pub raw_bytes: u32,
    pub payload_sum: u32,
    pub from_tick: u64,
    pub first_tick: u64,
    pub last_tick: u64,
}

impl BlockHeader {
    pub(crate) fn new(kind: BlockKind, sequence: u64, payload_bytes: u64) -> BlockHeader {
        BlockHeader {
            sequence,
            kind,
            level: 0,
            catalog_blocks: 0,
            slices: 0,
            payload_bytes,
            raw_bytes: 0,
            payload_sum: 0,
            from_tick: 0,
            first_tick: 0,
            last_tick: 0,
        }
    }

    /// The sequence number with which the block was written; the newest block has the highest number. A
    /// merged catalog block keeps the `sequence` of the newest block that it replaces. So the merged block
    /// has a lower `sequence` than the open journal, whose records are newer. A merged block holds the number
    /// with which it was written in `first_tick`.
    pub(crate) fn written(&self) -> u64 {
        match self.kind {
            BlockKind::Catalog => self.sequence.max(self.first_tick),
            _ => self.sequence,
        }
    }

    /// Bytes from the beginning of this block to the beginning of the next block.
    pub(crate) fn extent_bytes(&self) -> u64 {
        extent_bytes(self.payload_bytes)
    }

    pub(crate) fn to_bytes(self, salt: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16] = self.kind as u8;
        bytes[17] = self.level;
        bytes[18..20].copy_from_slice(&self.catalog_blocks.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.slices.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.raw_bytes.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.payload_sum.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.from_tick.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.first_tick.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.last_tick.to_le_bytes());
        let sum = checksum(&[&salt.to_le_bytes(), &bytes[8..]]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a header. `None`: the bytes are not a valid header.
    pub(crate) fn from_bytes(bytes: &[u8], salt: u64) -> Option<BlockHeader> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        if bytes[..4] != MAGIC || u32_at(bytes, 4) != checksum(&[&salt.to_le_bytes(), &bytes[8..]]) {
            return None;
        }
        let kind = match bytes[16] {
            1 => BlockKind::Free,
            2 => BlockKind::Catalog,
            3 => BlockKind::Slices,
            4 => BlockKind::Journal,
            _ => return None,
        };
        let header = BlockHeader {
            sequence: u64_at(bytes, 8),
            kind,
            level: bytes[17],
            catalog_blocks: u16::from_le_bytes([bytes[18], bytes[19]]),
            slices: u32_at(bytes, 20),
            payload_bytes: u64_at(bytes, 24),
            raw_bytes: u32_at(bytes, 32),
            payload_sum: u32_at(bytes, 36),
            from_tick: u64_at(bytes, 40),
            first_tick: u64_at(bytes, 48),
            last_tick: u64_at(bytes, 56),
        };
        let is_plausible = header.level <= MAX_LEVEL
            && header.payload_bytes < 1 << 62
            && header.raw_bytes as usize <= MAX_RAW_BYTES
            && header.from_tick <= header.last_tick.saturating_add(1)
            && (header.kind != BlockKind::Slices
                || header.slices == 0
                || (header.from_tick..=header.last_tick).contains(&header.first_tick));
        is_plausible.then_some(header)
    }
}

/// Length in the file, in bytes, of a block with `payload_bytes` bytes of payload.
pub(crate) fn extent_bytes(payload_bytes: u64) -> u64 {
    HEADER_BYTES as u64 + payload_bytes.next_multiple_of(ALIGN_BYTES)
}

/// Checksum of a payload and of the block's sequence number. So the checksum is wrong if header and payload
/// come from different blocks.
pub(crate) fn payload_sum(salt: u64, sequence: u64, payload: &[u8]) -> u32 {
    checksum(&[&salt.to_le_bytes(), &sequence.to_le_bytes(), payload])
}

pub(crate) fn checksum(parts: &[&[u8]]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    for part in parts {
        sum.update(part);
    }
    sum.finalize()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a range of 4 bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a range of 8 bytes"))
}

const _: () = assert!((HEADER_BYTES as u64).is_multiple_of(ALIGN_BYTES));
const _: () = assert!(MAX_RAW_BYTES <= u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_and_no_flipped_bit_passes() {
        let header = BlockHeader {
            level: 7,
            catalog_blocks: 3,
            slices: 12,
            raw_bytes: 4000,
            payload_sum: 0xdead_beef,
            from_tick: 100,
            first_tick: 128,
            last_tick: u64::MAX - 1,
            ..BlockHeader::new(BlockKind::Slices, u64::MAX, 1000)
        };
        let bytes = header.to_bytes(42);
        assert_eq!(BlockHeader::from_bytes(&bytes, 42), Some(header));
        assert_eq!(BlockHeader::from_bytes(&bytes, 43), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BlockHeader::from_bytes(&flipped, 42), None);
        }
    }

    #[test]
    fn extents_are_aligned() {
        for (payload, extent) in [(0, 64), (1, 128), (64, 128), (65, 192)] {
            assert_eq!(extent_bytes(payload), extent);
        }
    }
}
