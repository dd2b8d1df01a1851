//! The atomic types of all layouts, named in one place: recorder/models puts those of loom here.

pub(crate) use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
