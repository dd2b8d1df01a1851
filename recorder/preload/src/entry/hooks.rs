//! COLD: the addresses of the hooks of detoured functions.
#![allow(unsafe_code)] // the types of the hooks

use crate::arch::detour;
use edleak_session::detour::{HOOKS, Hook};

/// The addresses of the hooks, indexed by the number of a [`Hook`]. The library copies this table to the
/// start of the code that it maps for the detours of a module.
pub(crate) fn all() -> [usize; HOOKS] {
    let mut hooks = [0; HOOKS];
    let known: [(Hook, unsafe extern "C" fn()); 12] = [
        (Hook::Allocate, detour::allocate),
        (Hook::PosixMemalign, detour::posix_memalign),
        (Hook::Reallocate, detour::reallocate),
        (Hook::ReallocateOrFree, detour::reallocate_or_free),
        (Hook::Resize, detour::resize),
        (Hook::Free, detour::free),
        (Hook::Map, detour::map),
        (Hook::Unmap, detour::unmap),
        (Hook::Remap, detour::remap),
        (Hook::AttachSegment, detour::attach_segment),
        (Hook::DetachSegment, detour::detach_segment),
        (Hook::GiveBack, detour::give_back),
    ];
    for (hook, function) in known {
        hooks[hook as usize] = function as usize;
    }
    hooks
}

/// The address of the function that notes operations of pools. The collector uses this address in a process
/// in which the name `edleak_note_pool` does not lead to this library.
pub(crate) fn note_pool() -> usize {
    detour::note_pool as *const () as usize
}
