//! The operating system: shared memory, /proc, signals, limits, standard descriptors, stderr.

pub mod limits;
pub mod process;
pub mod say;
pub mod shm;
pub mod signals;
pub mod stdio;
