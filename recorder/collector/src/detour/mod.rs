//! Detours: jumps at the entries of an allocator inside a module. LD_PRELOAD cannot replace such functions,
//! so the jumps redirect their calls to the preload's hooks.
//!
//! ```text
//! table      names of allocators' functions, and the arguments that hold size and address
//! entries    the allocator's functions in one file, and whether each can be moved
//! x86_64     prologue   the instructions that a jump replaces
//!            branches   the proof that no other instruction jumps into them
//!            code       stubs, trampolines and jumps, for one place in memory
//! module     all detours of one module in one process, and the reasons for the functions that have none
//! place      free memory near a module
//! ```
//!
//! A *detour* is a jump of five bytes at the entry of a function. The jump leads to a *stub* near the module.
//! The stub puts the requested size and the old address into the registers that the hook reads, and jumps to
//! the hook. The hook calls the *trampoline* instead of the function. The trampoline holds the instructions
//! that the jump replaced, and a jump to the rest of the function.
//!
//! The result is a list of bytes to write. The writer must first find the expected bytes, and no thread may
//! be in them. The writer is the preload while it starts, or `crate::attach` in a running process.
//!
//! The preload's side table has one entry for 32 bytes of memory, so allocations must start at least 32 bytes
//! apart. The stubs therefore request at least 32 bytes. A sized free of less than 32 bytes would then pass a
//! wrong size, so the stub calls the plain free of the same allocator instead.

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
pub(crate) mod arch;
pub(crate) mod entries;
pub(crate) mod module;
pub(crate) mod place;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub use table::Prefixes;
