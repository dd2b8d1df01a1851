//! COLD: answers the questions of src/shared about the allocator and libc. The preload library has a file of
//! the same name, which looks up symbols with `dlsym`. A static program has no loader and no `dlsym`.
//!
//! The functions that stand for the real malloc and free do nothing: [`crate::Counted`] calls the wrapped
//! allocator itself.
#![allow(unsafe_code)]

use crate::cold::environment::Environment;
use crate::counting;
use core::ffi::{CStr, c_void};
use core::ptr;
use edleak_session::{ENV_IDLE, ENV_SESSION};

/// This code is a part of the program.
pub(crate) const IS_IN_PROGRAM: bool = true;

/// Whether edleak-record may record this process: a session or a later request is possible, and no preloaded
/// library counts already.
pub(crate) fn may_be_recorded() -> bool {
    let environment = Environment::of_process();
    let is_set = |name: &str| {
        let value = environment.get(name.as_bytes());
        // SAFETY: the value of a variable ends in NUL.
        value.is_some_and(|value| unsafe { *value } != 0)
    };
    (is_set(ENV_SESSION) || is_set(ENV_IDLE)) && !is_preloaded() && !environment.is_secure()
}

/// Whether edleak's library is loaded into this process.
#[cfg(not(target_feature = "crt-static"))]
fn is_preloaded() -> bool {
    let address: usize;
    // SAFETY: the instruction loads the address of a weak symbol from the global offset table.
    unsafe {
        core::arch::asm!(
            ".weak edleak_set_mark",
            "mov {}, qword ptr [rip + edleak_set_mark@GOTPCREL]",
            out(reg) address,
            options(nostack, pure, readonly, preserves_flags),
        );
    }
    address != 0
}

/// No library can be loaded into a static program.
#[cfg(target_feature = "crt-static")]
fn is_preloaded() -> bool {
    false
}

/// The allocator is known and ready.
pub(crate) struct Resolved;

/// `None`: this process never counts.
pub(crate) fn resolve() -> Option<Resolved> {
    (!counting::is_plain_at_start()).then_some(Resolved)
}

impl Resolved {
    pub(crate) fn is_countable(&self) -> bool {
        true
    }

    pub(crate) fn install(&self) {}

    pub(crate) fn is_in_program(&self, _: Option<usize>) -> bool {
        false
    }

    pub(crate) fn install_behind_program(&self) {}
}

/// A symbol of libc; null: src/shared does not need this symbol here.
pub(crate) fn global(name: &CStr) -> *mut c_void {
    unsafe extern "C" {
        static environ: *const *const u8;
        fn getauxval(kind: usize) -> usize;
    }
    match name.to_bytes() {
        b"environ" => (&raw const environ).cast_mut().cast(),
        b"getauxval" => getauxval as *mut c_void,
        // In a static program, glibc's `__libc_stack_end` does not point at argc.
        _ => ptr::null_mut(),
    }
}

/// Whether libc's threads have glibc's control blocks.
pub(crate) fn has_glibcs_threads() -> bool {
    cfg!(target_env = "gnu")
}

/// The loader's memory does not come from the wrapped allocator.
pub(crate) fn has_glibcs_loader() -> bool {
    false
}

pub(crate) fn is_in_pthread_create(_: usize) -> bool {
    false
}

pub(crate) fn is_late() -> bool {
    false
}

pub(crate) fn resolve_late() -> usize {
    0
}

pub(crate) fn is_programs() -> bool {
    false
}

#[inline(always)]
pub(crate) fn in_arena(_: *const u8) -> bool {
    false
}

pub(crate) fn is_arena_in_use() -> bool {
    false
}

pub(crate) fn arena_freed() {}

#[inline(always)]
pub(crate) unsafe fn free(_: *mut u8) {}

unsafe extern "C" fn nothing(_: *mut u8) {}

pub(crate) fn free_function() -> *mut () {
    nothing as *mut ()
}

pub(crate) unsafe fn realloc(_: *mut u8, _: usize) -> *mut u8 {
    ptr::null_mut()
}

pub(crate) unsafe fn realloc_any(_: *mut u8, _: usize) -> *mut u8 {
    ptr::null_mut()
}
