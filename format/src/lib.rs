//! The edleak trace file: what is in it, how it is written, how it is read.
//!
//! ```text
//!  ┌──────────┬─────────┬────────┬─────────────────────┬────────┬──────────┬────────┬─ ─ ─
//!  │ first    │ slices  │ slices │ journal             │ slices │ catalog  │ free   │ slices
//!  │ page     │ level 2 │ level 1│ newest slices and   │ level 0│ modules, │        │ level 0
//!  │ salt,    │ ticks   │ 400…799│ records, each chunk │ 800…899│ sites,   │        │ 900…
//!  │ capacity │ 0…399   │        │ durable by itself   │        │ stacks   │        │
//!  └──────────┴─────────┴────────┴─────────────────────┴────────┴──────────┴────────┴─ ─ ─
//! ```
//! Blocks lie in any order and know by themselves what they are. A block of slices is readable without its neighbours:
//! its first slice holds whole values. When the capacity is used up, two old blocks become one with every other slice,
//! so history since the start survives at a coarser distance; the catalog always survives. docs/trace-format.md has
//! every byte.
//!
//! Two legs that do not touch, one for meaning and one for bytes: `{writer reader} → {catalog thin} →
//! {record delta journal} → varint`, and `{writer reader} → {space index} → {ring source} → {block header}`.
#![deny(unsafe_code)]

mod block;
mod catalog;
mod columns;
#[cfg(test)]
mod crash_tests;
mod delta;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod header;
#[cfg(test)]
mod hostile_tests;
mod ids;
mod index;
mod journal;
mod lanes;
mod prefetch;
mod reader;
mod record;
mod rewrite;
mod ring;
mod seal;
mod slice;
mod source;
mod space;
mod squeeze;
mod stride;
mod thin;
mod varint;
mod writer;

#[cfg(test)]
extern crate self as edleak_format;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;

pub use columns::Columns;
pub use error::{Error, ErrorKind};
pub use ids::{ModuleId, SiteId, StackId};
pub use index::Damage;
pub use lanes::{CHUNK_SLICES, LANES, Lanes, Row, TILE_SITES, TileReader};
pub use reader::{BlockInfo, Trace};
pub use record::*;
pub use rewrite::rewrite;
pub use slice::{Counters, SliceHeader, SliceVisitor};
pub use stride::Grid;
pub use writer::{DEFAULT_CAPACITY_BYTES, MIN_CAPACITY_BYTES, TraceWriter, is_being_written};
