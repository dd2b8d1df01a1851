//! Allocators inside modules whose allocations the library does not count.

use super::Recording;
use crate::recording::detours::Unseen;
use crate::recording::mappings::allocators;
use crate::sys::say::say;
use edleak_format::{Allocator, ModuleId};

impl Recording {
    /// Says once which allocators are not counted, as soon as the target has had the time to lead their
    /// functions to hooks.
    pub(super) fn tell_unseen(&mut self) {
        if !std::mem::replace(&mut self.is_unseen_told, true) {
            for unseen in self.unseen() {
                say(format_args!("{}", unseen.message));
            }
        }
    }

    /// The allocators that are not counted, or not in full.
    pub(super) fn unseen(&self) -> Vec<Unseen> {
        self.detours.unseen(&self.session, self.modules.all(), &self.publisher)
    }

    /// The uncounted allocators for the trace. An allocator that is the target's malloc is not among them: the
    /// library comes before its malloc, and only its own functions (`mallocx`) may be uncounted.
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
