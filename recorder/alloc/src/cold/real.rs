//! COLD: tells the files of src/shared which allocator and which libc the program has. In the preload
//! library, a file of the same name looks up symbols with `dlsym`. This crate has its own file, because a
//! static program has no loader and no `dlsym`.
//!
//! The functions in place of the real malloc and free do nothing, because [`crate::Counted`] calls the
//! wrapped allocator itself.
#![allow(unsafe_code)]

use crate::cold::decision;
use core::ptr;

/// `true`: this code is linked into the program and is not a loaded library.
pub(crate) const IS_IN_PROGRAM: bool = true;

/// A value of this type shows that the allocator is known and ready.
pub(crate) struct Resolved;

/// `None`: this process never counts.
pub(crate) fn resolve() -> Option<Resolved> {
    (!decision::is_plain()).then_some(Resolved)
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

/// Whether libc's threads have the control blocks of glibc.
pub(crate) fn has_glibcs_threads() -> bool {
    cfg!(target_env = "gnu")
}

/// `false`: a static program has no loader that could allocate memory with the wrapped allocator.
pub(crate) fn has_glibcs_loader() -> bool {
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
