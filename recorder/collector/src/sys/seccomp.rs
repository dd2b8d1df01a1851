//! Counts the seccomp filters of a process. A process installs a seccomp filter to forbid itself some system
//! calls.
//!
//! A seccomp filter belongs to a thread. A thread of a process may have more filters than the main thread of
//! the process, so the collector looks at every thread.

use crate::sys::process::{self, UNKNOWN_FILTERS};
use std::fs;

/// The thread of a process with the most seccomp filters, and the number of its filters. Seccomp's strict
/// mode counts as one filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Filtered {
    pub(crate) tid: u32,
    pub(crate) filters: u32,
}

/// The thread with the most filters among the threads of a process. If several threads have the highest
/// number of filters, the result is the oldest of these threads.
pub(crate) fn strictest_thread(pid: u32) -> Filtered {
    let of_thread = |tid| process::read_thread_status(pid, tid).map_or(0, |status| status.seccomp_filters);
    let threads = process::thread_ids(pid).map(|tid| Filtered { tid, filters: of_thread(tid) });
    let key = |one: &Filtered| (one.filters, std::cmp::Reverse(one.tid));
    threads.max_by_key(key).unwrap_or(Filtered { tid: pid, filters: 0 })
}

/// Whether all seccomp filters of the process `pid` also apply to this process. `filters` is the number of
/// filters of the process `pid`. Processes of one container inherit the same filters from the first process
/// of the container. Processes of two containers may have the same number of filters, but different filters.
/// If the number of filters is unknown, the result is `false`, because the filters may differ from the
/// filters of this process.
pub(crate) fn are_ours(pid: u32, filters: u32) -> bool {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = std::process::id();
    let may_be_ours = || filters != UNKNOWN_FILTERS && filters <= strictest_thread(own).filters;
    filters == 0 || (may_be_ours() && namespace(pid) == namespace(own))
}
