//! The hooks beside the allocator itself.

pub(crate) use crate::absent::{detour, forward, mapping};

#[path = "../shared/entry/pool.rs"]
pub(crate) mod pool;
