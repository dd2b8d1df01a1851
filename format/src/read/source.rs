//! The bytes of a trace, which are in a file or in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The place from which a reader reads the bytes of a trace.
///
/// The reader does not map the file: it reads the bytes of the file into a buffer. The reader checks the
/// checksum of each copied block and decodes the block from the copy. So if the recorder changes the file,
/// another process truncates the file, or the disk fails, the reader gets an error and never the signal
/// SIGBUS. Copying a block takes very little time compared with its decompression.
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

    /// Reads `length` bytes from position `at`, or fewer bytes at the end of the trace. If the bytes come
    /// from a file, `buffer` holds them.
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

    /// Reads `length` bytes from position `at` of a file of `file_bytes` bytes, or fewer bytes at the end of
    /// the file.
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

    /// Reads the whole trace into memory, as it is now.
    pub(crate) fn into_memory(self) -> io::Result<Source> {
        let mut bytes = Vec::new();
        self.read(0, self.length(), &mut bytes)?;
        Ok(match self {
            Source::Bytes(_) => self,
            Source::File { .. } => Source::Bytes(bytes),
        })
    }
}
