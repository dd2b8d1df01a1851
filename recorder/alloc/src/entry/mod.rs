//! The hooks for calls that are not calls of the allocator: in this crate, only the hooks for pools.

pub(crate) use crate::absent::{aligned, hooks, mapping, operators};

#[path = "../shared/entry/pool.rs"]
pub(crate) mod pool;
