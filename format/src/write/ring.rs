//! The extents of a trace. A trace never exceeds its capacity, and disk space is reserved before it is used.
//! A trace in memory keeps its extents in memory until they are written into its file.
//!
//! The extents follow each other without gaps, from the end of the first page to the highest byte that was
//! ever used. A free extent begins with a header of kind free. The writer reuses any free extent that is
//! large enough, so a new block may be between two old blocks. To replace blocks, the writer writes the
//! payload of the new block, then its header, and only then releases the old blocks. So a reader can read the
//! file at every instant, even if the writer is killed.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};

use crate::error::{Error, ErrorKind};
use crate::layout::block::{ALIGN_BYTES, BlockHeader, BlockKind, HEADER_BYTES};
use crate::layout::header::PAGE_BYTES;

/// The writer extends the file by at least this number of bytes, so that it rarely has to extend the file.
const GROW_BYTES: u64 = 64 << 10;
const OS_PAGE_BYTES: u64 = 4096;

#[cfg(test)]
type Watcher = Box<dyn FnMut(&[u8]) + Send>;

/// The bytes of a trace.
enum Bytes {
    /// The bytes of the file, which is mapped.
    Mapped { file: File, map: MmapMut },
    /// The bytes of a trace in memory. `None`: the file does not exist yet.
    InMemory { bytes: Vec<u8>, file: Option<File> },
}

pub(crate) struct Ring {
    bytes: Bytes,
    salt: u64,
    capacity: u64,
    /// Length of the file, or of the bytes in memory. If the bytes are in a file, disk space is reserved for
    /// the whole file.
    reserved: u64,
    /// End of the highest extent that was ever used.
    end: u64,
    /// Position and length of each extent in use.
    live: BTreeMap<u64, u64>,
    /// A test can set this function. Each write calls the function with the bytes that the file would have if
    /// the writer were killed during the write.
    #[cfg(test)]
    pub(crate) after_write: Option<Watcher>,
}

impl Ring {
    /// Takes over an empty file and writes its first page.
    pub(crate) fn new(file: File, capacity: u64, salt: u64, page: &[u8]) -> Result<Ring, Error> {
        let map = map(&file, capacity)?;
        Ring::with(Bytes::Mapped { file, map }, capacity, salt, page)
    }

    /// Makes a ring whose bytes stay in memory until [`map_file`](Self::map_file) or [`finish`](Self::finish)
    /// is called.
    pub(crate) fn in_memory(capacity: u64, salt: u64, page: &[u8]) -> Result<Ring, Error> {
        let bytes = Vec::with_capacity(GROW_BYTES as usize);
        Ring::with(Bytes::InMemory { bytes, file: None }, capacity, salt, page)
    }

    fn with(bytes: Bytes, capacity: u64, salt: u64, page: &[u8]) -> Result<Ring, Error> {
        let mut ring = Ring {
            bytes,
            salt,
            capacity,
            reserved: 0,
            end: PAGE_BYTES as u64,
            live: BTreeMap::new(),
            #[cfg(test)]
            after_write: None,
        };
        ring.reserve(PAGE_BYTES as u64)?;
        ring.write(0, page);
        Ok(ring)
    }

    /// The file of the trace; `None`: the trace has no file yet.
    pub(crate) fn file(&self) -> Option<&File> {
        match &self.bytes {
            Bytes::Mapped { file, .. } => Some(file),
            Bytes::InMemory { file, .. } => file.as_ref(),
        }
    }

    /// Whether the bytes are in memory and not yet in the file.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.bytes, Bytes::InMemory { .. })
    }

    /// Sets the file of a trace in memory; the file must be empty.
    pub(crate) fn set_file(&mut self, new: File) {
        if let Bytes::InMemory { file, .. } = &mut self.bytes {
            *file = Some(new);
        }
    }

    /// Moves the bytes of a trace in memory into its file, and maps the file.
    pub(crate) fn map_file(&mut self) -> Result<(), Error> {
        let Bytes::InMemory { bytes, file: place } = &mut self.bytes else { return Ok(()) };
        let file = place.as_ref().expect("the caller has set the file");
        fallocate(file, 0, self.reserved)
            .and_then(|()| file.write_all_at(bytes, 0))
            .map_err(|error| Error::io("cannot reserve space", error))?;
        let map = map(file, self.capacity)?;
        let file = place.take().expect("it is set");
        self.bytes = Bytes::Mapped { file, map };
        Ok(())
    }

    /// The file, which stays locked, and the capacity. A trace in memory may have no file.
    pub(crate) fn into_file(self) -> (Option<File>, u64) {
        let file = match self.bytes {
            Bytes::Mapped { file, .. } => Some(file),
            Bytes::InMemory { file, .. } => file,
        };
        (file, self.capacity)
    }

    /// Checks that no other process has truncated the file. Data that is written beyond the end of the file
    /// is lost.
    pub(crate) fn check_length(&self) -> Result<(), Error> {
        let Bytes::Mapped { file, .. } = &self.bytes else { return Ok(()) };
        match file.metadata() {
            Ok(metadata) if metadata.len() < self.reserved => {
                Err(Error::new(ErrorKind::CutOff, "another process truncated it while it was written")
                    .with_remedy("do not change it while it is recorded"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn salt(&self) -> u64 {
        self.salt
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Length of the file if the file ended just after the last extent in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.live.last_key_value().map_or(PAGE_BYTES as u64, |(at, length)| at + length)
    }

    /// The first extent in use that begins at `at` or after it.
    pub(crate) fn next_live(&self, at: u64) -> Option<(u64, u64)> {
        self.live.range(at..).next().map(|(&at, &length)| (at, length))
    }

    /// End of the last extent in use that begins before `at`.
    pub(crate) fn end_before(&self, at: u64) -> u64 {
        self.live.range(..at).next_back().map_or(PAGE_BYTES as u64, |(at, length)| at + length)
    }

    pub(crate) fn read(&self, at: u64, length: usize) -> &[u8] {
        assert!(at + length as u64 <= self.reserved, "reading below what is reserved");
        &self.bytes()[at as usize..at as usize + length]
    }

    /// The bytes of the trace. In a mapped file, the caller may touch only the reserved bytes.
    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped { map, .. } => map,
            Bytes::InMemory { bytes, .. } => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.bytes {
            Bytes::Mapped { map, .. } => map,
            Bytes::InMemory { bytes, .. } => bytes,
        }
    }

    /// Writes into an extent that the caller owns.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= self.reserved, "writing below what is reserved");
        #[cfg(test)]
        if let Some(mut hook) = self.after_write.take() {
            // A test gets the bytes of the file twice: as if the writer were killed in the middle of this
            // write, and as if the writer were killed just after this write.
            let half = bytes.len() / 2;
            self.bytes_mut()[at as usize..at as usize + half].copy_from_slice(&bytes[..half]);
            hook(&self.bytes()[..self.reserved as usize]);
            self.bytes_mut()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
            hook(&self.bytes()[..self.reserved as usize]);
            self.after_write = Some(hook);
            return;
        }
        self.bytes_mut()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn write_header(&mut self, at: u64, header: BlockHeader) {
        let bytes = header.to_bytes(self.salt);
        self.write(at, &bytes);
    }

    /// Position and length of each free extent. The last free extent ends at the capacity of the trace.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = (u64, u64)> {
        let begins =
            std::iter::once(PAGE_BYTES as u64).chain(self.live.iter().map(|(at, length)| at + length));
        let ends = self.live.keys().copied().chain([self.capacity]);
        begins.zip(ends).filter(|(begin, end)| end > begin).map(|(begin, end)| (begin, end - begin))
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.gaps().map(|(_, length)| length).sum()
    }

    /// Whether there is room for two new extents at the same time, of `length` and of `spare` bytes.
    pub(crate) fn fits(&self, length: u64, spare: u64) -> bool {
        let mut is_placed = false;
        let mut is_spare_left = spare == 0;
        for (_, mut gap) in self.gaps() {
            if !is_placed && gap >= length {
                is_placed = true;
                gap -= length;
            }
            is_spare_left |= gap >= spare;
        }
        is_placed && is_spare_left
    }

    /// Allocates the lowest free extent that has `length` bytes. `None`: no free extent within the capacity
    /// is large enough.
    pub(crate) fn allocate(&mut self, length: u64) -> Result<Option<u64>, Error> {
        debug_assert!(length.is_multiple_of(ALIGN_BYTES));
        let Some((at, gap)) = self.gaps().find(|&(_, gap)| gap >= length) else {
            return Ok(None);
        };
        self.reserve(at + length)?;
        let gap_end = (at + gap).min(self.end);
        if at + length < gap_end {
            self.mark_free(at + length, gap_end);
        }
        self.end = self.end.max(at + length);
        self.live.insert(at, length);
        Ok(Some(at))
    }

    /// Releases an extent. The bytes of the extent stay until other bytes overwrite them, but readers do not
    /// use them any more.
    pub(crate) fn release(&mut self, at: u64) {
        self.live.remove(&at).expect("only extents in use are released");
        let begin = self.end_before(at);
        let end = self.live.range(at..).next().map_or(self.end, |(&at, _)| at);
        self.mark_free(begin, end);
    }

    fn mark_free(&mut self, begin: u64, end: u64) {
        let payload = end - begin - HEADER_BYTES as u64;
        self.write_header(begin, BlockHeader::new(BlockKind::Free, 0, payload));
    }

    /// Extends the file to at least `to` bytes and reserves disk space, so that no write to the map can fail.
    fn reserve(&mut self, to: u64) -> Result<(), Error> {
        if to <= self.reserved {
            return Ok(());
        }
        let at_least = to.next_multiple_of(OS_PAGE_BYTES).min(self.capacity);
        let file = match &mut self.bytes {
            Bytes::Mapped { file, .. } => file,
            Bytes::InMemory { bytes, .. } => {
                bytes.resize(at_least as usize, 0);
                self.reserved = at_least;
                return Ok(());
            }
        };
        let ample = (self.reserved + (self.reserved / 2).max(GROW_BYTES))
            .next_multiple_of(OS_PAGE_BYTES)
            .clamp(at_least, self.capacity);
        // The disk has no room for the larger size, but may still have room for the bytes that are needed
        // now.
        match fallocate(file, self.reserved, ample) {
            Ok(()) => self.reserved = ample,
            Err(_) => {
                fallocate(file, self.reserved, at_least)
                    .map_err(|error| Error::io("cannot reserve space", error))?;
                self.reserved = at_least;
            }
        }
        Ok(())
    }

    /// Drops the resident pages of the map after a write, so that the map keeps no unused pages resident. The
    /// data stays in the page cache.
    pub(crate) fn drop_resident_pages(&self) {
        let Bytes::Mapped { map, .. } = &self.bytes else { return };
        // SAFETY: the map is shared and backed by the file. After an access to a dropped page, the kernel
        // maps the page again from the page cache, which holds every byte that was written.
        let advised =
            unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, 0, self.reserved as usize) };
        // If the kernel refuses this call of madvise, the pages stay resident, which only costs memory.
        drop(advised);
    }

    /// Truncates the file after the last extent in use and returns its length. For a trace in memory, this
    /// function writes the file with one call.
    pub(crate) fn finish(self) -> Result<u64, Error> {
        let length = self.used_bytes();
        match self.bytes {
            Bytes::Mapped { file, map } => {
                drop(map);
                file.set_len(length).map_err(|error| Error::io("cannot cut the file to its size", error))?;
            }
            Bytes::InMemory { bytes, file } => {
                let file = file.expect("the caller has set the file");
                check_limit(length).and_then(|()| file.write_all_at(&bytes[..length as usize], 0)).map_err(
                    |error| {
                        // If only a part of the trace fits on the disk, nobody can read that part, so leave
                        // the file empty.
                        let _ = file.set_len(0);
                        Error::io("cannot write the file", error)
                    },
                )?;
            }
        }
        Ok(length)
    }
}

fn map(file: &File, capacity: u64) -> Result<MmapMut, Error> {
    let length = usize::try_from(capacity).map_err(|_| too_large(capacity))?;
    // SAFETY: another process could truncate the file, and an access beyond the new end causes SIGBUS. SIGBUS
    // kills a process without a handler for it; edleak-record has a handler, which puts memory in place of
    // the file. The writer never touches the mapped bytes beyond `reserved`.
    let map = unsafe { MmapOptions::new().len(length).map_mut(file) };
    map.map_err(|error| Error::io("cannot map the file", error))
}

fn too_large(capacity: u64) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("a capacity of {capacity} bytes cannot be mapped"))
        .with_remedy("use a smaller --size")
}

/// Checks that the process's limit on the file size allows a file of `length` bytes. Without this check, a
/// write beyond the limit would cause a signal that kills the process.
fn check_limit(length: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit, and the call writes to it.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    if got == 0 && length > limit.rlim_cur {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(())
}

/// Reserves disk space from `from` to `to` and extends the file to `to`.
fn fallocate(file: &File, from: u64, to: u64) -> io::Result<()> {
    check_limit(to)?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed.
        let done = unsafe { libc::fallocate(file.as_raw_fd(), 0, from as i64, (to - from) as i64) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => return write_zeros(file, from, to),
            _ => return Err(error),
        }
    }
}

/// Reserves space by writing zeros, for a file system without fallocate.
fn write_zeros(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    let zeros = [0; 16 << 10];
    while from < to {
        let length = zeros.len().min((to - from) as usize);
        file.write_all_at(&zeros[..length], from)?;
        from += length as u64;
    }
    Ok(())
}
