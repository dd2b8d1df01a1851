//! Allocators inside modules whose allocations the library does not count.

use super::Recording;
use crate::recording::detours::Unseen;
use crate::sys::say::say;
use edleak_format::{Allocator, UncountedFunctions};

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

    /// The uncounted allocators for the trace.
    pub(super) fn uncounted_allocators(&self) -> Vec<Allocator> {
        let whole = self.unseen().into_iter().filter(|unseen| !unseen.is_in_part);
        whole.map(|unseen| Allocator { module: unseen.module, symbol: unseen.symbol }).collect()
    }

    /// The uncounted functions of counted allocators, for the trace.
    pub(super) fn uncounted_functions(&self) -> Vec<UncountedFunctions> {
        let in_part = self.unseen().into_iter().filter(|unseen| unseen.is_in_part);
        let some = in_part.filter(|unseen| !unseen.functions.is_empty());
        some.map(|unseen| UncountedFunctions { module: unseen.module, symbols: unseen.functions }).collect()
    }
}
