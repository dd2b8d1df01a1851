//! Tests symbolization. The tests compare edleak's frames with the frames of `llvm-symbolizer` and GNU
//! `addr2line`, and move the debug information to other files in every usual way.

mod damage;
mod files;
mod lines;
mod names;
mod oracle;
mod programs;
