//! The parts of the collector that know code: ELF files, unwind rules, wrappers, and what cannot be recorded.
//!
//! A library so that they are tested against real binaries without a target; `main.rs` is the program.
#![deny(unsafe_code)]

pub mod check;
pub mod elf;
pub mod globs;
pub mod names;
pub mod unwind;
pub mod wrapper_list;
pub mod wrappers;
