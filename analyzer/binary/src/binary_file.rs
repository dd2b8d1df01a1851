//! An open ELF file, with its path, its bytes and its build ID.

use crate::elf::{Elf, Piece};
use crate::error::Error;
use crate::file_bytes::FileBytes;
use std::io;
use std::path::{Path, PathBuf};

/// An ELF file that is mapped, or that was unpacked into memory.
#[derive(Debug)]
pub struct BinaryFile {
    path: PathBuf,
    bytes: FileBytes,
    build_id: Vec<u8>,
}

impl BinaryFile {
    /// Maps the file at `path`.
    ///
    /// The path may come from a trace or from debug information, so the function opens only regular files.
    /// Opening a FIFO would wait for ever.
    ///
    /// # Errors
    /// The file cannot be read, is not an ELF file, or is for a machine on which edleak cannot record.
    pub fn open(path: &Path) -> io::Result<BinaryFile> {
        let bytes = FileBytes::open(path)?;
        let file = BinaryFile::new(path.to_owned(), bytes);
        file.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Reads an ELF file that was packed inside another file. `path` is the path of the outer file; error
    /// messages show this path.
    pub(crate) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<BinaryFile, Error> {
        BinaryFile::new(path.to_owned(), FileBytes::Owned(bytes))
    }

    /// Reads an ELF file from bytes in memory; `path` names the file from which the bytes come.
    ///
    /// # Errors
    /// The bytes are no ELF file, or the ELF file is for a machine on which edleak cannot record.
    pub(crate) fn new(path: PathBuf, bytes: FileBytes) -> Result<BinaryFile, Error> {
        let build_id = Elf::parse(&bytes)?.build_id().unwrap_or_default().to_vec();
        Ok(BinaryFile { path, bytes, build_id })
    }

    /// Reads the headers. The result refers to the bytes of the file and copies nothing, so each call is
    /// cheap.
    ///
    /// # Errors
    /// The headers are damaged, because another process overwrote the file after edleak opened it.
    pub fn elf(&self) -> Result<Elf<'_>, Error> {
        Elf::parse(&self.bytes)
    }

    /// The path from which the file was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The GNU build ID; empty if the file has none.
    pub fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of `piece`, which must be a section of this file.
    pub(crate) fn slice<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Within(range) => self.bytes.get(range.clone()).unwrap_or_default(),
            Piece::Unpacked(bytes) => bytes,
        }
    }

    /// Whether the file contains debug information (DWARF). A file that has only a part of its debug
    /// information, and refers to split debug files for the rest, also counts.
    pub(crate) fn has_dwarf(&self) -> bool {
        // A search for `.debug_info` also finds a section `.zdebug_info`.
        self.elf().is_ok_and(|elf| elf.has_section(".debug_info"))
    }

    /// The section called `name`, decompressed. If the section is missing or damaged, the result has no
    /// bytes.
    pub(crate) fn piece(&self, name: &str) -> Piece {
        self.elf().ok().and_then(|elf| elf.piece(name)).unwrap_or_default()
    }
}
