//! The numbers of the system calls that the preload library makes. Linux has each system call in this list on
//! every architecture.

pub(crate) const READ: usize = 0;
pub(crate) const CLOSE: usize = 3;
pub(crate) const MMAP: usize = 9;
pub(crate) const MPROTECT: usize = 10;
pub(crate) const MUNMAP: usize = 11;
pub(crate) const PREAD64: usize = 17;
pub(crate) const MADVISE: usize = 28;
pub(crate) const GETPID: usize = 39;
pub(crate) const CLONE: usize = 56;
pub(crate) const EXECVE: usize = 59;
pub(crate) const WAIT4: usize = 61;
pub(crate) const GETUID: usize = 102;
pub(crate) const GETGID: usize = 104;
pub(crate) const GETEUID: usize = 107;
pub(crate) const GETEGID: usize = 108;
pub(crate) const GETTID: usize = 186;
pub(crate) const FUTEX: usize = 202;
pub(crate) const EXIT_GROUP: usize = 231;
pub(crate) const OPENAT: usize = 257;
pub(crate) const READLINKAT: usize = 267;
pub(crate) const PIPE2: usize = 293;
