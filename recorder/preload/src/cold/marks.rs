//! COLD: adds one to the count of a mark when the program calls `edleak_mark`. If a slice is due at this
//! count, the thread copies the current counters into the session.
//!
//! Setting a mark makes no system call, allocates no memory and never waits. [`edleak_session::mark`]
//! explains the protocol.
#![allow(unsafe_code)]

use crate::cold::{given_name, phase};
use crate::entry::{mapping, pool};
use core::slice;
use core::sync::atomic::Ordering;
use edleak_session::counters::Counters;
use edleak_session::header::Header;
use edleak_session::layout::{
    CELLS_AT, COUNTERS_AT, MARK_NAMES_AT, MARK_RING_AT, MARK_SEEN_AT, MARKS_AT, MAX_SHARDS,
};
use edleak_session::mark::{Counted, MAX_IDS, MAX_NAMES, Marks, RING_WORDS};
use edleak_session::site::MAX_SITES;
use edleak_session::stack::MAX_CELLS;

/// `edleak_set_mark`: sets a mark with the name `name`. The function `edleak_mark` of include/edleak.h
/// calls `edleak_set_mark`. In a process that is not recorded, `edleak_set_mark` does nothing.
///
/// # Safety
/// `name` is null or a NUL-terminated string.
#[cold]
pub(crate) unsafe extern "C" fn on_mark(name: *const u8) {
    phase::start();
    if name.is_null() || phase::is_off() {
        return;
    }
    let Some(header) = phase::header() else { return };
    // SAFETY: the caller guarantees a NUL-terminated string; the function has returned if `name` is null.
    let name = unsafe { given_name::read(name) };
    let note = |slice: u64| {
        mapping::note_mark(slice);
        pool::note_mark(slice);
    };
    marks(header).set(name, || counted(header), note);
}

/// The table of `count` values at the offset `at` of a session. `header` is the header of this session.
fn table<T>(header: &'static Header, at: usize, count: usize) -> &'static [T] {
    let start = (&raw const *header).cast::<u8>().wrapping_add(at).cast();
    // SAFETY: the layout of the session has `count` values of an atomic type at this offset. The session is
    // mapped for the life of the process.
    unsafe { slice::from_raw_parts(start, count) }
}

fn marks(header: &'static Header) -> Marks<'static> {
    Marks {
        state: &table(header, MARKS_AT, 1)[0],
        names: table(header, MARK_NAMES_AT, MAX_NAMES),
        seen: table(header, MARK_SEEN_AT, MAX_IDS),
        ring: table(header, MARK_RING_AT, RING_WORDS),
    }
}

/// The current counters, from which a mark takes its slice. The function skips shards that no thread has
/// used, because the kernel would allocate memory for these shards at the first read.
fn counted(header: &'static Header) -> Counted<'static> {
    let shards = (header.shards.load(Ordering::Relaxed) as usize).clamp(1, MAX_SHARDS);
    let used = (header.shards_used.load(Ordering::Acquire) as usize).min(shards - 1);
    let is_shared = header.shared_in_use.load(Ordering::Acquire) != 0;
    let shared_at = COUNTERS_AT + (shards - 1) * MAX_SITES * size_of::<Counters>();
    Counted {
        shards: table(header, COUNTERS_AT, used * MAX_SITES),
        shared: table(header, shared_at, if is_shared { MAX_SITES } else { 0 }),
        sites: (header.next_site.load(Ordering::Acquire) as usize).min(MAX_SITES),
        cells: table(header, CELLS_AT, (header.stacks.cell.load(Ordering::Acquire) as usize).min(MAX_CELLS)),
    }
}
