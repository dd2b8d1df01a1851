//! The leak model: computes a verdict from the series of one site. The functions of this crate have no
//! side effects.
//!
//! ```text
//! series       one site's counters over time, condensed so that its size does not depend on the record
//! bucket buckets packed curve   the buckets, their storage, and the curve made of them
//! levels       a site's live bytes for a chart of any width
//! growth_class the kind of growth that reports name
//! regression   edLeak's formula of 2014
//! trend        statistics that show whether a curve grows
//! season surge   regular waves and short surges, taken out of a curve
//! comparison shapes ar1   growth shapes compared by fit, under autocorrelated noise
//! births       the times at which the surviving allocations were made
//! blocks       the allocator's overhead for each allocation
//! work busy    the whole program's allocations, and a curve over its busy time
//! classify     computes the verdict from all of these; reasons states the reasons in words
//! iterations   a verdict on the memory that iterations leave, from the counters at each instant of a mark
//! process_series   the memory of the whole process over time
//! growth_kind      the cause of the growth of the process
//! ```
#![forbid(unsafe_code)]

mod ar1;
mod births;
pub mod blocks;
pub mod bucket;
pub mod buckets;
mod busy;
pub mod classify;
mod comparison;
mod curve;
pub mod growth_class;
pub mod growth_kind;
pub mod iterations;
pub mod levels;
pub mod packed;
pub mod process_series;
pub mod reasons;
pub mod regression;
mod season;
pub mod series;
mod shapes;
mod surge;
mod trend;
pub mod work;
