//! x86-64: the preload library's fast path, thread-local storage and system calls.
//!
//! The library's own arch/x86_64/mod.rs also defines functions that a program has already (memcpy), so this
//! crate has a list of its own.

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
