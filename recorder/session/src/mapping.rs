//! Mapping events: the ranges of address space that a program maps and unmaps. Any thread may write an event
//! into the ring of mapping events; only the collector reads the events.
//!
//! A producer is a thread that writes an event. A producer takes a number with one compare-and-swap and
//! writes the event at the index of this number. Last, the producer stores the event's number into the
//! event, and this store publishes the event. A producer never waits, so a signal handler may write an
//! event while the thread that it interrupts is writing another event. The collector reads events in the
//! order of their numbers and stops at the first unpublished event.
//!
//! # Order
//!
//! The kernel executes the calls that change one address space one after the other. The collector applies
//! the events in the order of their numbers, and must get the same mappings as the kernel. So for each kind
//! of call, the table tells whether the thread takes the number of its event before or after the kernel
//! executes the call:
//!
//! | call | takes its number | reason |
//! |---|---|---|
//! | munmap, shmdt, old range of mremap | before the kernel's work | another thread may get the range soon |
//! | mmap, shmat, new range of mremap | after the kernel's work | no other thread knows the range earlier |
//! | madvise | after the kernel's work | the range stays mapped |
//!
//! Example 1: thread A unmaps a range, and the kernel then gives this range to thread B. Thread A takes the
//! number of its event before the kernel executes the munmap, and thread B takes the number of its event
//! after the kernel has executed the mmap. So the event of the munmap has the lower number, as it must.
//! Example 2: thread B maps a range, and thread A then unmaps this range. Thread A can only know the
//! address after the mmap has returned, so the event of the mmap has the lower number, as it must.
//!
//! A call of mmap with `MAP_FIXED` replaces mappings of the program. The kernel replaces them in one step, so
//! no other thread can get their ranges in between. So the calling thread takes the number of its event after
//! the kernel's work, as for any other mmap. If a call fails after its thread has added an event for it, the
//! thread adds a second event, which reports the failure and holds the number of the first event.
//!
//! # Room
//!
//! An allocator may call madvise thousands of times a second. Calls of madvise neither map nor unmap
//! memory, so the events of madvise may use only three quarters of the ring. The events of all calls other
//! than madvise may use the whole ring.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};

/// Number of events in the ring.
pub const MAX_EVENTS: usize = 1 << 16;

/// One event in the ring.
#[repr(C)]
#[derive(Default)]
pub struct MappingSlot {
    /// The lower 32 bits of `head` are the event's number plus 1; the upper 32 bits of `head` are the
    /// operation and the flags. The producer stores `head` after all other fields.
    head: AtomicU64,
    address: AtomicU64,
    length: AtomicU64,
    /// The id of the site (lower 32 bits) and the id of the direct caller's site (upper 32 bits).
    sites: AtomicU64,
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<MappingSlot>() == 32);

/// The kind of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Operation {
    /// mmap has mapped the range. `flags` are the flags of the call.
    Map = 1,
    /// munmap is about to unmap the range.
    Unmap = 2,
    /// mremap is about to move, shrink or grow the range.
    Move = 3,
    /// mremap has succeeded. The range in the event is the new range. `flags` hold the number of the event
    /// [`Operation::Move`] that reported the start of the same call of mremap.
    Moved = 4,
    /// A call of munmap, mremap or shmdt has failed, after its thread added an event for the call. `flags`
    /// hold the number of the event that was added for the call.
    Failed = 5,
    /// shmat has attached a segment. `length` is the segment's id.
    Attach = 6,
    /// shmdt is about to detach the segment at the address.
    Detach = 7,
    /// A thread has set a mark and takes a slice. `address` is the position of the slice in the ring of
    /// marks.
    Mark = 8,
    /// madvise has given the pages of the range back to the kernel; the range itself stays mapped.
    GiveBack = 9,
}

impl Operation {
    fn of(number: u8) -> Option<Operation> {
        use Operation::{Attach, Detach, Failed, GiveBack, Map, Mark, Move, Moved, Unmap};
        let all = [Map, Unmap, Move, Moved, Failed, Attach, Detach, Mark, GiveBack];
        all.into_iter().find(|one| *one as u8 == number)
    }
}

/// Number of bits that [`MappingEvent::flags`] have in the ring.
pub const FLAG_BITS: u32 = 24;

/// An event as the producer writes it and the collector reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappingEvent {
    /// The kind of the event.
    pub operation: Operation,
    /// The lower [`FLAG_BITS`] bits of the flags that the program passed. If the operation is
    /// [`Operation::Moved`] or [`Operation::Failed`], `flags` are the lower bits of the number of an
    /// earlier event, which reported the same call before the kernel executed it.
    pub flags: u32,
    /// First address of the range.
    pub address: u64,
    /// Length in bytes that the program passed to the call.
    pub length: u64,
    /// ID of the site of the call; 0: the event has no site.
    pub site: u32,
    /// ID of the site of the direct caller, which may be a wrapper; 0: the event has no site.
    pub direct: u32,
}

/// The ring of mapping events in the session.
#[derive(Clone, Copy)]
pub struct MappingRing<'s> {
    /// The events of the ring.
    pub slots: &'s [MappingSlot],
    /// Number of events that producers have begun to write.
    pub written: &'s AtomicU32,
    /// Number of events that the collector has read.
    pub read: &'s AtomicU32,
}

impl MappingRing<'_> {
    /// Adds an event and returns its number. `None`: the ring is full. Takes no lock; safe in a signal
    /// handler.
    pub fn push(&self, event: MappingEvent) -> Option<u32> {
        self.push_below(self.slots.len(), event)
    }

    /// Adds an event of a call that neither maps nor unmaps memory. `push_note` works as
    /// [`MappingRing::push`], but uses only three quarters of the ring.
    pub fn push_note(&self, event: MappingEvent) -> Option<u32> {
        self.push_below(self.slots.len() - self.slots.len() / 4, event)
    }

    /// Adds an event if fewer than `limit` events wait for the collector.
    fn push_below(&self, limit: usize, event: MappingEvent) -> Option<u32> {
        let mut number = self.written.load(Ordering::Relaxed);
        loop {
            let waiting = number.wrapping_sub(self.read.load(Ordering::Acquire));
            // `waiting` is less than 0 if other threads have taken numbers since this thread loaded
            // `number`, and the collector has already read the event with that number.
            if waiting as i32 >= 0 && waiting as usize >= limit {
                return None;
            }
            let next = number.wrapping_add(1);
            match self.written.compare_exchange(number, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => number = now,
            }
        }
        let slot = self.slots.get(number as usize % self.slots.len())?;
        slot.address.store(event.address, Ordering::Relaxed);
        slot.length.store(event.length, Ordering::Relaxed);
        slot.sites.store(u64::from(event.direct) << 32 | u64::from(event.site), Ordering::Relaxed);
        let call = u64::from(event.operation as u8) | u64::from(event.flags << 8);
        slot.head.store(call << 32 | u64::from(number.wrapping_add(1)), Ordering::Release);
        Some(number)
    }

    /// Reads the event with this number; `None`: no producer has published this event yet. Only the
    /// collector calls this function. After the collector has read an event, it stores the number of events
    /// that it has read into `read`.
    pub fn get(&self, number: u32) -> Option<MappingEvent> {
        let slot = self.slots.get(number as usize % self.slots.len())?;
        let head = slot.head.load(Ordering::Acquire);
        if head as u32 != number.wrapping_add(1) {
            return None;
        }
        let call = (head >> 32) as u32;
        let sites = slot.sites.load(Ordering::Relaxed);
        Some(MappingEvent {
            operation: Operation::of(call as u8)?,
            flags: call >> 8,
            address: slot.address.load(Ordering::Relaxed),
            length: slot.length.load(Ordering::Relaxed),
            site: sites as u32,
            direct: (sites >> 32) as u32,
        })
    }
}

#[cfg(all(test, not(edleak_loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn event(address: u64) -> MappingEvent {
        MappingEvent { operation: Operation::Moved, flags: 0xabcdef, address, length: 7, site: 3, direct: 9 }
    }

    struct Memory {
        slots: Vec<MappingSlot>,
        written: AtomicU32,
        read: AtomicU32,
    }

    impl Memory {
        fn new(places: usize, first: u32) -> Memory {
            let slots = (0..places).map(|_| MappingSlot::default()).collect();
            Memory { slots, written: first.into(), read: first.into() }
        }

        fn ring(&self) -> MappingRing<'_> {
            MappingRing { slots: &self.slots, written: &self.written, read: &self.read }
        }
    }

    #[test]
    fn events_come_back_in_order_and_a_full_ring_refuses() {
        let memory = Memory::new(4, u32::MAX - 5);
        let ring = memory.ring();
        let mut next = u32::MAX - 5;
        for round in 0..5u64 {
            for i in 0..4 {
                assert_eq!(ring.push(event(round * 4 + i)), Some(next.wrapping_add(i as u32)));
            }
            assert_eq!(ring.push(event(99)), None);
            for i in 0..4 {
                assert_eq!(ring.get(next), Some(event(round * 4 + i)));
                next = next.wrapping_add(1);
            }
            assert_eq!(ring.get(next), None, "an event of the round before is not read again");
            memory.read.store(next, Ordering::Release);
        }
    }

    #[test]
    fn notes_leave_the_last_quarter_of_the_ring_to_other_events() {
        let memory = Memory::new(8, 0);
        let ring = memory.ring();
        let note = MappingEvent { operation: Operation::GiveBack, ..event(1) };
        assert!((0..6).all(|number| ring.push_note(note) == Some(number)));
        assert_eq!(
            (ring.push_note(note), ring.push(event(2)), ring.push(event(3))),
            (None, Some(6), Some(7))
        );
        assert_eq!((ring.push(event(4)), ring.get(0)), (None, Some(note)));
    }

    #[test]
    fn threads_lose_no_event() {
        const EACH: u64 = 20_000;
        let memory = Memory::new(64, 0);
        let (mut seen, mut next) = ([0u64; 4], 0u32);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let ring = memory.ring();
                scope.spawn(move || {
                    for i in 0..EACH {
                        while ring.push(event(thread << 32 | i)).is_none() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            while seen != [EACH; 4] {
                let Some(found) = memory.ring().get(next) else {
                    std::thread::yield_now();
                    continue;
                };
                let thread = (found.address >> 32) as usize;
                assert_eq!(found, event((thread as u64) << 32 | seen[thread]), "in the order of its thread");
                seen[thread] += 1;
                next = next.wrapping_add(1);
                memory.read.store(next, Ordering::Release);
            }
        });
        assert_eq!(u64::from(next), 4 * EACH);
    }
}
