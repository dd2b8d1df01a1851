//! The user's options about the code of programs: the functions that count as wrappers, the prefixes of
//! allocators' functions, and the sites to watch.

use crate::detour::Prefixes;
use crate::rules::wrappers::WrapperSet;
use crate::watch::request::WatchSet;

/// The user's options about the code of programs. All recordings of one run of edleak-record have the same
/// options.
#[derive(Clone, Debug)]
pub struct CodeOptions {
    /// The functions that count as wrappers; a walk of a stack skips the frames of these functions.
    pub wrappers: WrapperSet,
    /// The prefixes with which the functions of the user's allocators begin. edleak uses the user's prefixes
    /// in addition to its built-in table of prefixes.
    pub allocators: Prefixes,
    /// The sites to watch.
    pub watch: WatchSet,
    /// Whether the library walks stacks from the start or may begin to walk stacks at any time, so that the
    /// target needs unwind rules from the start.
    pub walk_stacks: bool,
}
