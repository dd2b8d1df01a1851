//! Finds the allocators, inside the modules of the target, whose allocations the library does not count.

use super::Recording;
use crate::recording::detours::Unseen;
use crate::sys::say::say;
use edleak_format::{Allocator, UncountedFunctions};

impl Recording {
    /// Tells the user once about each allocator that edleak does not count. Before the target has applied its
    /// detours (jumps into edleak's library), the library counts no allocator inside the target's modules. So
    /// call this function after the target has had time to apply its detours, and again after the program has
    /// loaded further modules.
    pub(super) fn tell_unseen(&mut self) {
        let modules = self.modules.all().len();
        for unseen in self.unseen() {
            if !self.told_unseen.contains(&unseen.module) {
                say(format_args!("{}", unseen.message));
                self.told_unseen.push(unseen.module);
            }
        }
        self.modules_when_told = modules;
    }

    /// Whether the program has loaded modules since the last call of [`Recording::tell_unseen`].
    pub(super) fn has_modules_to_tell(&self) -> bool {
        self.modules.all().len() != self.modules_when_told
    }

    /// The allocators that edleak counts only in part or not at all.
    pub(super) fn unseen(&self) -> Vec<Unseen> {
        self.detours.unseen(&self.session, self.modules.all(), &self.publisher)
    }

    /// The allocators of which edleak counts no function, in the form in which the trace stores them.
    pub(super) fn uncounted_allocators(&self) -> Vec<Allocator> {
        let whole = self.unseen().into_iter().filter(|unseen| !unseen.is_in_part);
        whole.map(|unseen| Allocator { module: unseen.module, symbol: unseen.symbol }).collect()
    }

    /// For each allocator that edleak counts only in part: the functions that edleak does not count, in the
    /// form in which the trace stores them.
    pub(super) fn uncounted_functions(&self) -> Vec<UncountedFunctions> {
        let in_part = self.unseen().into_iter().filter(|unseen| unseen.is_in_part);
        let some = in_part.filter(|unseen| !unseen.functions.is_empty());
        some.map(|unseen| UncountedFunctions { module: unseen.module, symbols: unseen.functions }).collect()
    }
}
