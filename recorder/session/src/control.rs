//! The control page: how an image finds a free session, and the collector finds out that it did.
//!
//! The collector keeps every slot that is not claimed filled with a fresh session, ahead of need, so that a target never
//! waits for one: a chain of `exec`s or a burst of children claims as many slots as there are, and an image that finds
//! none runs unrecorded and says so in `missed`.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};

/// "edlkctrl", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"edlkctrl");
/// Sessions offered at once.
pub const SLOTS: usize = 32;
/// Size of the mapping.
pub const BYTES: usize = 4096;

/// The page itself.
#[repr(C)]
pub struct Control {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`crate::VERSION`].
    pub version: AtomicU32,
    /// The process that is to be recorded, as the collector's /proc has it; 0: whoever comes first.
    pub root_pid: AtomicU32,
    /// 1: child processes are recorded too.
    pub children: AtomicU32,
    /// Images that found no free session.
    pub missed: AtomicU32,
    /// Incremented at every claim, which wakes whoever waits on it.
    pub claims: AtomicU32,
    /// Images of other processes, which are not recorded because nobody asked for children.
    pub others: AtomicU32,
    /// What the address of the page ends in. A target that was told another has come to the wrong collector: process numbers come
    /// again.
    pub nonce: AtomicU64,
    /// The sessions on offer.
    pub slots: [Slot; SLOTS],
}
const _: () = assert!(core::mem::size_of::<Control>() <= BYTES);

/// One session on offer: nothing yet, taken by an image, or a fresh session that waits for one.
///
/// One word for both whether and which: between two, the collector could refill the place, and its next session would be handed out
/// twice.
#[repr(transparent)]
pub struct Slot(AtomicU64);

/// The collector has put nothing here yet.
const EMPTY: u64 = 0;
/// An image took it.
const CLAIMED: u64 = 1;
/// What file descriptor 0 of a fresh session would be.
const FREE: u64 = 2;

impl Slot {
    /// Puts a session on offer: its file descriptor in the collector's own table, where `/proc/COLLECTOR/fd/N` opens it.
    pub fn offer(&self, fd: u32) {
        self.0.store(FREE + u64::from(fd), Ordering::Release);
    }

    /// Empties the place if an image took what was in it.
    pub fn take_claimed(&self) -> bool {
        self.0.compare_exchange(CLAIMED, EMPTY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn claim(&self) -> Option<u32> {
        let word = self.0.load(Ordering::Acquire);
        // File descriptors are ints.
        let fd = word.checked_sub(FREE)? as u32;
        self.0.compare_exchange(word, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok().then_some(fd)
    }
}

impl Control {
    /// Takes a free session: its file descriptor in the collector. Lock-free; every session is handed out once.
    pub fn claim(&self) -> Option<u32> {
        let claimed = self.slots.iter().find_map(Slot::claim);
        let counter = if claimed.is_some() { &self.claims } else { &self.missed };
        counter.fetch_add(1, Ordering::Release);
        claimed
    }
}
