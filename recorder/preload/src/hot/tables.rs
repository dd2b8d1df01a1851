//! HOT: the tables of the fast path in one object, so that the code can reach all tables from one address.
//! [`Page`] is explained in `hot::thread`, and [`Top`] in `hot::live`.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32};
use edleak_session::counters::Counters;
use edleak_session::layout::{MAX_SHARDS, PAGE_BYTES};

/// Number of address bits inside one leaf of the side table: a leaf covers 2²⁶ bytes of addresses.
pub(crate) const LEAF_SHIFT: usize = 26;
/// Number of leaves, for addresses of 47 bits.
pub(crate) const LEAVES: usize = 1 << (47 - LEAF_SHIFT);

/// The tables of the fast path. The only instance is [`TABLES`].
#[repr(C)]
pub(crate) struct Tables {
    /// The counters and limits of each thread.
    pub page: Page,
    /// The upper level of the side table.
    pub top: Top,
}

// The hot path adds a thread's offset in the page to the address of `TABLES`, so `page` must be the first
// field.
const _: () = assert!(core::mem::offset_of!(Tables, page) == 0);

/// The only instance of [`Tables`].
pub(crate) static TABLES: Tables = Tables { page: Page::new(), top: Top::new() };

/// The upper level of the side table. For each region of 64 MiB of addresses, the upper level holds the
/// origin of the region's leaf (`hot::live` explains the origin).
#[repr(transparent)]
pub(crate) struct Top(pub [AtomicPtr<AtomicU32>; LEAVES]);

impl Top {
    /// An upper level without leaves.
    pub(crate) const fn new() -> Top {
        Top([const { AtomicPtr::new(ptr::null_mut()) }; LEAVES])
    }
}

/// The counters and limits of a thread on the fast path. If the thread must not count, all limits are 0. So
/// one comparison checks both that the size is small and that the thread has counters.
///
/// One thread writes the counters and limits of all threads when it attaches the process to a session.
/// While this thread writes, no thread uses its counters and limits on the fast path: no thread has an
/// offset yet, or all limits are 0. If a process is attached again, the collector sets the limits when the
/// recording begins and ends ([`edleak_session::idle`]). So every thread can read its counters and limits
/// without atomic operations. In a forked child, the kernel sets the counters and limits to 0. If a signal
/// handler forks between two reads of one thread, the child may get an old value from the first read and 0
/// from the second read.
#[repr(C)]
pub(crate) struct Own {
    /// The shard of this thread; null: the thread must leave the fast path.
    pub counters: *const Counters,
    /// Only an allocation of fewer than `size_limit` bytes may take the fast path. `size_limit` is
    /// `live::LARGE`, or 0 if this thread must not count.
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

/// The page of counters. In a forked child, the kernel sets this page to 0.
#[repr(C, align(4096))]
pub(crate) struct Page {
    /// One entry for each shard: entry n belongs to the thread that owns shard n − 1. All fields of entry 0
    /// are always 0, for threads that must leave the fast path.
    pub own: [UnsafeCell<Own>; MAX_SHARDS + 1],
    /// 1 after the session is attached. In a forked child, the kernel sets `alive` to 0, together with the
    /// rest of the page.
    pub alive: AtomicU32,
    fill: UnsafeCell<[u8; FILL]>,
}
const FILL: usize = PAGE_BYTES - (MAX_SHARDS + 1) * size_of::<Own>() - 4;
const _: () = assert!(size_of::<Page>() == PAGE_BYTES);
const _: () = assert!((MAX_SHARDS + 1) * size_of::<Own>() <= u16::MAX as usize, "an offset fits 16 bits");

// SAFETY: in each process, one thread writes the entries of `own`, before any other thread has an offset or
// while all limits are 0; `fill` is never used; `alive` is atomic.
unsafe impl Sync for Page {}

impl Page {
    /// A page of counters that no thread uses yet.
    pub(crate) const fn new() -> Page {
        Page {
            own: [const { UnsafeCell::new(Own::NONE) }; MAX_SHARDS + 1],
            alive: AtomicU32::new(0),
            fill: UnsafeCell::new([0; FILL]),
        }
    }

    /// The counters of a shard's owner; null: the kernel has set the page to 0 after a fork, or the shard
    /// does not exist.
    pub(crate) fn counters(&self, shard: usize) -> *const Counters {
        let own = self.own[(shard + 1) % (MAX_SHARDS + 1)].get();
        // SAFETY: the caller has found the session attached, so no thread writes to `own` now.
        unsafe { (*own).counters }
    }
}
