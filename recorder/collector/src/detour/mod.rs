//! Detours: jumps at the entries of allocator functions that are linked into a program or library. LD_PRELOAD
//! cannot replace such functions, so the jumps redirect the calls of these functions to the hooks of the
//! preload library.
//!
//! ```text
//! table      lists the names of allocators' functions, and the arguments that hold sizes and addresses
//! entries    finds the allocator's functions in one file, and decides which of them can get a detour
//! x86_64     prologue   finds the instructions that a jump replaces
//!            branches   proves that no other instruction jumps into the replaced instructions
//!            code       compiles stubs, trampolines and jumps for one address
//! module     compiles all detours of one module, and tells why a function gets no detour
//! place      finds free memory near a module, for the code of its detours
//! ```
//!
//! A *detour* is a jump of five bytes at the entry of a function. The jump leads to a *stub* near the module.
//! The stub puts the requested size, and the address of the old allocation if there is one, into the
//! registers that the hook reads. Then the stub jumps to the hook. The hook calls the *trampoline* instead of
//! the function. The trampoline holds the instructions that the jump replaced, and a jump to the rest of the
//! function.
//!
//! The detour compiler returns a list of bytes to write. When a program starts, its preload library writes
//! the bytes of the detours; in a process that already runs, `crate::attach` writes them. Before a write, the
//! writer checks that the old bytes are as expected, and that no thread runs the instructions that the new
//! bytes replace.
//!
//! The side table of the preload library has one entry for 32 bytes of memory, so two allocations must start
//! at least 32 bytes apart. The stubs therefore request at least 32 bytes. If the program frees such an
//! allocation and passes a size of less than 32 bytes, the allocator would get a wrong size. So the stub of
//! the sized free (a free that gets a size) calls the plain free (without a size) of the same allocator
//! instead.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("edleak's detours know x86-64 only (add a folder beside detour/x86_64)");

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
pub(crate) mod arch;
pub(crate) mod entries;
pub(crate) mod module;
pub(crate) mod place;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub use table::Prefixes;
