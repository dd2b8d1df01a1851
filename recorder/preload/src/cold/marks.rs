//! COLD: marks. Counts a mark, and copies the counters of this instant into the session where a slice is due.
//!
//! A mark makes no system call, allocates nothing and waits for nobody; see [`edleak_session::mark`] for the protocol.
#![allow(unsafe_code)]

use crate::cold::lifecycle;
use core::slice;
use core::sync::atomic::Ordering;
use edleak_session::counters::Counters;
use edleak_session::header::Header;
use edleak_session::layout::{
    CELLS_AT, COUNTERS_AT, MARK_NAMES_AT, MARK_RING_AT, MARK_SEEN_AT, MARKS_AT, MAX_SHARDS,
};
use edleak_session::mark::{
    Counted, EMPTY_HASH, GivenName, MAX_IDS, MAX_NAME_BYTES, MAX_NAMES, Marks, RING_WORDS, mix,
};
use edleak_session::site::MAX_SITES;
use edleak_session::stack::MAX_CELLS;

/// `edleak_set_mark`, which `edleak_mark` of include/edleak.h calls: sets the mark of this name. Does nothing in a process that is
/// not recorded.
///
/// # Safety
/// `name` is null or a NUL-terminated string.
#[cold]
pub(crate) unsafe extern "C" fn on_mark(name: *const u8) {
    lifecycle::start();
    if name.is_null() || lifecycle::is_off() {
        return;
    }
    let Some(header) = lifecycle::header() else { return };
    // SAFETY: as the caller says.
    let name = unsafe { given(name) };
    marks(header).set(name, || counted(header));
}

/// # Safety
/// `name` is a NUL-terminated string.
unsafe fn given<'n>(name: *const u8) -> GivenName<'n> {
    let (mut length, mut hash) = (0, EMPTY_HASH);
    loop {
        // SAFETY: no byte before this one was the NUL.
        let byte = unsafe { *name.wrapping_add(length) };
        if byte == 0 || length == MAX_NAME_BYTES {
            // SAFETY: these bytes were read above.
            let bytes = unsafe { slice::from_raw_parts(name, length) };
            return GivenName { bytes, hash, is_cut: byte != 0 };
        }
        hash = mix(hash, byte);
        length += 1;
    }
}

/// `count` values at an offset of the session that begins with `header`.
fn table<T>(header: &'static Header, at: usize, count: usize) -> &'static [T] {
    let start = (&raw const *header).cast::<u8>().wrapping_add(at).cast();
    // SAFETY: the layout of the session has that many there, of types made of atomics, and the session is mapped for the life of
    // the process.
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

/// The counters of this instant. Shards that nobody has used are left alone, since reading them would give them memory.
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
