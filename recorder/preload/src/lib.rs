//! The library inside the target: it only counts.
//!
//! Reading order, hot files first. A hot file reaches cold code only through a `#[cold]` function.
//!
//! ```text
//! hot   interpose   the exported C symbols
//!       note        what their stubs do with a new allocation: the whole fast path of one
//!       hooks       what a free and a realloc do
//!       thread      this thread's counters and what it is in the middle of
//!       tables      what these begin from
//!       live        address → (site, size)
//!       walk        the stack of an allocation at a watched site
//! cold  slow        everything the fast path left out
//!       sites       return address → site; stepping over wrappers
//!       forward     entry points that may call other entry points; operator new and delete
//!       modules     which modules the loader brings and takes
//!       real        the next malloc, and memory until it is found
//!       lifecycle   start, fork, exec as a state machine; attaching to a session
//!       detached    a bare LD_PRELOAD starts its own collector
//!       sys arch    raw system calls · thread-local access
//! ```
//!
//! Rules that hold everywhere here: no allocation, no lock, no panic, no errno (system calls are raw), and after
//! initialisation no system call but the `mmap` of a side-table leaf.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
#![cfg_attr(test, allow(dead_code))]

mod arch;
mod detached;
mod forward;
mod hooks;
mod interpose;
mod lifecycle;
mod live;
mod modules;
mod note;
mod real;
mod sites;
mod slow;
mod sys;
mod tables;
mod thread;
mod walk;

/// There is no panic path in the preload; the compiler wants to know what one would do.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    arch::trap()
}
