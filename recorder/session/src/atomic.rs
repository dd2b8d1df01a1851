//! The atomic types of all layouts. recorder/models uses loom's types instead of this file.

pub(crate) use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
