//! The rows of the table, one file per group.

pub mod analyze;
pub mod collector;
pub mod framehop;
pub mod instructions;
pub mod month;
pub mod pairs;
pub mod programs;
pub mod stacks;
pub mod start_up;
pub mod symbols;
