//! Module events: which ELF files were loaded and unloaded after the target attached.
//!
//! The target writes them without hooking the loader: glibc's loader takes the memory of every `link_map` from malloc, so
//! the hooks see a module come (its `link_map` is filled in) and go (its `link_map` is freed). Together with
//! `SiteInfo::events_before` this tells which module was at an address when a site was first seen, however short its life.

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Events the array holds; it is used as a ring that the collector empties.
pub const MAX_EVENTS: usize = 1 << 12;
/// Bytes of a path that are kept.
pub const NAME_BYTES: usize = 448;
/// Bytes of a build ID that are kept: more than any linker writes (SHA-1 has 20).
pub const BUILD_ID_BYTES: usize = 28;

/// One module loaded or unloaded.
#[repr(C)]
pub struct ModuleEvent {
    /// [`LOADED`] or [`UNLOADED`]; stored last.
    pub kind: AtomicU32,
    /// Bytes of `name` in use.
    pub name_len: AtomicU32,
    /// Runtime address minus link-time address.
    pub load_bias: AtomicU64,
    _reserved: u64,
    /// One past the last address of the module.
    pub end: AtomicU64,
    /// Bytes of `build_id` in use; 0: the module has none.
    pub build_id_len: AtomicU32,
    /// The module's GNU build ID, as it lies in memory. The file may be gone, or be another one, when the collector looks.
    pub build_id: [AtomicU8; BUILD_ID_BYTES],
    /// The path the loader opened.
    pub name: [AtomicU8; NAME_BYTES],
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<ModuleEvent>() == 512);

/// A module was loaded.
pub const LOADED: u32 = 1;
/// A module was unloaded.
pub const UNLOADED: u32 = 2;

/// The place of the next event in a ring of `places`; `None`: the collector has not read the oldest one yet. One thread
/// writes at a time.
pub fn next_place(written: &AtomicU32, read: &AtomicU32, places: usize) -> Option<usize> {
    let number = written.load(Ordering::Relaxed);
    // What is written there must come after what the collector has read from there.
    let waiting = number.wrapping_sub(read.load(Ordering::Acquire)) as usize;
    (waiting < places).then_some(number as usize % places)
}

/// The event in the next place is there.
pub fn publish_next(written: &AtomicU32) {
    written.store(written.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

/// How many events wait to be read, at most `places`, after the first `read` ones.
pub fn waiting(written: &AtomicU32, read: u32, places: usize) -> u32 {
    (written.load(Ordering::Acquire).wrapping_sub(read) as usize).min(places) as u32
}
