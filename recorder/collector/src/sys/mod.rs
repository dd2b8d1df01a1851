//! The operating system: shared memory, /proc, signals, the target as a child process, its terminal, limits,
//! standard descriptors, stderr.

pub(crate) mod limits;
pub(crate) mod maps;
pub(crate) mod memory;
pub mod own_child;
pub(crate) mod proc_file;
pub(crate) mod process;
pub mod say;
pub(crate) mod shm;
pub(crate) mod signals;
pub(crate) mod stdio;
pub(crate) mod terminal;
