//! The control page: how an image finds a free session, and the collector finds out that it did.
//!
//! The collector keeps every slot that is not claimed filled with a fresh session, ahead of need, so that a target never
//! waits for one: a chain of `exec`s or a burst of children claims as many slots as there are, and an image that finds
//! none runs unrecorded and says so in `missed`.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
    /// The process that is to be recorded, in the collector's PID namespace; 0: whoever comes first.
    pub root_pid: AtomicU32,
    /// 1: child processes are recorded too.
    pub children: AtomicU32,
    /// Images that found no free session.
    pub missed: AtomicU32,
    /// Incremented at every claim, which wakes whoever waits on it.
    pub claims: AtomicU32,
    /// Images of other processes, which are not recorded because nobody asked for children.
    pub others: AtomicU32,
    /// The sessions on offer.
    pub slots: [Slot; SLOTS],
}
const _: () = assert!(core::mem::size_of::<Control>() <= BYTES);

/// One session on offer.
#[repr(C)]
pub struct Slot {
    /// [`EMPTY`], [`FREE`] or [`CLAIMED`].
    pub state: AtomicU32,
    /// File descriptor of the session in the collector's own table: `/proc/COLLECTOR/fd/N` opens it.
    pub fd: AtomicU32,
}

/// The collector has put nothing here yet.
pub const EMPTY: u32 = 0;
/// A fresh session waits for an image.
pub const FREE: u32 = 1;
/// An image took it.
pub const CLAIMED: u32 = 2;

impl Control {
    /// Takes a free session: its file descriptor in the collector. Lock-free; every session is handed out once.
    pub fn claim(&self) -> Option<u32> {
        for slot in &self.slots {
            if slot.state.compare_exchange(FREE, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.claims.fetch_add(1, Ordering::Release);
                return Some(slot.fd.load(Ordering::Acquire));
            }
        }
        self.missed.fetch_add(1, Ordering::Relaxed);
        None
    }
}
