//! The control page: through it an image claims a free session, and the collector learns of the claim.
//!
//! The collector keeps every unclaimed slot filled with a fresh session, so a target never waits for one. A
//! chain of `exec`s or a burst of children can claim as many sessions as there are slots. An image that finds
//! no session runs unrecorded and adds to `missed`.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};

/// "edlkctrl", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"edlkctrl");
/// Number of slots.
pub const SLOTS: usize = 32;
/// Size of the mapping.
pub const BYTES: usize = 4096;
/// The domain of memory that the program maps with mmap, mremap and shmat.
pub const DOMAIN_MAPPING: u32 = 1;
/// The domain of objects that the program's own pools hand out.
pub const DOMAIN_POOL: u32 = 2;

/// The layout of the page.
#[repr(C)]
pub struct Control {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`crate::VERSION`].
    pub version: AtomicU32,
    /// The process ID to record, as in the collector's /proc; 0: record the first process that claims a
    /// session.
    pub root_pid: AtomicU32,
    /// 1: the collector records child processes, too.
    pub children: AtomicU32,
    /// Domains of memory to record beside the heap: a sum of [`DOMAIN_MAPPING`] and [`DOMAIN_POOL`].
    pub domains: AtomicU32,
    /// Number of images that found no free session.
    pub missed: AtomicU32,
    /// Incremented at every claim, which wakes threads that wait on it.
    pub claims: AtomicU32,
    /// Number of images of other processes. The preload leaves these processes unrecorded, because the user
    /// did not ask to record children.
    pub others: AtomicU32,
    /// The number at the end of the page's address. PIDs are reused, so a target that has another nonce in
    /// its address has found the wrong collector.
    pub nonce: AtomicU64,
    /// The slots for sessions.
    pub slots: [Slot; SLOTS],
}
const _: () = assert!(core::mem::size_of::<Control>() <= BYTES);

/// One slot: empty, claimed by an image, or the descriptor of a fresh session.
///
/// State and descriptor share one word. With two words, the collector could refill the slot between two
/// reads, and its next session would be handed out twice.
#[repr(transparent)]
pub struct Slot(AtomicU64);

/// The value of a slot that the collector has not filled yet.
const EMPTY: u64 = 0;
/// An image claimed the session.
const CLAIMED: u64 = 1;
/// The value for file descriptor 0; descriptor N is stored as `FREE + N`.
const FREE: u64 = 2;

impl Slot {
    /// Puts a fresh session into the slot: its file descriptor in the collector, which `/proc/COLLECTOR/fd/N`
    /// opens.
    pub fn offer(&self, fd: u32) {
        self.0.store(FREE + u64::from(fd), Ordering::Release);
    }

    /// Empties the slot if an image has claimed its session. Returns whether an image had claimed the
    /// session.
    pub fn take_claimed(&self) -> bool {
        self.0.compare_exchange(CLAIMED, EMPTY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn claim(&self) -> Option<u32> {
        let word = self.0.load(Ordering::Acquire);
        // a file descriptor is an int, so it fits
        let fd = word.checked_sub(FREE)? as u32;
        self.0.compare_exchange(word, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok().then_some(fd)
    }
}

impl Control {
    /// Claims a free session: returns its file descriptor in the collector, and the number of the claim.
    /// Lock-free; every session is claimed once.
    pub fn claim(&self) -> Option<(u32, u32)> {
        let claimed = self.slots.iter().find_map(Slot::claim);
        let counter = if claimed.is_some() { &self.claims } else { &self.missed };
        let number = counter.fetch_add(1, Ordering::Release).wrapping_add(1);
        claimed.map(|session| (session, number))
    }

    /// Number of free sessions that the control page offers now.
    pub fn on_offer(&self) -> usize {
        self.slots.iter().filter(|slot| slot.0.load(Ordering::Relaxed) >= FREE).count()
    }
}
