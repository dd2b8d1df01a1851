//! Finds out whether another process has opened a file in memory (memfd), and which pages of this file exist.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::fd::AsRawFd;

/// The command of fcntl(2) that sets which signal the kernel sends when another process opens a file with a
/// lease.
const F_SETSIG: libc::c_int = 10;

/// Whether no other process has opened or mapped this file. The function checks only whether the file is open
/// elsewhere. This check also finds mappings: the kernel keeps a file open while a mapping that was made
/// through its descriptor exists, even if the process has closed the descriptor.
///
/// To check whether the file is open elsewhere, the function opens it once more and requests a write lease.
/// The kernel gives the lease only if nobody else has opened the file; the descriptor with which memfd_create
/// created the file does not count. Before the function returns, it closes its own new descriptor, which ends
/// the lease.
pub(crate) fn is_unshared(file: &File) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let Ok(again) = OpenOptions::new().read(true).write(true).open(path) else { return false };
    // If another process opens the file during the lease, the kernel sends a signal to the collector. The
    // default signal, SIGIO, would end the collector, so choose SIGURG, which has no effect. SAFETY: the call
    // passes no memory.
    let is_harmless = unsafe { libc::fcntl(again.as_raw_fd(), F_SETSIG, libc::SIGURG) } == 0;
    // SAFETY: the call passes no memory.
    is_harmless && unsafe { libc::fcntl(again.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) } == 0
}

/// The ranges of a file in memory in which pages exist.
pub(crate) fn pages_of(file: &File) -> impl Iterator<Item = Range<usize>> {
    let seek = |from: usize, whence| {
        // SAFETY: the call passes no memory, and no other code uses the position in this file.
        let at = unsafe { libc::lseek(file.as_raw_fd(), from as i64, whence) };
        usize::try_from(at).ok()
    };
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = seek(from, libc::SEEK_DATA)?;
        from = seek(start, libc::SEEK_HOLE)?;
        Some(start..from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::os::unix::fs::FileExt;

    fn file() -> File {
        let file = File::from(memfd_create("edleak-test", MemfdFlags::CLOEXEC).expect("a file in memory"));
        file.set_len(1 << 20).expect("it is empty");
        file
    }

    #[test]
    fn file_is_unshared_while_nobody_else_has_opened_or_mapped_it() {
        let file = file();
        assert!(is_unshared(&file));
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let other = OpenOptions::new().read(true).write(true).open(path).expect("it is our own");
        assert!(!is_unshared(&file));
        // SAFETY: the kernel chooses the address, so the new mapping covers no existing memory.
        let base = unsafe {
            let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), 4096, access, shared, other.as_raw_fd(), 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        drop(other);
        assert!(!is_unshared(&file), "the mapping is still there");
        // SAFETY: this test made the mapping, and no code uses it any more.
        unsafe { libc::munmap(base, 4096) };
        assert!(is_unshared(&file));
    }

    #[test]
    fn only_pages_that_exist_are_named() {
        let file = file();
        assert_eq!(pages_of(&file).count(), 0);
        for at in [0, 4096, 40 << 10] {
            file.write_all_at(&[1], at).expect("it is in memory");
        }
        assert_eq!(pages_of(&file).collect::<Vec<_>>(), [0..8192, 40 << 10..44 << 10]);
    }
}
