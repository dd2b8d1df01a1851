//! Symbolization against two oracles, `llvm-symbolizer` and GNU `addr2line`, and against every way to part a program from
//! its debug information.

mod damage;
mod files;
mod lines;
mod names;
mod oracle;
mod programs;
