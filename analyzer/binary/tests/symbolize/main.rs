//! Compares symbolization with two reference tools, `llvm-symbolizer` and GNU `addr2line`, and with debug
//! information separated in every usual way.

mod damage;
mod files;
mod lines;
mod names;
mod oracle;
mod programs;
