//! An open ELF file: its path, its bytes, its build ID.

use crate::elf::{Elf, Piece};
use crate::error::Error;
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
    /// The path may come from a trace or from debug information. So the function refuses everything but a
    /// regular file: opening a FIFO would wait for ever.
    ///
    /// # Errors
    /// The file cannot be read, or is not an ELF file of a machine that edleak records on.
    pub fn open(path: &Path) -> io::Result<BinaryFile> {
        let bytes = FileBytes::open(path)?;
        let file = BinaryFile::new(path.to_owned(), bytes);
        file.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// An ELF file that was packed inside another file. The file keeps the path of the outer file, for
    /// messages.
    pub(crate) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<BinaryFile, Error> {
        BinaryFile::new(path.to_owned(), FileBytes::Owned(bytes))
    }

    /// An ELF file from bytes in memory; `path` names their origin.
    ///
    /// # Errors
    /// The bytes are not an ELF file of a machine that edleak records on.
    pub fn new(path: PathBuf, bytes: FileBytes) -> Result<BinaryFile, Error> {
        let build_id = Elf::parse(&bytes)?.build_id().unwrap_or_default().to_vec();
        Ok(BinaryFile { path, bytes, build_id })
    }

    /// Reads the headers. The result borrows the headers, so reading them again is cheap.
    ///
    /// # Errors
    /// Another process overwrote the file since it was opened.
    pub fn elf(&self) -> Result<Elf<'_>, Error> {
        Elf::parse(&self.bytes)
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GNU build ID; empty if the file has none.
    pub fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of `piece`, which must be a piece of this file.
    pub(crate) fn slice<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Within(range) => self.bytes.get(range.clone()).unwrap_or_default(),
            Piece::Unpacked(bytes) => bytes,
        }
    }

    /// Whether the file holds DWARF, complete or split.
    pub(crate) fn has_dwarf(&self) -> bool {
        // This name also finds `.zdebug_info`.
        self.elf().is_ok_and(|elf| elf.has_section(".debug_info"))
    }

    /// The section called `name`, decompressed; empty: it is missing or damaged.
    pub(crate) fn piece(&self, name: &str) -> Piece {
        self.elf().ok().and_then(|elf| elf.piece(name)).unwrap_or_default()
    }
}
