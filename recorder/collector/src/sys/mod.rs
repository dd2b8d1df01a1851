//! The operating system: shared memory, /proc, signals, the target as our child, its terminal, limits, standard descriptors, stderr.

pub mod limits;
pub mod own_child;
pub mod process;
pub mod say;
pub mod shm;
pub mod signals;
pub mod stdio;
pub(crate) mod terminal;
