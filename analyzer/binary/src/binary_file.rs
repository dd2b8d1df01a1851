//! An ELF file that is kept open: its path, its bytes, its build ID.

use crate::elf::{Elf, ElfError, Piece};
use crate::file_bytes::FileBytes;
use std::io;
use std::path::{Path, PathBuf};

/// An ELF file, mapped or unpacked into memory.
#[derive(Debug)]
pub struct BinaryFile {
    path: PathBuf,
    bytes: FileBytes,
    build_id: Vec<u8>,
}

impl BinaryFile {
    /// Maps the file at `path`.
    ///
    /// A path may come from a trace or from debug information, so anything but a regular file is refused: opening a
    /// FIFO would wait for ever.
    ///
    /// # Errors
    /// If it cannot be read, or is no ELF file of a machine that edleak records on.
    pub fn open(path: &Path) -> io::Result<BinaryFile> {
        let bytes = FileBytes::open(path)?;
        let file = BinaryFile::new(path.to_owned(), bytes);
        file.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// An ELF file that was packed inside another one, whose path it keeps for messages.
    pub(crate) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<BinaryFile, ElfError> {
        BinaryFile::new(path.to_owned(), FileBytes::Owned(bytes))
    }

    /// An ELF file whose bytes are at hand; `path` is where it came from.
    ///
    /// # Errors
    /// If it is no ELF file of a machine that edleak records on.
    pub fn new(path: PathBuf, bytes: FileBytes) -> Result<BinaryFile, ElfError> {
        let build_id = Elf::parse(&bytes)?.build_id().unwrap_or_default().to_vec();
        Ok(BinaryFile { path, bytes, build_id })
    }

    /// Reads the headers; they are borrowed, so this is cheap enough to do again.
    ///
    /// # Errors
    /// If somebody overwrote the file since it was opened.
    pub fn elf(&self) -> Result<Elf<'_>, ElfError> {
        Elf::parse(&self.bytes)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GNU build ID, empty where it has none.
    pub fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes that `piece`, which must be of this file, stands for.
    pub(crate) fn slice<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Within(range) => self.bytes.get(range.clone()).unwrap_or_default(),
            Piece::Unpacked(bytes) => bytes,
        }
    }

    /// Whether it holds DWARF, in one file or split.
    pub(crate) fn has_dwarf(&self) -> bool {
        // `.zdebug_info` is found by this name as well.
        self.elf().is_ok_and(|elf| elf.has_section(".debug_info"))
    }

    /// The section called `name`, unpacked where it is compressed; empty where it is missing or damaged.
    pub(crate) fn piece(&self, name: &str) -> Piece {
        self.elf().ok().and_then(|elf| elf.piece(name)).unwrap_or_default()
    }
}
