//! Placeholder while the crate is laid out.

pub mod classify;
pub mod model;
pub mod regression;
pub mod score;
pub mod series;
pub mod symbolize;
