//! HOT: the tables of the fast path in one object, so that one address leads to all of them. Their content is
//! explained where it is used: [`Page`] in `hot::thread`, [`Top`] in `hot::live`.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32};
use edleak_session::counters::Counters;
use edleak_session::layout::MAX_SHARDS;

/// Bits of an address inside one leaf of the side table.
pub(crate) const LEAF_SHIFT: usize = 26;
/// Number of leaves, for 47 bits of address.
pub(crate) const LEAVES: usize = 1 << (47 - LEAF_SHIFT);

/// The only instance is [`TABLES`].
#[repr(C)]
pub(crate) struct Tables {
    /// The counters and limits of each thread.
    pub page: Page,
    /// The upper level of the side table.
    pub top: Top,
}

// The hot path adds a thread's offset in the page to the address of this object.
const _: () = assert!(core::mem::offset_of!(Tables, page) == 0);

/// The only instance of [`Tables`].
pub(crate) static TABLES: Tables = Tables { page: Page::new(), top: Top::new() };

/// The upper level: pointers to leaves.
#[repr(transparent)]
pub(crate) struct Top(pub [AtomicPtr<AtomicU32>; LEAVES]);

impl Top {
    /// A table without leaves.
    pub(crate) const fn new() -> Top {
        Top([const { AtomicPtr::new(ptr::null_mut()) }; LEAVES])
    }
}

/// The counters and limits of a thread on the fast path. If the thread must not count, all limits are zero.
/// So one comparison checks whether the size is small and whether there are counters.
///
/// One thread writes these fields when it attaches the process to a session, before any thread has its offset
/// or while all limits are 0. The collector opens and closes the limits of a process that is attached again
/// ([`edleak_session::idle`]). So plain reads are safe. In a forked child the kernel wipes the fields. If a
/// signal handler forks, this may happen between two reads.
#[repr(C)]
pub(crate) struct Own {
    /// This thread's shard; null: leave the fast path.
    pub counters: *const Counters,
    /// Smaller sizes may take the fast path: `live::LARGE`, or 0 if no size may.
    pub size_limit: usize,
    /// The limit that `live::Found::small` compares with: `live::SMALL`, or 0 if this thread must not
    /// count.
    pub small: u32,
    reserved: [u32; 3],
}
const _: () = assert!(size_of::<Own>() == 32);

impl Own {
    pub(crate) const NONE: Own = Own { counters: ptr::null(), size_limit: 0, small: 0, reserved: [0; 3] };
}

/// The page that the kernel wipes in a forked child.
#[repr(C, align(4096))]
pub(crate) struct Page {
    /// Entry 0 stays zero; entry n belongs to the owner of shard n − 1.
    pub own: [UnsafeCell<Own>; MAX_SHARDS + 1],
    /// 1 once the session is attached; in a forked child the kernel has wiped it to 0.
    pub alive: AtomicU32,
    fill: UnsafeCell<[u8; FILL]>,
}
const FILL: usize = 4096 - (MAX_SHARDS + 1) * size_of::<Own>() - 4;
const _: () = assert!(size_of::<Page>() == 4096);
const _: () = assert!((MAX_SHARDS + 1) * size_of::<Own>() <= u16::MAX as usize, "an offset fits 16 bits");

// SAFETY: in each process one thread writes the entries of `own`, before any other has an offset or while all
// limits are 0; `fill` is never used; `alive` is atomic.
unsafe impl Sync for Page {}

impl Page {
    /// A page on which no thread counts.
    pub(crate) const fn new() -> Page {
        Page {
            own: [const { UnsafeCell::new(Own::NONE) }; MAX_SHARDS + 1],
            alive: AtomicU32::new(0),
            fill: UnsafeCell::new([0; FILL]),
        }
    }

    /// The counters of a shard's owner; null: the page was wiped, or the shard does not exist.
    pub(crate) fn counters(&self, shard: usize) -> *const Counters {
        let own = self.own[(shard + 1) % (MAX_SHARDS + 1)].get();
        // SAFETY: the caller has found the session attached, so no thread writes to it any more.
        unsafe { (*own).counters }
    }
}
