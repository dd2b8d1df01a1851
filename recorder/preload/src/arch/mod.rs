//! This folder has one folder for each architecture, with the code for registers, stubs, system calls and
//! thread-local storage.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("edleak's preload knows x86-64 only (add a folder beside arch/x86_64)");
