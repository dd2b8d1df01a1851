//! The rows of the table. Each group of rows has one file.

pub(crate) mod analyze;
pub(crate) mod attached;
pub(crate) mod collector;
pub(crate) mod detours;
pub(crate) mod framehop;
pub(crate) mod growth;
pub(crate) mod instructions;
pub(crate) mod mappings;
pub(crate) mod month;
pub(crate) mod pairs;
pub(crate) mod programs;
pub(crate) mod stacks;
pub(crate) mod start_up;
pub(crate) mod symbols;
pub(crate) mod threads;
