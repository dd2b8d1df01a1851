//! Runs each protocol of the shared memory in every order of memory accesses that the memory model allows.

use edleak_session_models::control::{Control, MAGIC, Slot};
use edleak_session_models::mapping::{MappingEvent, MappingRing, MappingSlot, Operation};
use edleak_session_models::pool::{self, PoolEvent, PoolRing, PoolSlot, PoolState};
use edleak_session_models::site::{Action, FIRST, SiteInfo, SiteSlot, intern};
use edleak_session_models::stack::{Cell, Next, StackInfo, Stacks};
use edleak_session_models::{caller, event};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::thread;

/// A return address whose lower 16 bits are 0. The lower 16 bits of a return address choose the entry of the
/// caller cache.
const ADDRESS: u64 = 0x5555_0001_0000;

struct Sites {
    slots: Vec<SiteSlot>,
    infos: Vec<SiteInfo>,
    next: AtomicU32,
    cache: Vec<AtomicU64>,
}

impl Sites {
    fn new() -> Sites {
        let slot = || SiteSlot { key: AtomicU64::new(0), meaning: AtomicU64::new(0) };
        let info = || SiteInfo {
            address: AtomicU64::new(0),
            events_before: AtomicU32::new(0),
            same_address: AtomicU32::new(0),
        };
        Sites {
            slots: (0..2).map(|_| slot()).collect(),
            infos: (0..FIRST + 4).map(|_| info()).collect(),
            next: AtomicU32::new(FIRST),
            cache: vec![AtomicU64::new(0)],
        }
    }

    fn intern(&self, address: u64) -> Option<(u32, Action)> {
        intern(&self.slots, &self.infos, &self.next, address, || (0, Action::COUNT))
            .map(SiteSlot::id_and_action)
    }
}

#[test]
fn two_threads_that_meet_a_site_agree_on_its_id() {
    loom::model(|| {
        let sites = Arc::new(Sites::new());
        let other = {
            let sites = Arc::clone(&sites);
            thread::spawn(move || sites.intern(ADDRESS))
        };
        let ours = sites.intern(ADDRESS).expect("there is room");
        let theirs = other.join().expect("it does not panic").expect("there is room");
        assert_eq!(ours, theirs);
        // The collector can find the site, because the address of the site is stored under the id of the
        // site.
        assert_eq!(sites.infos[ours.0 as usize].address.load(Ordering::Acquire), ADDRESS);
    });
}

#[test]
fn an_action_changed_while_a_site_is_met_is_never_lost() {
    loom::model(|| {
        let sites = Arc::new(Sites::new());
        sites.intern(ADDRESS).expect("there is room");
        let target = {
            let sites = Arc::clone(&sites);
            thread::spawn(move || {
                let slot = intern(&sites.slots, &sites.infos, &sites.next, ADDRESS, || (0, Action::COUNT))
                    .expect("it is there");
                caller::publish(&sites.cache, ADDRESS, slot, || true);
            })
        };
        // The collector watches the site: the collector first changes the action in the site table, and then
        // the entry in the caller cache.
        let slot = sites.slots.iter().find(|slot| slot.key.load(Ordering::Acquire) == ADDRESS);
        slot.expect("it was just made").set_action(Action::WATCH);
        caller::withdraw(&sites.cache, ADDRESS);
        target.join().expect("it does not panic");
        let word = sites.cache[0].load(Ordering::Relaxed);
        let known = caller::Caller::by(word, ADDRESS);
        assert!(known.site().is_none(), "the hot path would go on counting at a watched site");
    });
}

#[test]
fn two_threads_with_one_stack_count_in_one_cell() {
    loom::model(|| {
        struct Tables {
            slots: Vec<AtomicU64>,
            infos: Vec<StackInfo>,
            frames: Vec<AtomicU64>,
            cells: Vec<Cell>,
            next: Next,
            events: AtomicU32,
        }
        fn cell(tables: &Tables) -> Option<u32> {
            let stacks = Stacks {
                slots: &tables.slots,
                infos: &tables.infos,
                frames: &tables.frames,
                cells: &tables.cells,
                next: &tables.next,
                module_events: &tables.events,
            };
            stacks.cell(7, &[1, 2], 0x9000_0000_0000_0001, false, 1)
        }
        let tables = Arc::new(Tables {
            slots: (0..2).map(|_| AtomicU64::new(0)).collect(),
            infos: (0..2).map(|_| StackInfo::default()).collect(),
            frames: (0..4).map(|_| AtomicU64::new(0)).collect(),
            cells: (0..4).map(|_| Cell::default()).collect(),
            next: Next::default(),
            events: AtomicU32::new(0),
        });
        tables.next.cell.store(1, Ordering::Relaxed);
        let other = {
            let tables = Arc::clone(&tables);
            thread::spawn(move || cell(&tables))
        };
        let ours = cell(&tables).expect("there is room");
        assert_eq!(other.join().expect("it does not panic"), Some(ours));
        let stack = tables.cells[ours as usize].stack.load(Ordering::Acquire) - 1;
        let info = &tables.infos[stack as usize];
        assert_eq!(info.site.load(Ordering::Acquire), 7);
        let at = info.frames_at.load(Ordering::Relaxed) as usize;
        assert_eq!(tables.frames[at].load(Ordering::Relaxed), 1);
    });
}

#[test]
fn ring_read_while_it_wraps_returns_whole_events() {
    const PLACES: usize = 2;
    const EVENTS: u32 = 3;
    struct Ring {
        /// The events are plain memory. loom reports an error if the counters `written` and `read` do not
        /// order two accesses to the same event.
        events: Vec<UnsafeCell<u64>>,
        written: AtomicU32,
        read: AtomicU32,
    }
    // SAFETY: the model checks that no two threads access an event at the same time.
    unsafe impl Sync for Ring {}
    /// Reads the events that wait in the ring. Returns the number of all events that the collector has read
    /// since the start.
    fn look(ring: &Ring, seen: u32) -> u32 {
        let waiting = event::waiting(&ring.written, seen, PLACES);
        for number in seen..seen + waiting {
            // SAFETY: loom reports an error if another thread accesses this event at the same time.
            let event = ring.events[number as usize % PLACES].with(|event| unsafe { *event });
            assert_eq!(event, u64::from(number) + 1);
        }
        ring.read.store(seen + waiting, Ordering::Release);
        seen + waiting
    }
    loom::model(|| {
        let ring = Arc::new(Ring {
            events: (0..PLACES).map(|_| UnsafeCell::new(0)).collect(),
            written: AtomicU32::new(0),
            read: AtomicU32::new(0),
        });
        let collector = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || (0..2).fold(0, |seen, _| look(&ring, seen)))
        };
        let mut number = 0;
        for _ in 0..EVENTS {
            // If the ring is full, the event is lost.
            let Some(place) = event::next_place(&ring.written, &ring.read, PLACES) else { continue };
            number += 1;
            // SAFETY: loom reports an error if another thread accesses this event at the same time.
            ring.events[place].with_mut(|event| unsafe { *event = number });
            event::publish_next(&ring.written);
        }
        let seen = collector.join().expect("it does not panic");
        assert_eq!(u64::from(look(&ring, seen)), number, "every event that found a place was read");
    });
}

/// One thread unmaps a range of addresses, and then the kernel gives the same range to another thread, which
/// calls mmap.
#[test]
fn a_range_that_changes_hands_is_unmapped_before_it_is_mapped_again() {
    const PLACES: usize = 2;
    struct Memory {
        slots: Vec<MappingSlot>,
        written: AtomicU32,
        read: AtomicU32,
        /// The kernel's state: whether the range is mapped.
        is_mapped: AtomicU32,
    }
    fn ring(memory: &Memory) -> MappingRing<'_> {
        MappingRing { slots: &memory.slots, written: &memory.written, read: &memory.read }
    }
    let event =
        |operation| MappingEvent { operation, flags: 0, address: 4096, length: 8, site: 2, direct: 2 };
    loom::model(move || {
        let memory = Arc::new(Memory {
            slots: (0..PLACES).map(|_| MappingSlot::default()).collect(),
            written: AtomicU32::new(0),
            read: AtomicU32::new(0),
            is_mapped: AtomicU32::new(1),
        });
        let unmapper = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                ring(&memory).push(event(Operation::Unmap)).expect("there is room");
                memory.is_mapped.store(0, Ordering::Release);
            })
        };
        let mapper = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                // The kernel gives the range to a thread only after the range is unmapped.
                let is_given = memory.is_mapped.load(Ordering::Acquire) == 0;
                is_given.then(|| ring(&memory).push(event(Operation::Map)).expect("there is room"))
            })
        };
        // The collector reads the ring while the two threads write. The collector must see only complete
        // events, in order.
        let early = ring(&memory).get(0);
        assert!(early.is_none_or(|found| found == event(Operation::Unmap)));
        unmapper.join().expect("it does not panic");
        let mapped = mapper.join().expect("it does not panic");
        assert_eq!(ring(&memory).get(0), Some(event(Operation::Unmap)));
        if mapped.is_some() {
            assert_eq!((mapped, ring(&memory).get(1)), (Some(1), Some(event(Operation::Map))));
        }
    });
}

#[test]
fn a_full_mapping_ring_refuses_and_overwrites_nothing_unread() {
    loom::model(|| {
        let slots: Vec<MappingSlot> = vec![MappingSlot::default()];
        let memory = Arc::new((slots, AtomicU32::new(0), AtomicU32::new(0)));
        let event = |address| MappingEvent {
            operation: Operation::Map,
            flags: 0,
            address,
            length: 8,
            site: 2,
            direct: 2,
        };
        let producers: Vec<_> = [10, 20]
            .into_iter()
            .map(|address| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    let (slots, written, read) = &*memory;
                    MappingRing { slots, written, read }.push(event(address))
                })
            })
            .collect();
        let (slots, written, read) = &*memory;
        let ring = MappingRing { slots, written, read };
        let first = ring.get(0);
        if first.is_some() {
            read.store(1, Ordering::Release);
        }
        let numbers: Vec<_> = producers.into_iter().map(|one| one.join().expect("no panic")).collect();
        let accepted = numbers.iter().flatten().count();
        assert!(accepted == 1 || (accepted == 2 && first.is_some()), "{numbers:?}");
        if first.is_none() {
            assert!(ring.get(0).is_some_and(|found| [10, 20].contains(&found.address)));
        }
    });
}

/// Two threads report objects while the collector reads the ring. The ring has room for one event at a time.
#[test]
fn pool_ring_overwrites_no_event_that_is_not_read() {
    loom::model(|| {
        let slots: Vec<PoolSlot> =
            (0..pool::SLACK + pool::RESERVE + 1).map(|_| PoolSlot::default()).collect();
        let memory = Arc::new((PoolState::default(), slots));
        fn ring(memory: &(PoolState, Vec<PoolSlot>)) -> PoolRing<'_> {
            PoolRing { state: &memory.0, names: &[], slots: &memory.1 }
        }
        let event = |number: u64| PoolEvent {
            operation: pool::Operation::Alloc,
            pool: number,
            address: number,
            size: number,
            direct: number as u16,
            caller: number as u16,
        };
        let producers: Vec<_> = [10, 20]
            .into_iter()
            .map(|number| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || u64::from(ring(&memory).push(event(number))) * number)
            })
            .collect();
        let mut read = Vec::new();
        let mut look = || {
            while let Some(found) = ring(&memory).get(read.len() as u32) {
                assert!(found == event(found.pool), "an event is whole");
                read.push(found.pool);
                memory.0.read.0.store(read.len() as u32, Ordering::Release);
            }
        };
        look();
        let mut accepted: Vec<u64> = producers.into_iter().map(|one| one.join().expect("no panic")).collect();
        look();
        accepted.retain(|&number| number > 0);
        accepted.sort_unstable();
        read.sort_unstable();
        assert!(!accepted.is_empty() && read == accepted, "accepted {accepted:?}, read {read:?}");
    });
}

/// Two images claim a session while the collector refills the slot of a claimed session.
#[test]
fn two_images_never_claim_the_same_session() {
    loom::model(|| {
        let number = || AtomicU32::new(0);
        let page = Arc::new(Control {
            magic: AtomicU64::new(MAGIC),
            version: number(),
            root_pid: number(),
            children: number(),
            domains: number(),
            missed: number(),
            claims: number(),
            others: number(),
            wakes: number(),
            nonce: AtomicU64::new(1),
            slots: [Slot::default(), Slot::default()],
        });
        page.slots[0].put(40);
        let images: Vec<_> = (0..2)
            .map(|_| {
                let page = Arc::clone(&page);
                thread::spawn(move || page.claim())
            })
            .collect();
        if page.slots[0].take_claimed() {
            page.slots[0].put(41);
        }
        let claimed: Vec<_> = images.into_iter().map(|one| one.join().expect("no panic")).collect();
        let sessions: Vec<u32> = claimed.iter().flatten().map(|claimed| claimed.fd).collect();
        assert!(matches!(sessions[..], [40] | [40, 41] | [41, 40]), "{sessions:?}");
        let numbers: Vec<u32> = claimed.iter().flatten().map(|claimed| claimed.number).collect();
        assert!(numbers.len() < 2 || numbers[0] != numbers[1], "{numbers:?}");
    });
}
