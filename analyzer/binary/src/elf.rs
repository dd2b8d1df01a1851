//! One ELF file, mapped or unpacked into memory: its build ID and the bytes of its sections.
//!
//! Sections are borrowed from the mapping; only compressed ones are copied. Nothing is believed: every size a file
//! states is checked against the bytes it has before memory is asked for.
#![allow(unsafe_code)]

use object::{CompressionFormat, Object, ObjectSection};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A compressed section may grow to 1,100 times its size (deflate's limit is 1,032; debug information reaches 10) …
const MAX_RATIO: u64 = 1_100;

/// … and to this in any case: 16 GiB of debug information is more than any linker writes.
const MAX_SECTION_BYTES: u64 = 16 << 30;

/// An ELF file.
#[derive(Debug)]
pub(crate) struct Elf {
    path: PathBuf,
    bytes: Bytes,
    build_id: Vec<u8>,
    endian: gimli::RunTimeEndian,
}

#[derive(Debug)]
enum Bytes {
    Mapped(memmap2::Mmap),
    Unpacked(Vec<u8>),
}

/// Where the bytes of a section are: within its file, or unpacked.
#[derive(Debug)]
pub(crate) enum Piece {
    Within(Range<usize>),
    Unpacked(Vec<u8>),
}

impl Default for Piece {
    fn default() -> Self {
        Piece::Within(0..0)
    }
}

impl Piece {
    /// How much memory or address space it takes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Piece::Within(range) => range.len(),
            Piece::Unpacked(bytes) => bytes.len(),
        }
    }
}

impl Elf {
    /// Maps the file at `path`.
    ///
    /// A path may come from a trace or from debug information, so anything but a regular file is refused: opening a
    /// FIFO would wait for ever.
    pub(crate) fn open(path: &Path) -> io::Result<Elf> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        // SAFETY: the mapping is read-only and private to us. Nobody can promise that no other process truncates the
        // file meanwhile; if one does, reading it ends this process with SIGBUS, as for every tool that maps binaries.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Elf::new(path.to_owned(), Bytes::Mapped(map))
    }

    /// An ELF file that was packed inside another one, whose path it keeps for messages.
    pub(crate) fn from_bytes(path: &Path, bytes: Vec<u8>) -> io::Result<Elf> {
        Elf::new(path.to_owned(), Bytes::Unpacked(bytes))
    }

    fn new(path: PathBuf, bytes: Bytes) -> io::Result<Elf> {
        let mut elf = Elf { path, bytes, build_id: Vec::new(), endian: gimli::RunTimeEndian::Little };
        let file = elf.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let endian =
            if file.is_little_endian() { gimli::RunTimeEndian::Little } else { gimli::RunTimeEndian::Big };
        let build_id = file.build_id().ok().flatten().unwrap_or_default().to_vec();
        elf.endian = endian;
        elf.build_id = build_id;
        Ok(elf)
    }

    /// Reads the tables of sections and symbols; they are borrowed, so this is cheap enough to do again.
    pub(crate) fn parse(&self) -> object::Result<object::File<'_>> {
        // Of object's formats only ELF is compiled in; the parser refuses everything else.
        object::File::parse(self.bytes())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The GNU build ID, empty where it has none.
    pub(crate) fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    pub(crate) fn endian(&self) -> gimli::RunTimeEndian {
        self.endian
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Unpacked(bytes) => bytes,
        }
    }

    /// The bytes that `piece`, which must be of this file, stands for.
    pub(crate) fn slice<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Within(range) => self.bytes().get(range.clone()).unwrap_or_default(),
            Piece::Unpacked(bytes) => bytes,
        }
    }

    /// Whether it holds DWARF, in one file or split.
    pub(crate) fn has_dwarf(&self) -> bool {
        let Ok(file) = self.parse() else { return false };
        [".debug_info", ".zdebug_info"].iter().any(|name| {
            file.section_by_name(name).is_some_and(|section| {
                section.compressed_file_range().is_ok_and(|range| range.compressed_size != 0)
            })
        })
    }

    /// The section called `name`, unpacked where it is compressed; empty where it is missing or damaged.
    pub(crate) fn piece(&self, name: &str) -> Piece {
        self.parse().ok().and_then(|file| self.piece_of(&file, name)).unwrap_or_default()
    }

    fn piece_of(&self, file: &object::File<'_>, name: &str) -> Option<Piece> {
        // `section_by_name` also finds `.zdebug_info`, the GNU way to compress `.debug_info`.
        let range = file.section_by_name(name)?.compressed_file_range().ok()?;
        let start = usize::try_from(range.offset).ok()?;
        let end = start.checked_add(usize::try_from(range.compressed_size).ok()?)?;
        let packed = self.bytes().get(start..end)?;
        let limit = MAX_SECTION_BYTES.min((packed.len() as u64).saturating_mul(MAX_RATIO));
        if range.format != CompressionFormat::None && range.uncompressed_size > limit {
            return None;
        }
        match range.format {
            CompressionFormat::None => Some(Piece::Within(start..end)),
            CompressionFormat::Zstandard => {
                // The C library behind the trace's own blocks unpacks at several times the speed of object's.
                let reader = zstd::stream::read::Decoder::with_buffer(packed).ok()?;
                read_exactly(reader, range.uncompressed_size).map(Piece::Unpacked)
            }
            CompressionFormat::Zlib => {
                let data = object::CompressedData {
                    format: range.format,
                    data: packed,
                    uncompressed_size: range.uncompressed_size,
                };
                Some(Piece::Unpacked(data.decompress().ok()?.into_owned()))
            }
            _ => None,
        }
    }
}

fn read_exactly(reader: impl Read, size: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).ok()?).ok()?;
    reader.take(size).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == size).then_some(bytes)
}
