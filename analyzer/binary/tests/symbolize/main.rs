//! Tests symbolization: compares the frames with two reference tools, `llvm-symbolizer` and GNU `addr2line`,
//! and tests debug information that was separated in every usual way.

mod damage;
mod files;
mod lines;
mod names;
mod oracle;
mod programs;
