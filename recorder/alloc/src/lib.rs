//! A global allocator whose calls edleak counts, for programs into which no library can be preloaded.
//!
//! edleak-record usually loads a library into a program. A static executable, such as a program for
//! `x86_64-unknown-linux-musl`, loads no library. If the global allocator of a static executable is a
//! [`Counted`], the program counts its allocations itself. The trace has the same sites and stacks as a trace
//! of a program into which the library is loaded.
//!
//! ```
//! use edleak_alloc::Counted;
//! use std::alloc::System;
//!
//! #[global_allocator]
//! static ALLOCATOR: Counted<System> = Counted::new(System);
//!
//! let numbers: Vec<u64> = (0..10).collect();
//! assert_eq!(numbers.len(), 10);
//! ```
//!
//! The crate works with any [`GlobalAlloc`](core::alloc::GlobalAlloc): `Counted<MiMalloc>`,
//! `Counted<Jemalloc>`, or an allocator of the program.
//!
//! # Costs
//!
//! While edleak-record does not record the program, a call costs 4 or 5 instructions, one of which is a
//! comparison, and the crate makes no system call. The crate takes 64 bytes for each thread and 17 MiB of
//! address space. Most pages of this address space are never touched, so they take no memory. While
//! edleak-record records the program, a call costs as much as a call in a program with the preloaded library.
//! In a recorded process, the crate requests at least 32 bytes for each allocation, because no two
//! allocations may start in the same 32 bytes of memory. The trace contains the sizes that the program
//! requested.
//!
//! # What edleak counts
//!
//! edleak counts all calls of the global allocator. edleak does not count calls of `malloc` by C code in the
//! same static executable, nor calls of `mmap`. A static executable can also use the marks and pools of
//! edleak.h and of the crate `edleak-annotate`.
//!
//! If edleak's library is preloaded, the library counts the calls, and [`Counted`] only passes all calls on
//! to the wrapped allocator.
//!
//! # How it begins
//!
//! Before `main`, the program finds edleak-record through the variable `EDLEAK_SESSION`. edleak-record
//! recognizes the program by an ELF note and refuses a program with another version of this crate. On systems
//! other than x86-64 Linux, the crate only passes calls on to the wrapped allocator.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
mod absent;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
#[allow(dead_code, reason = "the preload library uses all of it")]
#[allow(unused_imports, unused_macros, reason = "the preload library uses all of them")]
mod arch;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
#[allow(dead_code, reason = "the preload library uses all of it")]
mod cold;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
mod counting;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
#[allow(dead_code, reason = "the preload library uses all of it")]
mod entry;
#[cfg(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64",
    target_feature = "crt-static"
))]
mod exports;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
#[path = "shared/hot/mod.rs"]
#[allow(dead_code, reason = "the preload library uses all of it")]
mod hot;

/// On systems other than x86-64 Linux (64-bit pointers), no call of the allocator is counted.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64")))]
#[path = "counting_nothing.rs"]
mod counting;

mod counted;

pub use counted::Counted;
