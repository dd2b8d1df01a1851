//! Allocators inside a module: nothing to preload a function over, so their entry points are led to the
//! preload's hooks.
//!
//! ```text
//! table      names of allocators' functions, and where each takes size and address
//! entries    which of them a file defines, and whether each can be moved
//! x86_64     prologue   the instructions that a jump takes the place of
//!            branches   the proof that no other instruction jumps into them
//!            code       stubs, trampolines and jumps, for one place in memory
//! module     all of a module for one process: what is led, what is not and why
//! place      free memory near a module
//! ```
//!
//! A *detour* is a jump of five bytes at the entry of a function. It leads to a stub near by, which puts the
//! requested size and the old address where the hooks want them and goes on in the hook. The hook calls the
//! *trampoline* in place of the function: the instructions that the jump displaced, moved, and a jump to the
//! rest of the function.
//!
//! The result is a list of bytes to write. Whoever writes them (the preload while it starts, or a debugger's
//! system calls into a process that stands still) must find the expected bytes first, and no thread in them.
//! Nothing here knows of that.
//!
//! Blocks lie at least 32 bytes apart, because the preload's side table knows one per 32 bytes: stubs ask for
//! at least that much. A free that believes the size it is told would then be told another: sizes below 32 go
//! to the plain free of the same allocator.

pub(crate) mod entries;
pub(crate) mod module;
pub(crate) mod place;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod x86_64;

pub use table::Prefixes;
