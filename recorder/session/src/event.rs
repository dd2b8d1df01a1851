//! Module events: ELF files that were loaded or unloaded after the target attached.
//!
//! The target writes module events without a hook in the dynamic loader. glibc's loader allocates every
//! `link_map` with calloc and frees each `link_map` with free. So the hooks see when the loader fills in a
//! `link_map` (the module is loaded) and when the loader frees the `link_map` (the module is unloaded).
//! `SiteInfo::events_before` tells the collector which module contained the address of a site when the
//! target first saw the site. So the collector finds the module of a site even if the module was loaded
//! only for a short time.

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Number of module events that fit into the ring.
pub const MAX_EVENTS: usize = 1 << 12;
/// Maximum number of bytes of a module's path that the target stores in an event.
pub const NAME_BYTES: usize = 448;
/// Maximum number of bytes of a build ID that the target stores; linkers write at most 20 bytes (SHA-1).
pub const BUILD_ID_BYTES: usize = 28;

/// A module that was loaded or unloaded.
#[repr(C)]
pub struct ModuleEvent {
    /// [`LOADED`] or [`UNLOADED`]; the target stores `kind` after all other fields of the event.
    pub kind: AtomicU32,
    /// Number of used bytes in `name`.
    pub name_len: AtomicU32,
    /// The runtime address of the module minus its link-time address.
    pub load_bias: AtomicU64,
    _reserved: u64,
    /// The address after the last byte of the module.
    pub end: AtomicU64,
    /// Number of used bytes in `build_id`; 0: the module has no build ID.
    pub build_id_len: AtomicU32,
    /// The module's GNU build ID, read from memory. The target reads the build ID because the file may be
    /// deleted or replaced before the collector opens the file.
    pub build_id: [AtomicU8; BUILD_ID_BYTES],
    /// The path that the loader opened.
    pub name: [AtomicU8; NAME_BYTES],
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<ModuleEvent>() == 512);

/// Value of [`ModuleEvent::kind`]: a module was loaded.
pub const LOADED: u32 = 1;
/// Value of [`ModuleEvent::kind`]: a module was unloaded.
pub const UNLOADED: u32 = 2;

/// The index of the next event in a ring with `places` events. `None`: the ring is full, because the
/// collector has not read the oldest event. Only one thread at a time may write events.
pub fn next_place(written: &AtomicU32, read: &AtomicU32, places: usize) -> Option<usize> {
    let number = written.load(Ordering::Relaxed);
    // The target may write the new event only after the collector has read the old event at the same index
    // of the ring.
    let waiting = number.wrapping_sub(read.load(Ordering::Acquire)) as usize;
    (waiting < places).then_some(number as usize % places)
}

/// Publishes a module event: the target has written this event into the ring, at the index that
/// [`next_place`] returned.
pub fn publish_next(written: &AtomicU32) {
    written.store(written.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

/// The number of events that wait in the ring because the collector has not read them yet; at most
/// `places`, the size of the ring. `read` is the number of events that the collector has read.
pub fn waiting(written: &AtomicU32, read: u32, places: usize) -> u32 {
    (written.load(Ordering::Acquire).wrapping_sub(read) as usize).min(places) as u32
}
