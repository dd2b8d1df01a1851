//! The bytes of a trace, in a file or in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The source of a trace's bytes.
///
/// The reader reads a file and does not map it: it decodes each block from a copy whose checksum it has just
/// verified. So a recorder that still writes, a truncated file or a failing disk leads to an error and never
/// to a signal. Compared with decompression, the copy takes almost no time.
pub(crate) enum Source {
    File { file: File, length: u64 },
    Bytes(Vec<u8>),
}

impl Source {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Source::File { length, .. } => *length,
            Source::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Reads up to `length` bytes from `at`; fewer at the end. `buffer` holds the bytes if they come from a
    /// file.
    pub(crate) fn read<'a>(&'a self, at: u64, length: u64, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let length = length.min(self.length().saturating_sub(at)) as usize;
        match self {
            Source::Bytes(bytes) => {
                let at = (at as usize).min(bytes.len());
                Ok(&bytes[at..at + length])
            }
            Source::File { file, length: whole } => {
                Self::read_file(file, *whole, at, length as u64, buffer)?;
                Ok(buffer)
            }
        }
    }

    /// Reads up to `length` bytes from `at` of a file of `file_bytes` bytes; fewer at the end.
    pub(crate) fn read_file(
        file: &File,
        file_bytes: u64,
        at: u64,
        length: u64,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let length = length.min(file_bytes.saturating_sub(at)) as usize;
        buffer.resize(length, 0);
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(())
    }

    /// Reads the whole trace, in its present state, into memory.
    pub(crate) fn into_memory(self) -> io::Result<Source> {
        let mut bytes = Vec::new();
        self.read(0, self.length(), &mut bytes)?;
        Ok(match self {
            Source::Bytes(_) => self,
            Source::File { .. } => Source::Bytes(bytes),
        })
    }
}
