//! A series of live bytes to a verdict: pure functions, no input and no output.
//!
//! ```text
//! series       one site's counters over time, condensed to a constant size
//! bucket buckets packed curve   the buckets, how they are stored, and what the model reads of them
//! levels       a curve of any width, for reports
//! regression   the formula of 2014
//! trend season surge     growth, and what looks like growth
//! contest shapes ar1     shapes of growth in a contest, and the noise around them
//! births       when the survivors were born
//! blocks       what an allocator holds beyond what was asked for
//! work busy    how much the whole program worked, and a curve in that time
//! classify     all of it to a verdict; reasons says why
//! growth_kind  which memory of the whole process grows
//! ```
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

mod ar1;
mod births;
pub mod blocks;
pub mod bucket;
pub mod buckets;
mod busy;
pub mod classify;
mod contest;
mod curve;
pub mod growth_kind;
pub mod levels;
pub mod packed;
pub mod reasons;
pub mod regression;
mod season;
pub mod series;
mod shapes;
mod surge;
mod trend;
pub mod work;
