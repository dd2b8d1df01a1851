//! Finds the common function of several leaks: the innermost function that calls all of them, directly or
//! through other functions. The module finds the common function by comparing the stacks of the leaks from
//! the outermost frame inwards.
//!
//! `main` and the function with which a thread starts do not count as common functions, because they call all
//! other code of the program or of the thread.

use crate::frame::{SiteFrame, base_name, frames};
use crate::group::Group;
use crate::site::JudgedSite;

/// The outermost frames that several stacks have in common.
#[derive(Clone, Debug)]
pub(crate) struct Common<'a> {
    /// The frames that all stacks share, outermost first. The first frame in this list is the program's own
    /// outermost function, such as `main`.
    frames: Vec<SiteFrame<'a>>,
}

impl<'a> Common<'a> {
    /// Finds the outermost frames that all stacks of one group have in common.
    pub(crate) fn of(group: &Group<'a>) -> Option<Self> {
        let mut stacks = group.stacks();
        let first = Self { frames: own_frames(stacks.next()?) };
        stacks.try_fold(first, |common, stack| common.with_stack(stack))
    }

    /// Compares the shared frames with the stacks of `group`, and keeps only the frames that these stacks
    /// share, too. `None`: at most the program's outermost function is left.
    pub(crate) fn with(&self, group: &Group<'a>) -> Option<Self> {
        group.stacks().try_fold(self.clone(), |common, stack| common.with_stack(stack))
    }

    /// Compares the shared frames with `stack`, and keeps only the frames that `stack` shares, too. At the
    /// first frame that differs, the function may be the same and only the line different. A frame that
    /// differs only in the line still counts as shared, and is the last shared frame.
    fn with_stack(&self, stack: &'a JudgedSite) -> Option<Self> {
        let own = own_frames(stack);
        let same_place =
            self.frames.iter().zip(&own).take_while(|(one, other)| is_same_place(**one, **other));
        let mut shared = same_place.count();
        let is_same = |(one, other): (&SiteFrame<'_>, &SiteFrame<'_>)| {
            one.function().is_some() && one.function() == other.function()
        };
        if self.frames.get(shared).zip(own.get(shared)).is_some_and(is_same) {
            shared += 1;
        }
        // All stacks of a thread share the thread's outermost function. So if two stacks share only the
        // thread's outermost function, they have no common function.
        (shared > 1).then(|| Self { frames: self.frames[..shared].to_vec() })
    }

    /// The innermost shared frame that is not part of a language's runtime.
    pub(crate) fn frame(&self) -> SiteFrame<'a> {
        let own = self.frames[1..].iter().rev().find(|frame| !frame.is_runtime());
        own.copied().unwrap_or(self.frames[self.frames.len() - 1])
    }
}

/// The frames of a stack, outermost first, beginning with the program's own outermost function.
fn own_frames(stack: &JudgedSite) -> Vec<SiteFrame<'_>> {
    let mut all: Vec<SiteFrame<'_>> = frames(&stack.stack).collect();
    all.reverse();
    let entry = entry_frames(&all, stack.is_stack_cut);
    all.split_off(entry)
}

fn is_same_place(one: SiteFrame<'_>, other: SiteFrame<'_>) -> bool {
    (one.address.address, one.address.module_id) == (other.address.address, other.address.module_id)
        && (one.function(), one.place()) == (other.function(), other.place())
}

/// The number of frames that call the program's own outermost function, such as `_start`, the start of a
/// thread, or the runtime of a language.
fn entry_frames(frames: &[SiteFrame<'_>], is_cut: bool) -> usize {
    if is_cut {
        return 0;
    }
    let is_before = |frame: &SiteFrame<'_>| {
        let module = frame.address.module.as_deref().map_or("", base_name);
        let is_libc = ["libc.so", "libc-", "libpthread", "ld-linux", "ld-musl", "libstdc++"].iter();
        frame.is_runtime()
            || frame.function().is_some_and(|function| function != "main" && is_entry(function))
            || is_libc.clone().any(|name| module.starts_with(name))
    };
    let mut entry = frames.iter().take_while(|frame| is_before(frame)).count();
    // A Rust program has two functions `main`: the outer one calls Rust's runtime, and the runtime calls the
    // program's own `main`.
    let is_main = |at: usize| frames.get(at).is_some_and(|frame| frame.function() == Some("main"));
    if is_main(entry) && frames.get(entry + 1).is_some_and(is_before) {
        entry += 1;
        entry += frames[entry..].iter().take_while(|frame| is_before(frame)).count();
    }
    entry
}

/// Whether the function with this name is one in which a program or a thread begins.
pub(crate) fn is_entry(function: &str) -> bool {
    const NAMES: [&str; 9] = [
        "main",
        "_start",
        "__libc_start_main",
        "__libc_start_main_impl",
        "__libc_start_call_main",
        "start_thread",
        "clone",
        "__clone3",
        "execute_native_thread_routine",
    ];
    NAMES.contains(&function)
}
