//! COLD: the raw system calls of the preload library. A raw system call does not change the target's errno.
#![allow(unsafe_code)]

use crate::arch::{numbers, syscall};
use core::ptr;
use core::sync::atomic::AtomicU32;

const PROT_READ_WRITE: usize = 3;
const MAP_SHARED: usize = 0x01;
const MAP_PRIVATE: usize = 0x02;
const MAP_ANONYMOUS: usize = 0x20;
const MAP_NORESERVE: usize = 0x4000;
/// With the flag MAP_STACK, kernels since version 6.7 use no huge pages for the mapping, so the library need
/// not call madvise. With huge pages, the first entry of a table would cost a small program 2 MiB.
const MAP_STACK: usize = 0x20000;
/// Makes `openat` and `readlinkat` interpret a relative path from the working directory.
const AT_FDCWD: usize = (-100isize).cast_unsigned();
const O_RDWR: usize = 2;
const O_CLOEXEC: usize = 0o2000000;

/// Opens a file; `path` ends in NUL. The caller must close the descriptor before control returns to the
/// target.
pub(crate) fn open(path: &[u8], writable: bool) -> Option<usize> {
    debug_assert_eq!(path.last(), Some(&0));
    let flags = O_CLOEXEC | if writable { O_RDWR } else { 0 };
    // SAFETY: `path` is NUL-terminated.
    let fd = unsafe { syscall(numbers::OPENAT, [AT_FDCWD, path.as_ptr() as usize, flags, 0, 0, 0]) };
    usize::try_from(fd).ok()
}

/// Closes a file that [`open`] returned.
pub(crate) fn close(fd: usize) {
    // SAFETY: `open` returned this descriptor.
    unsafe { syscall(numbers::CLOSE, [fd, 0, 0, 0, 0, 0]) };
}

/// Reads from a file once. Returns the number of bytes that were read; 0: the end of the file, or an error.
pub(crate) fn read(fd: usize, into: &mut [u8]) -> usize {
    // SAFETY: the buffer belongs to the caller.
    let read = unsafe { syscall(numbers::READ, [fd, into.as_mut_ptr() as usize, into.len(), 0, 0, 0]) };
    usize::try_from(read).unwrap_or(0)
}

/// Reads from a file at an offset. Returns the number of bytes that were read; 0 also means an error.
pub(crate) fn read_at(fd: usize, into: &mut [u8], offset: usize) -> usize {
    // SAFETY: the buffer belongs to the caller.
    let read =
        unsafe { syscall(numbers::PREAD64, [fd, into.as_mut_ptr() as usize, into.len(), offset, 0, 0]) };
    usize::try_from(read).unwrap_or(0)
}

/// Creates a pipe: returns its read end and its write end. A child process inherits both ends of the pipe.
pub(crate) fn pipe() -> Option<[usize; 2]> {
    let mut ends = [0i32; 2];
    // SAFETY: `ends` has room for two descriptors.
    let made = unsafe { syscall(numbers::PIPE2, [ends.as_mut_ptr() as usize, 0, 0, 0, 0, 0]) };
    (made == 0).then(|| ends.map(|end| end as usize))
}

fn map(bytes: usize, flags: usize, fd: usize) -> Option<*mut u8> {
    // SAFETY: the kernel chooses the address, so the new mapping covers no existing memory.
    let address = unsafe { syscall(numbers::MMAP, [0, bytes, PROT_READ_WRITE, flags, fd, 0]) };
    if (-4095..0).contains(&address) {
        None
    } else {
        Some(ptr::with_exposed_provenance_mut(address as usize))
    }
}

/// Maps private memory, which contains only zeros.
pub(crate) fn map_private(bytes: usize) -> Option<*mut u8> {
    map(bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, usize::MAX)
}

/// Maps a file that is shared with the collector.
pub(crate) fn map_shared(fd: usize, bytes: usize) -> Option<*mut u8> {
    map(bytes, MAP_SHARED | MAP_NORESERVE, fd)
}

/// Maps private memory, which contains only zeros, at exactly this address. `None`: another mapping lies at
/// this address, or the kernel refuses the mapping.
pub(crate) fn map_at(address: usize, bytes: usize) -> Option<*mut u8> {
    // A kernel before 4.17 ignores the flag MAP_FIXED_NOREPLACE and may choose another address.
    const MAP_FIXED_NOREPLACE: usize = 0x100000;
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    // SAFETY: the flag prevents that the new mapping replaces an existing one.
    let mapped = unsafe { syscall(numbers::MMAP, [address, bytes, PROT_READ_WRITE, flags, usize::MAX, 0]) };
    if mapped as usize == address {
        return Some(ptr::with_exposed_provenance_mut(address));
    }
    if !(-4095..0).contains(&mapped) {
        unmap(ptr::with_exposed_provenance_mut(mapped as usize), bytes);
    }
    None
}

/// The value of `allowed` in [`protect`] that allows the process to read and execute the pages.
pub(crate) const READ_EXECUTE: usize = 5;
/// The value of `allowed` in [`protect`] that allows the process to read, write and execute the pages.
pub(crate) const READ_WRITE_EXECUTE: usize = 7;

/// Changes what the process may do with pages: `allowed` is a sum of PROT flags. Returns 0 or −errno.
pub(crate) fn protect(address: usize, bytes: usize, allowed: usize) -> isize {
    // SAFETY: all callers leave the pages readable, so no read of these pages fails.
    unsafe { syscall(numbers::MPROTECT, [address, bytes, allowed, 0, 0, 0]) }
}

/// Unmaps memory that the preload itself has mapped.
pub(crate) fn unmap(address: *mut u8, bytes: usize) {
    // SAFETY: the preload made the mapping, and the caller has no reference into it.
    unsafe { syscall(numbers::MUNMAP, [address as usize, bytes, 0, 0, 0, 0]) };
}

/// Asks the kernel to set these pages to 0 in a forked child. `false`: the kernel cannot set pages to 0 in
/// a forked child.
pub(crate) fn wipe_on_fork(address: *const u8, bytes: usize) -> bool {
    const MADV_WIPEONFORK: usize = 18;
    // SAFETY: the pages belong to the preload library, and a child does not need their content.
    unsafe { syscall(numbers::MADVISE, [address as usize, bytes, MADV_WIPEONFORK, 0, 0, 0]) == 0 }
}

/// Asks the kernel to use no huge pages for this memory. A kernel that does not know MADV_NOHUGEPAGE
/// ignores the call.
pub(crate) fn no_huge_pages(address: *const u8, bytes: usize) {
    const MADV_NOHUGEPAGE: usize = 15;
    // SAFETY: this advice does not change the content of the memory.
    unsafe { syscall(numbers::MADVISE, [address as usize, bytes, MADV_NOHUGEPAGE, 0, 0, 0]) };
}

/// Reads a symbolic link. `path` ends in NUL. Returns the length of the link's content in bytes; 0: an error.
pub(crate) fn read_link(path: &[u8], into: &mut [u8]) -> usize {
    debug_assert_eq!(path.last(), Some(&0));
    // SAFETY: `path` is NUL-terminated, and the buffer belongs to the caller.
    let read = unsafe {
        syscall(
            numbers::READLINKAT,
            [AT_FDCWD, path.as_ptr() as usize, into.as_mut_ptr() as usize, into.len(), 0, 0],
        )
    };
    usize::try_from(read).unwrap_or(0)
}

/// Whether the effective user ID or group ID differs from the real user ID or group ID.
pub(crate) fn has_other_ids() -> bool {
    // SAFETY: these system calls take no arguments.
    let id = |number| unsafe { syscall(number, [0; 6]) };
    id(numbers::GETUID) != id(numbers::GETEUID) || id(numbers::GETGID) != id(numbers::GETEGID)
}

/// The ID of this process in its own PID namespace.
pub(crate) fn getpid() -> u32 {
    // SAFETY: the system call takes no arguments.
    unsafe { syscall(numbers::GETPID, [0; 6]) as u32 }
}

/// The ID of this thread in the PID namespace of its process.
pub(crate) fn gettid() -> u32 {
    // SAFETY: the call has no arguments.
    unsafe { syscall(numbers::GETTID, [0; 6]) as u32 }
}

/// Gives the memory behind shared pages back to the kernel, for every process that maps these pages.
pub(crate) fn remove_pages(address: *mut u8, bytes: usize) {
    const MADV_REMOVE: usize = 9;
    // SAFETY: the pages belong to a session of this process, and no thread needs this session now.
    unsafe { syscall(numbers::MADVISE, [address as usize, bytes, MADV_REMOVE, 0, 0, 0]) };
}

/// Gives the content of private pages back to the kernel, so that the pages contain only zeros.
pub(crate) fn clear_pages(address: *mut u8, bytes: usize) {
    const MADV_DONTNEED: usize = 4;
    const MAP_FIXED: usize = 0x10;
    let address = address as usize;
    // SAFETY: the pages belong to the preload library, and no thread needs their content any more.
    if unsafe { syscall(numbers::MADVISE, [address, bytes, MADV_DONTNEED, 0, 0, 0]) } == 0 {
        return;
    }
    // The kernel refuses MADV_DONTNEED for locked pages (mlockall). If the pages are locked, the function
    // maps new pages over them.
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    // SAFETY: the pages belong to the preload, so the new mapping replaces no memory of the target.
    unsafe { syscall(numbers::MMAP, [address, bytes, PROT_READ_WRITE, flags, usize::MAX, 0]) };
}

/// Waits for a child that `arch::spawn` started.
pub(crate) fn wait_for(pid: usize) {
    const WALL: usize = 0x4000_0000;
    const EINTR: isize = -4;
    // SAFETY: the call passes no memory to the kernel.
    while unsafe { syscall(numbers::WAIT4, [pid, 0, WALL, 0, 0, 0]) } == EINTR {}
}

/// Wakes all threads that wait for a change of a word of shared memory.
pub(crate) fn wake(word: &AtomicU32) {
    const FUTEX_WAKE: usize = 1;
    // SAFETY: the word outlives the call.
    unsafe { syscall(numbers::FUTEX, [word.as_ptr() as usize, FUTEX_WAKE, i32::MAX as usize, 0, 0, 0]) };
}

/// Waits until another thread or process wakes this thread, for at most `timeout_us` microseconds. Does not
/// wait if the word of shared memory differs from `value`.
pub(crate) fn wait(word: &AtomicU32, value: u32, timeout_us: u32) {
    const FUTEX_WAIT: usize = 0;
    let timeout = [i64::from(timeout_us / 1_000_000), i64::from(timeout_us % 1_000_000) * 1000];
    // SAFETY: the word and the timeout outlive the call.
    unsafe {
        syscall(
            numbers::FUTEX,
            [word.as_ptr() as usize, FUTEX_WAIT, value as usize, timeout.as_ptr() as usize, 0, 0],
        )
    };
}
