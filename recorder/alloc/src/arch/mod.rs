//! Code for x86-64 from the preload library: the fast path, thread-local storage and system calls.
//!
//! The preload library's file arch/x86_64/mod.rs also defines functions such as memcpy, which a program
//! already has. So this crate does not use arch/x86_64/mod.rs, and declares the modules of arch/x86_64 that
//! it needs in this file.

#[path = "../shared/arch/x86_64/lifecycle.rs"]
mod lifecycle;
#[path = "../shared/arch/x86_64/note.rs"]
pub(crate) mod note;
#[path = "../shared/arch/x86_64/numbers.rs"]
pub(crate) mod numbers;
mod preloaded;
#[path = "../shared/arch/x86_64/signal.rs"]
mod signal;
#[path = "../shared/arch/x86_64/stubs.rs"]
pub(crate) mod stubs;
#[path = "../shared/arch/x86_64/syscall.rs"]
mod syscall;
#[path = "../shared/arch/x86_64/tls.rs"]
mod tls;

pub(crate) use preloaded::is_preloaded;
pub(crate) use signal::interrupted;
pub(crate) use syscall::syscall;
pub(crate) use tls::{
    ADDRESS_BITS, GLIBC_THREAD_ID_OFFSET, MUSL_THREAD_ID_OFFSET, TLS_BYTES, thread_pointer, tls,
    tls_first_word,
};
