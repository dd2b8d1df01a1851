//! The control page. Through this page, an image (a program in a process, from exec to exec) claims a free
//! session, and the collector learns that an image has claimed a session.
//!
//! The collector fills every empty slot with a fresh session, so a target never waits for a session. Until
//! the collector refills the slots, a chain of `exec`s or many new children can together claim at most as
//! many sessions as there are slots. An image that finds no session is not recorded and increments `missed`.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};

/// "edlkctrl", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"edlkctrl");
/// Number of slots on the control page, each for one session. The models need few slots, because they try all
/// orders of the accesses to them.
pub const SLOTS: usize = if cfg!(edleak_loom) { 2 } else { 32 };
/// Size of the mapping of the control page in bytes.
pub const BYTES: usize = 4096;
/// The domain of memory that the program maps with mmap, mremap and shmat.
pub const DOMAIN_MAPPING: u32 = 1;
/// The domain of objects that the program's own pools hand out.
pub const DOMAIN_POOL: u32 = 2;

/// The layout of the control page.
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
    /// Domains of memory to record in addition to the heap: a sum of [`DOMAIN_MAPPING`] and [`DOMAIN_POOL`].
    pub domains: AtomicU32,
    /// Number of images that found no free session.
    pub missed: AtomicU32,
    /// Number of times that an image has claimed a session.
    pub claims: AtomicU32,
    /// Number of images that the library did not record, because they run in processes other than the
    /// recorded process and the user did not ask to record children.
    pub others: AtomicU32,
    /// The futex word on which the collector waits. An image adds 1 to this number and then wakes the
    /// collector, when it has mapped its session. The collector does not wait on `claims`, because an image
    /// changes `claims` before its session is mapped: the collector would see this change too early, and
    /// would then miss the wake.
    pub wakes: AtomicU32,
    /// The number after the `#` in the address of the control page (`/proc/COLLECTOR/fd/N#NONCE`). PIDs are
    /// reused, so a target may open the control page of a wrong collector. If the number in the target's
    /// address differs from `nonce`, the collector of this page does not record the target.
    pub nonce: AtomicU64,
    /// The slots for sessions.
    pub slots: [Slot; SLOTS],
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<Control>() <= BYTES);

/// One slot: empty, claimed by an image, or the descriptor of a fresh session.
///
/// The state and the descriptor of a slot are in one word, which a target reads with one load. If they were
/// in two words, the collector could refill the slot between the two loads of a target, and two targets
/// could get the same session.
#[repr(transparent)]
#[derive(Default)]
pub struct Slot(AtomicU64);

/// The value of a slot that the collector has not filled yet.
const EMPTY: u64 = 0;
/// The bit that an image sets in the value of a slot when it claims the session in the slot.
const CLAIMED: u64 = 1 << 63;
/// The value of a slot with a fresh session whose file descriptor is 0; for descriptor N, the value is N
/// plus `FREE`.
const FREE: u64 = 2;

/// A session that a process has claimed for the program that it now executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// The index of the slot that had this session.
    slot: usize,
    /// The number of the file descriptor with which the collector has opened the session.
    pub fd: u32,
    /// The number of the claim by which the image got this session.
    pub number: u32,
}

impl Slot {
    /// Puts a fresh session into the slot. `fd` is the file descriptor of the session in the collector; a
    /// target opens `/proc/COLLECTOR/fd/N`.
    pub fn put(&self, fd: u32) {
        self.0.store(FREE + u64::from(fd), Ordering::Release);
    }

    /// Empties the slot if an image has claimed its session. Returns whether an image had claimed the
    /// session.
    pub fn take_claimed(&self) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        word & CLAIMED != 0
            && self.0.compare_exchange(word, EMPTY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn claim(&self) -> Option<u32> {
        let word = self.0.load(Ordering::Acquire);
        if word & CLAIMED != 0 {
            return None;
        }
        // The number of a file descriptor is an int, so it fits into 32 bits.
        let fd = word.checked_sub(FREE)? as u32;
        self.0
            .compare_exchange(word, word | CLAIMED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
            .then_some(fd)
    }
}

impl Control {
    /// Claims a free session, without a lock. No two images can claim the same session.
    pub fn claim(&self) -> Option<Claimed> {
        let claimed = self.slots.iter().enumerate().find_map(|(slot, word)| Some((slot, word.claim()?)));
        let counter = if claimed.is_some() { &self.claims } else { &self.missed };
        let number = counter.fetch_add(1, Ordering::Release).wrapping_add(1);
        claimed.map(|(slot, fd)| Claimed { slot, fd, number })
    }

    /// Puts a claimed session back into its slot, because the image cannot open the session. `false`: the
    /// collector has already emptied the slot, and so knows of the claim.
    pub fn unclaim(&self, claimed: Claimed) -> bool {
        let free = FREE + u64::from(claimed.fd);
        self.slots.get(claimed.slot).is_some_and(|slot| {
            slot.0.compare_exchange(free | CLAIMED, free, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// Number of free sessions in the slots.
    pub fn free_sessions(&self) -> usize {
        self.slots.iter().filter(|slot| (FREE..CLAIMED).contains(&slot.0.load(Ordering::Relaxed))).count()
    }
}

#[cfg(all(test, not(edleak_loom)))]
mod tests {
    use super::*;

    fn page() -> Control {
        let word = || AtomicU32::new(0);
        Control {
            magic: AtomicU64::new(MAGIC),
            version: word(),
            root_pid: word(),
            children: word(),
            domains: word(),
            missed: word(),
            claims: word(),
            others: word(),
            wakes: word(),
            nonce: AtomicU64::new(1),
            slots: [const { Slot(AtomicU64::new(EMPTY)) }; SLOTS],
        }
    }

    #[test]
    fn an_unclaimed_session_can_be_claimed_again_unless_the_collector_took_it() {
        let page = page();
        page.slots[3].put(40);
        let first = page.claim().expect("a session is free");
        assert_eq!((first.fd, page.claim(), page.free_sessions()), (40, None, 0));
        assert!(page.unclaim(first));
        assert!(!page.slots[3].take_claimed());
        let second = page.claim().expect("the session is free again");
        assert!(page.slots[3].take_claimed());
        assert!(!page.unclaim(second), "the collector has the session");
        // In this test, the collector then puts another session into the slot, and another image claims
        // that session.
        page.slots[3].put(41);
        assert_eq!(page.claim().map(|claimed| claimed.fd), Some(41));
        assert!(!page.unclaim(second), "the claim of another image stays");
    }
}
