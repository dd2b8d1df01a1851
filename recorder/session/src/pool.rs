//! Pool events: the objects that the program's own pools hand out and take back. Any thread may write an
//! event into the ring of pool events; only the collector reads the events.
//!
//! A producer is a thread that writes an event. A producer checks whether the ring has room, takes a number
//! with one addition and writes the event at the index of this number. Last, the producer stores the
//! event's number into the event, and this store publishes the event. A producer never waits, so a signal
//! handler may write an event while the thread that it interrupts is writing another event. The collector
//! reads events in the order of their numbers.
//!
//! # Room
//!
//! After a producer has checked the room and before the producer takes its number, other threads may take
//! numbers. So a producer writes its event only if at least [`SLACK`] places of the ring are free when it
//! checks the room. [`SLACK`] is larger than the number of threads that have checked the room but have not
//! yet taken a number. If the event of a reset were lost, all objects of the pool would stay live in the
//! collector's counts. If the event of a pool's name were lost, the objects of the pool would be counted at
//! other sites. If the event of a mark were lost, the counters of pools at this mark would be wrong. So
//! events of single objects may not use the last [`RESERVE`] free places of the ring; only resets, names,
//! trims, moves and marks may use these places.
//!
//! # Order
//!
//! A pool calls `edleak_pool_free` before another thread can get the object, and `edleak_pool_alloc` after a
//! thread has got the object. So if one thread frees an object and another thread then gets the object, the
//! event of the free has the lower number.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::mark::{GivenName, MarkName, place_of};

/// Number of events that fit into the ring.
pub const MAX_EVENTS: usize = 1 << 18;
/// Number of free places that the ring must have when a producer checks whether the ring has room for an
/// event. So at most this number of producers may be between the check and the write. The models have two
/// producers.
pub const SLACK: usize = if cfg!(edleak_loom) { 2 } else { 1 << 12 };
/// Number of places in the ring that only resets, names, trims, moves and marks may use.
pub const RESERVE: usize = if cfg!(edleak_loom) { 1 } else { 1 << 13 };
/// Maximum number of names of pools.
pub const MAX_NAMES: usize = 256;

const SIZE_BITS: u32 = 56;
const OPERATION_BITS: u32 = 8;
/// The largest size of an object in bytes; the ring stores any larger size as this size.
pub const MAX_SIZE: u64 = (1 << SIZE_BITS) - 1;

/// One event in the ring.
#[repr(C)]
#[derive(Default)]
pub struct PoolSlot {
    /// The lower 32 bits of `head` are the event's number plus 1. The upper 32 bits of `head` are two site
    /// ids of 16 bits each: the site in the pool's own function, and the site of the caller of this
    /// function. The producer stores `head` after all other fields.
    head: AtomicU64,
    pool: AtomicU64,
    address: AtomicU64,
    /// The size in the lower [`SIZE_BITS`] bits, and the operation in the bits above them.
    size: AtomicU64,
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<PoolSlot>() == 32);

/// The kind of an event. edleak.h uses the same numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Operation {
    /// The pool has handed out an object.
    Alloc = 1,
    /// The pool is about to take an object back.
    Free = 2,
    /// The pool is about to take back all of its objects.
    Reset = 3,
    /// The pool has a name; `address` is the index of the name in the session.
    Name = 4,
    /// The pool is about to take back all objects outside a range.
    Trim = 5,
    /// The pool has moved: from now on, the address in the field `address` identifies the pool.
    Move = 6,
    /// The program has made a range inaccessible (AddressSanitizer calls this poisoning).
    Poison = 7,
    /// The program has made a range accessible.
    Unpoison = 8,
    /// A thread that sets a mark takes a slice (a copy of the counters). `address` is the position of the
    /// slice in the ring of marks ([`crate::mark`]). Only the preload library itself adds an event of this
    /// kind.
    Mark = 9,
}

impl Operation {
    /// The operation whose number in an event is `number`; `None`: no operation has this number.
    #[inline]
    pub const fn of(number: u8) -> Option<Operation> {
        Some(match number {
            1 => Operation::Alloc,
            2 => Operation::Free,
            3 => Operation::Reset,
            4 => Operation::Name,
            5 => Operation::Trim,
            6 => Operation::Move,
            7 => Operation::Poison,
            8 => Operation::Unpoison,
            9 => Operation::Mark,
            _ => return None,
        })
    }

    /// Whether an event of this kind creates an object, so that the event has a site.
    #[inline]
    pub const fn has_site(self) -> bool {
        matches!(self, Operation::Alloc | Operation::Unpoison)
    }

    /// Whether the loss of an event of this kind would affect more than one object.
    #[inline]
    const fn concerns_many(self) -> bool {
        matches!(
            self,
            Operation::Reset | Operation::Name | Operation::Trim | Operation::Move | Operation::Mark
        )
    }
}

/// An event as the producer writes it and the collector reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolEvent {
    /// The kind of the event.
    pub operation: Operation,
    /// The address that identifies the pool.
    pub pool: u64,
    /// The address of the object or of the range.
    pub address: u64,
    /// The size of the object or of the range, at most [`MAX_SIZE`].
    pub size: u64,
    /// ID of the site in the pool's own function that reports the object; 0: the event has no site.
    pub direct: u16,
    /// ID of the site of the caller of the pool's own function; 0: unknown.
    pub caller: u16,
}

/// The state of the ring, which producers and the collector share. Each field has its own cache line.
#[repr(C, align(64))]
#[derive(Default)]
pub struct PoolState {
    /// Number of events that producers have begun to write.
    pub written: Line<AtomicU32>,
    /// Number of events that the collector has read.
    pub read: Line<AtomicU32>,
    /// The collector waits for a change of this futex word. 1: a producer has written an event. 2: the
    /// collector reads no more events.
    pub noticed: Line<AtomicU32>,
    /// Number of events of single objects that were lost because the ring was full.
    pub lost: Line<AtomicU64>,
    /// Number of resets, names, trims, moves and marks that were lost because the ring was full.
    pub lost_of_many: Line<AtomicU64>,
}

/// A value that has a cache line for itself.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Line<T>(pub T);

/// The value of [`PoolState::noticed`] after the first event.
pub const NOTICED: u32 = 1;
/// The value of [`PoolState::noticed`] when the collector reads no more events.
pub const CLOSED: u32 = 2;

/// The ring of pool events in the session.
#[derive(Clone, Copy)]
pub struct PoolRing<'s> {
    /// The state of the ring.
    pub state: &'s PoolState,
    /// The names of pools.
    pub names: &'s [MarkName],
    /// The events of the ring.
    pub slots: &'s [PoolSlot],
}

impl<'s> PoolRing<'s> {
    /// Adds an event. `false`: the ring is full. Takes no lock; safe in a signal handler.
    #[inline]
    pub fn push(&self, event: PoolEvent) -> bool {
        let used = if event.operation.concerns_many() { SLACK } else { SLACK + RESERVE };
        let room = self.slots.len() - used;
        let read = self.state.read.0.load(Ordering::Acquire);
        let waiting = self.state.written.0.load(Ordering::Relaxed).wrapping_sub(read);
        if waiting as usize >= room {
            return false;
        }
        let number = self.state.written.0.fetch_add(1, Ordering::AcqRel);
        let Some(slot) = self.slots.get(number as usize % self.slots.len()) else { return false };
        slot.pool.store(event.pool, Ordering::Relaxed);
        slot.address.store(event.address, Ordering::Relaxed);
        let size = if event.size > MAX_SIZE { MAX_SIZE } else { event.size };
        slot.size.store((event.operation as u64) << SIZE_BITS | size, Ordering::Relaxed);
        let sites = u64::from(event.caller) << 48 | u64::from(event.direct) << 32;
        slot.head.store(sites | u64::from(number.wrapping_add(1)), Ordering::Release);
        true
    }

    /// Counts an event for which the ring had no room.
    #[cold]
    pub fn lose(&self, operation: Operation) {
        let counter = if operation.concerns_many() { &self.state.lost_of_many } else { &self.state.lost };
        counter.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads the event with this number; `None`: no producer has published this event yet. Only the
    /// collector calls this function. After the collector has read an event, it stores the number of events
    /// that it has read into `read`.
    #[inline]
    pub fn get(&self, number: u32) -> Option<PoolEvent> {
        let slot = self.slots.get(number as usize % self.slots.len())?;
        let head = slot.head.load(Ordering::Acquire);
        if head as u32 != number.wrapping_add(1) {
            return None;
        }
        let size = slot.size.load(Ordering::Relaxed);
        Some(PoolEvent {
            operation: Operation::of((size >> SIZE_BITS) as u8)?,
            pool: slot.pool.load(Ordering::Relaxed),
            address: slot.address.load(Ordering::Relaxed),
            size: size & MAX_SIZE,
            direct: (head >> 32) as u16,
            caller: (head >> 48) as u16,
        })
    }

    /// The index of a name. If the session does not contain the name, the function stores the name. `None`:
    /// the session has no room for the name.
    pub fn name(&self, name: GivenName<'_>) -> Option<usize> {
        place_of(self.names, name).map(|(index, _)| index)
    }
}
const _: () = assert!(SIZE_BITS + OPERATION_BITS == 64);
const _: () = assert!(crate::site::MAX_SITES <= 1 << 16);

#[cfg(all(test, not(edleak_loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn event(operation: Operation, address: u64) -> PoolEvent {
        PoolEvent { operation, pool: 7 << 40, address, size: MAX_SIZE, direct: 0xfffe, caller: 0xffff }
    }

    struct Memory {
        state: PoolState,
        slots: Vec<PoolSlot>,
    }

    impl Memory {
        fn new(first: u32) -> Memory {
            let state = PoolState::default();
            state.written.0.store(first, Ordering::Relaxed);
            state.read.0.store(first, Ordering::Relaxed);
            Memory { state, slots: (0..MAX_EVENTS).map(|_| PoolSlot::default()).collect() }
        }

        fn ring(&self) -> PoolRing<'_> {
            PoolRing { state: &self.state, names: &[], slots: &self.slots }
        }
    }

    #[test]
    fn full_ring_refuses_objects_before_resets() {
        let first = u32::MAX - 1000;
        let memory = Memory::new(first);
        let ring = memory.ring();
        let objects = (MAX_EVENTS - SLACK - RESERVE) as u64;
        for address in 0..objects {
            assert!(ring.push(event(Operation::Alloc, address)));
        }
        assert!(!ring.push(event(Operation::Free, 0)));
        for address in 0..RESERVE as u64 {
            assert!(ring.push(event(Operation::Reset, address)));
        }
        assert!(!ring.push(event(Operation::Reset, 0)));
        for address in 0..objects {
            let number = first.wrapping_add(address as u32);
            assert_eq!(ring.get(number), Some(event(Operation::Alloc, address)));
        }
        let next = first.wrapping_add(objects as u32);
        assert_eq!(ring.get(next), Some(event(Operation::Reset, 0)));
        memory.state.read.0.store(next, Ordering::Release);
        assert!(ring.push(event(Operation::Unpoison, 3)));
        ring.lose(Operation::Free);
        ring.lose(Operation::Reset);
        let lost = [&memory.state.lost, &memory.state.lost_of_many];
        assert_eq!(lost.map(|lost| lost.0.load(Ordering::Relaxed)), [1, 1]);
    }

    #[test]
    fn threads_lose_no_event() {
        const EACH: u64 = 300_000;
        let memory = Memory::new(0);
        let (mut seen, mut next) = ([0u64; 4], 0u32);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let ring = memory.ring();
                scope.spawn(move || {
                    for i in 0..EACH {
                        while !ring.push(event(Operation::Alloc, thread << 32 | i)) {
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
                assert_eq!(found.address as u32, seen[thread] as u32, "in the order of its thread");
                seen[thread] += 1;
                next = next.wrapping_add(1);
                memory.state.read.0.store(next, Ordering::Release);
            }
        });
        assert_eq!(u64::from(next), 4 * EACH);
    }
}
