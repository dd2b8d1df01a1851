//! The statistics behind the verdict: one idea per file, pure functions of the buckets and the births.

pub mod buckets;
