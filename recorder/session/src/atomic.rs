//! The atomic types of all layouts. recorder/models replaces this file by the types of loom.

pub(crate) use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
