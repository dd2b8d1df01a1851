//! Allocators inside modules whose allocations the library does not count.

use super::Recording;
use crate::recording::detours::Unseen;
use crate::recording::mappings::allocators;
use crate::sys::say::say;
use edleak_format::{Allocator, ModuleId};

impl Recording {
    /// Tells the user, once, about the allocators that edleak does not count. Call this after the target has
    /// had time to apply its detours.
    pub(super) fn tell_unseen(&mut self) {
        if !std::mem::replace(&mut self.is_unseen_told, true) {
            for unseen in self.unseen() {
                say(format_args!("{}", unseen.message));
            }
        }
    }

    /// The allocators that edleak counts in part or not at all.
    pub(super) fn unseen(&self) -> Vec<Unseen> {
        self.detours.unseen(&self.session, self.modules.all(), &self.publisher)
    }

    /// The uncounted allocators for the trace, except the target's own malloc. The preload library comes
    /// before that malloc and counts its calls. So only the allocator's further functions (`mallocx`) may be
    /// uncounted.
    pub(super) fn uncounted_allocators(&self) -> Vec<Allocator> {
        let is_malloc = |id: ModuleId| {
            self.modules.all().get(id.0 as usize).is_some_and(|loaded| allocators::is_malloc(&loaded.file))
        };
        self.unseen()
            .into_iter()
            .filter(|unseen| unseen.is_whole && !is_malloc(unseen.module))
            .map(|unseen| Allocator { module: unseen.module, symbol: unseen.symbol })
            .collect()
    }
}
