//! The library inside the target: it only counts.
//!
//! Reading order, hot files first. A hot file reaches cold code only through a `#[cold]` function.
//!
//! ```text
//! entry exports     the exported C symbols
//!       forward     entry points that may call other entry points; operator new and delete
//! arch  x86_64      everything that names a register or a number of a system call
//!         note      what an entry stub does with a new allocation: its whole fast path
//! hot   free        what a free and a realloc do
//!       thread      this thread's counters, and the entry point that is under way
//!       tables      the page of counters and the side table, at one address
//!       live        address → (site, size)
//!       walk        the stack of an allocation at a watched site
//! cold  slow        everything that the fast path leaves out
//!       sites       return address → site; stepping over wrappers
//!       modules     which modules the loader brings and takes
//!       real        the next malloc, and memory until it is found
//!       lifecycle   start, fork, exec as a state machine; attaching to a session
//!       detached    a bare LD_PRELOAD starts its own collector
//!       sys         the system calls of the preload
//!       identity    the version, in an ELF note
//!       only        whether this program is one of those to record
//! ```
//!
//! Rules that hold everywhere here: no allocation, no lock, no panic, no errno (system calls are raw), and after
//! initialisation no system call but the `mmap` of a side-table leaf.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
#![warn(unreachable_pub)]
#![cfg_attr(test, allow(dead_code))]

mod arch;
mod cold;
mod entry;
mod hot;

/// There is no panic path in the preload; the compiler wants to know what one would do.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    arch::trap()
}
