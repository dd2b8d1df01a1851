//! The first page: magic, version, capacity, and the salt of every checksum.
//!
//! The first page holds four copies of its fields, so a reader can open the file even if one copy is damaged.
//!
//! | bytes  | field      | meaning                                                                   |
//! |--------|------------|---------------------------------------------------------------------------|
//! | 0..8   | `magic`    | `edleak\x1a\n`                                                            |
//! | 8..12  | `version`  | format version; a reader refuses a higher one                             |
//! | 12..16 | `checksum` | CRC-32 of bytes 0..12 and 16..32                                          |
//! | 16..24 | `capacity` | greatest length that the file may ever reach, in bytes                    |
//! | 24..32 | `salt`     | random; first input of other checksums; bytes of another trace never match |
//!
//! Copies begin at 0, 1024, 2048 and 3072; the bytes between them are zero. All numbers of the format are
//! little-endian.

use crate::error::{Error, ErrorKind};

/// The version that this crate writes, and the highest version that it reads.
pub(crate) const FORMAT_VERSION: u32 = 5;
/// Length of the first page, in bytes. The first block begins after this page.
pub(crate) const PAGE_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"edleak\x1a\n";
const COPY_BYTES: usize = 32;
const COPY_DISTANCE: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub version: u32,
    pub capacity_bytes: u64,
    pub salt: u64,
}

impl Header {
    pub(crate) fn to_page(self) -> Vec<u8> {
        let mut copy = [0; COPY_BYTES];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..12].copy_from_slice(&self.version.to_le_bytes());
        copy[16..24].copy_from_slice(&self.capacity_bytes.to_le_bytes());
        copy[24..].copy_from_slice(&self.salt.to_le_bytes());
        let sum = checksum(&copy);
        copy[12..16].copy_from_slice(&sum.to_le_bytes());
        let mut page = vec![0; PAGE_BYTES];
        for at in (0..PAGE_BYTES).step_by(COPY_DISTANCE) {
            page[at..at + COPY_BYTES].copy_from_slice(&copy);
        }
        page
    }

    /// Reads the first undamaged copy of the fields. The function also returns how many of the four copies
    /// are damaged.
    pub(crate) fn from_page(page: &[u8]) -> Result<(Header, u64), Error> {
        if page.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "the file is empty")
                .with_remedy("was the recording ever started?"));
        }
        let copies =
            || (0..PAGE_BYTES).step_by(COPY_DISTANCE).map(|at| page.get(at..at + COPY_BYTES).and_then(parse));
        let Some(header) = copies().flatten().next() else {
            let begins_as_trace = page.iter().zip(&MAGIC).all(|(a, b)| a == b);
            return Err(if begins_as_trace && page.len() < PAGE_BYTES {
                Error::new(ErrorKind::TruncatedHeader, "the file ends inside its first page")
                    .with_remedy("copy the whole file")
            } else {
                Error::new(ErrorKind::NotATrace, "not an edleak trace")
                    .with_remedy("give the file that edleak-record wrote")
            });
        };
        if header.version > FORMAT_VERSION {
            return Err(Error::new(
                ErrorKind::NewerVersion,
                format!("format {} is newer than {FORMAT_VERSION}", header.version),
            )
            .with_remedy("use a newer edleak-analyze"));
        }
        if page.len() < PAGE_BYTES {
            return Err(Error::new(ErrorKind::TruncatedHeader, "the file ends inside its first page")
                .with_remedy("copy the whole file"));
        }
        let unsound = copies().filter(|&copy| copy != Some(header)).count() as u64;
        Ok((header, unsound))
    }
}

fn parse(copy: &[u8]) -> Option<Header> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(copy.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(copy.get(at..at + 8)?.try_into().ok()?));
    (copy.starts_with(&MAGIC) && u32_at(12)? == checksum(copy)).then_some(())?;
    Some(Header { version: u32_at(8)?, capacity_bytes: u64_at(16)?, salt: u64_at(24)? })
}

fn checksum(copy: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&copy[..12]);
    sum.update(&copy[16..COPY_BYTES]);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { version: FORMAT_VERSION, capacity_bytes: 1 << 20, salt: 0x1234_5678_9abc_def0 };

    fn kind(page: &[u8]) -> ErrorKind {
        Header::from_page(page).expect_err("no header to find").kind()
    }

    #[test]
    fn any_one_flipped_bit_is_survived() {
        let sound = HEADER.to_page();
        assert_eq!(Header::from_page(&sound).expect("sound"), (HEADER, 0));
        for bit in 0..PAGE_BYTES * 8 {
            let mut page = sound.clone();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::from_page(&page).expect("three copies are left").0, HEADER);
        }
    }

    #[test]
    fn file_that_is_not_a_trace_is_refused_with_the_reason() {
        let page = HEADER.to_page();
        assert_eq!(kind(&[]), ErrorKind::Empty);
        assert_eq!(kind(b"\x7fELF"), ErrorKind::NotATrace);
        assert_eq!(kind(&[0; 9000]), ErrorKind::NotATrace);
        for length in [1, 7, 8, 31, 32, 1024, PAGE_BYTES - 1] {
            assert_eq!(kind(&page[..length]), ErrorKind::TruncatedHeader, "{length} bytes");
        }
        let newer = Header { version: FORMAT_VERSION + 1, ..HEADER }.to_page();
        let error = Header::from_page(&newer).expect_err("a version to come");
        assert_eq!(error.kind(), ErrorKind::NewerVersion);
        assert_eq!(error.to_string(), "format 6 is newer than 5 (use a newer edleak-analyze)");
    }
}
