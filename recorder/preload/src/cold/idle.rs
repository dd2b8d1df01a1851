//! COLD: waits for a recording (`EDLEAK_IDLE`), and begins a recording in a process that already runs.
//!
//! The collector writes `WAKE` into the phase ([`edleak_session::idle`]). The first thread that calls an
//! entry point after that begins the recording. Until the process is attached, the library does not count
//! the calls of the other threads:
//!
//! ```text
//!   ( Off ) ──▶ ( Wake ) ──▶ ( Beginning ) ──▶ ( Counting ) ──▶ ( Off )
//!   collector    first call    its thread        collector
//!                              └──▶ ( Off ) with the reason in `failure`, if the process gets no session
//! ```
//!
//! A process may begin a recording any number of times. The table tells what remains of the previous session:
//!
//! | what remains                     | what the library does                                               |
//! |----------------------------------|---------------------------------------------------------------------|
//! | offsets in thread-local storage  | stay valid: the new session has the same owners of the shards       |
//! | entries of the side table        | are cleared, so a free of an older allocation is unknown            |
//! | known modules, cached rules      | are cleared, because modules may have changed unnoticed             |
//! | the mapping of the last session  | is kept; the mapping of the session before it is unmapped           |
//! | limits of the fast path          | stay 0 until the collector has seen that no thread is inside a call |
//!
//! The last row of the table matters for exact counts. A thread may be suspended between two instructions
//! of the fast path while it holds a pointer to the counters of the last session. So the collector waits
//! until no thread can hold a pointer to the counters of the last session (`collector/sys/quiescence.rs`).
//! The collector waits twice: before it asks the process to attach to another session, and before it sets
//! the limits of the fast path to their normal values. While the limits are 0, every call takes the slow
//! path.
#![allow(unsafe_code)]

use crate::cold::claim::{self, Claim};
use crate::cold::environment::Environment;
use crate::cold::identity::IDLE;
use crate::cold::path::Path;
use crate::cold::{lines, marks, modules, phase, publish, sites, sys};
use crate::entry::hooks;
use crate::hot::{live, thread, walk};
use core::sync::atomic::{AtomicUsize, Ordering};
use edleak_session::header::Header;
use edleak_session::idle::{NO_FAILURE, NO_SESSION, UNREACHABLE};
use edleak_session::layout::FIRST_TABLE_AT;

/// Stores in [`IDLE`] the addresses that a collector needs to begin a recording. Call this function after the
/// library has found the real functions.
pub(super) fn describe(is_countable: bool, waits: bool) {
    /// The value of `Idle::filters` if the library did not read the number of seccomp filters.
    const UNKNOWN: u32 = u32::MAX;
    IDLE.is_countable.store(u32::from(is_countable), Ordering::Relaxed);
    IDLE.phase.store((&raw const phase::PHASE) as u64, Ordering::Relaxed);
    IDLE.limits.store(thread::first_limits() as u64, Ordering::Relaxed);
    IDLE.filters.store(if waits { seccomp_filters() } else { UNKNOWN }, Ordering::Relaxed);
    IDLE.publish();
}

/// Stores the addresses that a collector needs, in a library that the collector has loaded into a running
/// process.
pub(super) fn describe_late(is_countable: bool, malloc: usize) {
    IDLE.is_late.store(1, Ordering::Relaxed);
    IDLE.malloc.store(malloc as u64, Ordering::Relaxed);
    for (place, hook) in IDLE.hooks.iter().zip(hooks::all()) {
        place.store(hook as u64, Ordering::Relaxed);
    }
    IDLE.set_mark.store(marks::on_mark as *const () as u64, Ordering::Relaxed);
    IDLE.note_pool.store(hooks::note_pool() as u64, Ordering::Relaxed);
    describe(is_countable, true);
}

/// Number of seccomp filters of this process. If the number of filters has grown by the time at which a
/// collector asks for a recording, the process has restricted its system calls after its start. The library
/// may then be unable to begin the recording, because a seccomp filter forbids a system call that it needs.
fn seccomp_filters() -> u32 {
    let mut filters = 0;
    lines::for_each_line(b"/proc/self/status\0", |line| match line.strip_prefix(b"Seccomp_filters:") {
        Some(rest) => {
            filters = lines::number_in(rest);
            true
        }
        None => false,
    });
    filters
}

/// Attaches this process to a session of the collector that asked for a recording. `false`: the process
/// could not be attached. If the process got no session, the function stores the reason in `failure`. Only
/// one thread at a time runs `begin`.
pub(super) fn begin() -> bool {
    let mut address = Path::new();
    let bytes = IDLE.address.iter().map(|byte| byte.load(Ordering::Relaxed)).take_while(|&byte| byte != 0);
    for byte in bytes {
        address.push(byte);
    }
    let is_again = !phase::session().is_null();
    if is_again {
        thread::keep_owners();
        retire();
        live::clear();
        modules::begin_running();
        walk::forget_rules();
        sites::forget_parent();
    }
    claim::forget_children();
    let claimed = claim::claim(&address);
    let failure = match claimed {
        Claim::Unreachable => UNREACHABLE,
        Claim::Refused => NO_SESSION,
        Claim::Mapped(_) => NO_FAILURE,
    };
    IDLE.failure.store(failure, Ordering::Relaxed);
    let Some(base) = claimed.session() else { return false };
    let begins = |header: &Header| header.attached.store(1, Ordering::Relaxed);
    let published = publish::session(base, &Environment::known(), None, begins);
    if is_again {
        thread::restore_owners();
    } else {
        thread::open();
    }
    published
}

/// The address of the mapping of the second-last session of this process.
static OLDER: AtomicUsize = AtomicUsize::new(0);
static OLDER_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Unmaps the session before the last session of this process. The last session stays mapped, because a
/// signal handler may have interrupted a thread that holds a pointer into this session.
fn retire() {
    let (base, bytes) = (OLDER.load(Ordering::Relaxed), OLDER_BYTES.load(Ordering::Relaxed));
    if bytes > 0 {
        sys::unmap(core::ptr::with_exposed_provenance_mut(base), bytes);
    }
    let session = phase::session();
    if phase::is_of_this_process(session) {
        // Normally, the collector gives the memory of a session back to the kernel when the recording ends,
        // but the collector may have been killed. The library itself then gives back all pages of the
        // session except those with the header and the owners of the shards.
        let pages = session.cast::<u8>().wrapping_add(FIRST_TABLE_AT);
        sys::remove_pages(pages, phase::session_bytes() - FIRST_TABLE_AT);
    }
    OLDER.store(session.expose_provenance(), Ordering::Relaxed);
    OLDER_BYTES.store(phase::session_bytes(), Ordering::Relaxed);
}
