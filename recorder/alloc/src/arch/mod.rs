//! Code for x86-64 from the preload library: the fast path, thread-local storage and system calls.
//!
//! The preload library's file arch/x86_64/mod.rs also defines functions that a program already has, such as
//! memcpy. So this crate does not use the file arch/x86_64/mod.rs and lists its own modules here.

#[path = "../shared/arch/x86_64/note.rs"]
pub(crate) mod note;
#[path = "../shared/arch/x86_64/numbers.rs"]
pub(crate) mod numbers;
#[path = "../shared/arch/x86_64/signal.rs"]
mod signal;
#[path = "../shared/arch/x86_64/stubs.rs"]
pub(crate) mod stubs;
#[path = "../shared/arch/x86_64/syscall.rs"]
mod syscall;
#[path = "../shared/arch/x86_64/tls.rs"]
mod tls;

pub(crate) use signal::interrupted;
pub(crate) use syscall::syscall;
pub(crate) use tls::{ADDRESS_BITS, thread_pointer, tls, tls_first_word};
