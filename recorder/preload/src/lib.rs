//! The preload library runs inside the target. The library only counts allocations and frees.
//!
//! The list below shows the files by folder. The caption of each file says whether the file belongs to the
//! fast path (HOT). A hot file calls cold code only through a `#[cold]` or inlined function.
//!
//! ```text
//! entry exports     the exported C symbols
//!       aligned     posix_memalign and other functions for aligned memory
//!       operators   operator new and operator delete
//!       pending     counts an allocation once if an entry point calls another entry point
//!       pool        edleak.h: writes an event for each object of the program's own pools
//!       mapping     mmap, munmap, mremap, shmat, shmdt, madvise: calls the real function, writes an event
//!       detour      those hooks of detoured functions that do more than the fast path
//!       hooks       the addresses of the hooks of detoured functions
//! arch  x86_64      all code that names a register or a system call number
//!       stubs       the entry stubs
//!       note        the fast path of an allocation, in the entry stub
//!       detour      the hooks of detoured functions, in assembly
//!       inside      the calls that mark a thread as inside a detoured function
//!       call_new    the stack frame from which the library calls a real operator new
//!       lifecycle   the symbols through which phase calls lifecycle
//!       tls         the thread-local storage of the library
//!       signal      the registers of a frame that a signal interrupts
//!       syscall     a system call
//!       numbers     the numbers of system calls
//! hot   frame       a frame on the stack, and the step to its caller
//!       free        free and realloc
//!       thread      this thread's counters, and the entry point that is running
//!       tables      the page of counters and the side table, at one address
//!       live        the side table: address → (site, size)
//!       live/made   the set of the leaves (parts of the side table) that exist
//!       live/scan   all entries of the side table
//!       walk        the stack of an allocation at a watched site
//! cold  phase       the phase and the session of this process
//!       slow        all cases of allocations and frees that the fast path does not handle
//!       sites       finds the site of a return address; skips the frames of wrappers
//!       modules     notices the modules that the loader loads and unloads
//!       module_table the loaded modules, by address
//!       elf         ELF headers and build IDs in memory
//!       inside      whether a detoured function runs on the current thread
//!       marks       edleak_mark: named instants, and the slices taken at them
//!       given_name  the name of a mark or of a pool
//!       real        finds the next malloc in symbol order; gives memory until malloc is found
//!       symbols     symbols of the program and its libraries
//!       definitions finds the module that defines a symbol, without the loader
//!       detours     applies the collector's detours to functions of allocators when the program starts
//!       lifecycle   start, fork, exec as a state machine
//!       publish     shows a claimed session to the collector
//!       claim       claims a session from the control page and maps the session
//!       thread_id   the place of a thread's ID in libc's data
//!       environment the environment and the auxiliary vector
//!       path        a short path on the stack
//!       detached    a bare LD_PRELOAD starts its own collector
//!       lines       the lines of a file of /proc
//!       idle        waits for a recording, and begins the recording in a running process
//!       sys         the system calls of the preload
//!       identity    the version, in an ELF note; the object through which a collector begins a recording
//!       only        whether the user wants this program recorded
//! ```
//!
//! The first call of an entry point starts the library (a call of mmap or of a similar function does not),
//! and the start sets up the entry points. Nevertheless, no files use each other in a circle. The entry
//! points use `cold/phase`. To start the library, `cold/phase` calls symbols, which `arch/x86_64/lifecycle`
//! connects with `cold/lifecycle`. `arch/x86_64/inside` also reads two symbols that a later file defines:
//! `arch/x86_64/detour`.
//!
//! Rules for all code of this library: no allocation, no lock, no panic, no change of errno (system calls are
//! raw). After the start, the library makes system calls only in these cases: to get memory for a leaf of the
//! side table, or to give it back if two threads made the same leaf; to wake the collector once, at the first
//! event of a pool; in a forked child; and when a collector begins a recording in a running process.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
#![cfg_attr(test, allow(dead_code))]

mod arch;
mod cold;
mod entry;
mod hot;

/// The code of the preload library never panics, but the compiler requires a panic handler.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    arch::trap()
}
