//! The user's options about code: functions to step over, prefixes of allocators, sites to watch.

use crate::detour::Prefixes;
use crate::rules::wrappers::WrapperSet;
use crate::watch::request::WatchSet;

/// The user's options about code; the same for all recordings of a run.
#[derive(Clone, Debug)]
pub struct CodeOptions {
    /// Functions to step over.
    pub wrappers: WrapperSet,
    /// The user's prefixes of allocators' functions, in addition to the table.
    pub allocators: Prefixes,
    /// Sites to watch.
    pub watch: WatchSet,
    /// Whether the library walks stacks from the start, or may walk them at any time.
    pub walk_stacks: bool,
}
