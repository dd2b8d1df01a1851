//! The statistics behind the verdict: one idea per file, pure functions of the buckets and the births.

pub mod ar1;
pub mod bank;
pub mod births;
pub mod buckets;
pub mod curve;
pub(crate) mod packed;
pub mod season;
pub mod shapes;
pub mod surge;
pub mod trend;
pub mod words;
