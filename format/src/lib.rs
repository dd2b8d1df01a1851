//! The edleak trace file: its contents, its writer and its reader.
//!
//! ```text
//!  ┌──────────┬─────────┬────────┬─────────────────────┬────────┬──────────┬────────┬─ ─ ─
//!  │ first    │ slices  │ slices │ journal             │ slices │ catalog  │ free   │ slices
//!  │ page     │ level 2 │ level 1│ newest slices and   │ level 0│ modules, │        │ level 0
//!  │ salt,    │ ticks   │ 400…799│ records, each chunk │ 800…899│ sites,   │        │ 900…
//!  │ capacity │ 0…399   │        │ durable by itself   │        │ stacks   │        │
//!  └──────────┴─────────┴────────┴─────────────────────┴────────┴──────────┴────────┴─ ─ ─
//! ```
//! The blocks of a trace are in any order; the header of each block holds the block's kind and its ticks. A
//! reader can read each block of slices alone, because the first slice of the block holds absolute values.
//! When the file reaches its capacity, the writer merges two old blocks and drops every other slice of these
//! two blocks. So the file keeps the history since the start, but old slices are farther apart than new
//! slices. The writer never drops the catalog. docs/trace-format.md describes every byte of a trace.
//!
//! ```text
//! write/   trace_writer → {journal space} → {ring thin compression};  rewrite copies a trace
//! read/    trace → {index tiles} → {columns source prefetch};  growing reads an unfinished trace
//! layout/  the bytes, shared by writer and reader: header block chunk catalog delta stride varint
//! record slice ids memory   the values
//! lock     whether a trace is being written
//! place    file names: links, locks, renames
//! ```
#![deny(unsafe_code)]

#[cfg(test)]
mod crash_tests;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod hostile_tests;
mod ids;
mod layout;
mod lock;
mod memory;
pub mod place;
mod read;
mod record;
mod slice;
mod write;

#[cfg(test)]
extern crate self as edleak_format;
#[cfg(test)]
#[allow(unreachable_pub, reason = "the tests beside the crate use it, too")]
#[path = "../tests/common/mod.rs"]
mod common;

pub use error::{Error, ErrorKind};
pub use ids::{AreaId, MarkId, ModuleId, PoolId, SiteId, StackId};
pub use layout::stride::Grid;
pub use memory::{AreaBytes, AreaKind, MAX_AREAS, MemoryArea};
pub use read::columns::Columns;
pub use read::growing::{GrowingTrace, Update};
pub use read::index::Damage;
pub use read::tiles::{CHUNK_SLICES, GROUP_SITES, GroupValues, Row, TILE_SITES, TileReader};
pub use read::trace::{BlockInfo, Trace};
pub use record::*;
pub use slice::{Counters, SliceHeader, SliceVisitor};
pub use write::new_file::MIN_CAPACITY_BYTES;
pub use write::rewrite::rewrite;
pub use write::trace_writer::{DEFAULT_CAPACITY_BYTES, TraceWriter};
