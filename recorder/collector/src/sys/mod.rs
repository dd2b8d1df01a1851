//! The interface to the operating system: shared memory, /proc, signals, limits, standard descriptors,
//! stderr, names for a shell, and the target as a child process with its terminal. These modules also read
//! and write the memory of other processes, to control edleak's library in those processes.

pub(crate) mod arenas;
pub(crate) mod descriptor_keeper;
pub(crate) mod freezer;
pub(crate) mod idle;
pub(crate) mod image;
pub(crate) mod limits;
pub(crate) mod maps;
pub(crate) mod memory;
pub mod own_child;
pub(crate) mod pipe;
pub(crate) mod proc_file;
pub(crate) mod process;
pub(crate) mod quiescence;
pub(crate) mod remote;
pub mod say;
pub(crate) mod seccomp;
pub mod shell;
pub(crate) mod shm;
pub(crate) mod signals;
pub(crate) mod stdio;
pub(crate) mod terminal;
pub(crate) mod unshared;
