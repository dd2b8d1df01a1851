//! The bytes of a file, mapped into memory.
#![allow(unsafe_code)] // maps a file

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The bytes of a file, or a copy of the bytes of a module that has no file, such as the vDSO.
#[derive(Debug)]
pub enum FileBytes {
    /// A mapped file. The kernel reads a page of the file only when edleak uses this page.
    Mapped(Mmap),
    /// Bytes that are not in a mapped file, for example bytes that were unpacked from another file.
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// The path is not a regular file, or the file cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<FileBytes> {
        // A hostile target may name a pipe as one of its modules. Opening a pipe would wait for another
        // process, so the function opens only regular files.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(FileBytes::Owned(Vec::new())); // mmap refuses length 0, but an empty file is valid
        }
        // SAFETY: the mapping is private and read-only. If another process truncates the file while edleak
        // reads it, the kernel sends SIGBUS to edleak. edleak cannot prevent this case, but the case is rare:
        // package managers and linkers write a new file in place of an old one and do not truncate the old
        // file.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(FileBytes::Mapped(map))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Owned(bytes) => bytes,
        }
    }
}
