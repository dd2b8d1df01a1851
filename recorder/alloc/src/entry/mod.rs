//! The hooks for calls other than calls of the allocator. In this crate, only the hooks for pools count
//! anything.

pub(crate) use crate::absent::{detour, forward, mapping};

#[path = "../shared/entry/pool.rs"]
pub(crate) mod pool;
