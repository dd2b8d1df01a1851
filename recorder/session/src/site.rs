//! The site table: finds the site of a return address, and the action for an allocation from this address.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::rule::Rule;

/// Number of bits of a slot's index in the site table. The table has twice as many slots as sites, so that
/// searches are short.
pub const SLOT_BITS: u32 = 17;
/// Number of slots in the site table.
pub const SLOTS: usize = 1 << SLOT_BITS;
/// Every site id is less than 65,536. Id 0 means that there is no site; id 1 is [`OTHER`].
pub const MAX_SITES: usize = 1 << 16;
/// The site that counts all allocations whose caller is not in the site table, because the table had no free
/// slot.
pub const OTHER: u32 = 1;
/// The first site id that a caller can get.
pub const FIRST: u32 = 2;
/// Number of bits of an index into the near region: the first 1,024 slots of the site table. Every search for
/// a return address begins in the near region, so the sites of a small program lie on few pages of the table.
const NEAR_BITS: u32 = 10;
const NEAR: usize = 1 << NEAR_BITS;
const _: () = assert!(NEAR < SLOTS / 2);
/// Number of slots of the near region (the first 1,024 slots of the site table) that a search examines before
/// it continues in the rest of the table.
const NEAR_PROBES: usize = 8;
/// Number of slots after the near region (the first 1,024 slots of the site table) that a search examines. If
/// none of these 64 slots is free, the search treats the site table as full.
const MAX_PROBES: usize = 64;
const _: () = assert!(SLOTS >= 2 * MAX_SITES);

/// One slot: a return address, with its site id and its action. If a thread reads a slot that has a key and
/// no id, another thread has not finished the insertion. The reading thread then stores an id itself.
#[repr(C, align(16))]
#[derive(Default)]
pub struct SiteSlot {
    /// The return address; 0: the slot is empty. After a thread has written the key, the key never changes,
    /// so a reader cannot confuse two addresses.
    pub key: AtomicU64,
    /// The site's id in the low half (0: no id) and an [`Action`] in the high half (0: count at this site).
    /// If the slot has an id, this 64-bit value is less than 2³² if and only if the action is to count at
    /// this site. If the slot has no id, the high half is the id that the address had while another module
    /// was loaded at this address, or 0 if the address never had an id.
    pub meaning: AtomicU64,
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<SiteSlot>() == 16);

/// Packs a site id and an action into one 64-bit value.
pub const fn meaning(id: u32, action: Action) -> u64 {
    (action.0 as u64) << 32 | id as u64
}

impl SiteSlot {
    /// The id and the action of the site. The id is 0 if the site has no id yet, or has just lost its id.
    pub fn id_and_action(&self) -> (u32, Action) {
        let meaning = self.meaning.load(Ordering::Acquire);
        match meaning as u32 {
            0 => (0, Action::COUNT),
            id => (id, Action((meaning >> 32) as u32)),
        }
    }

    /// The site's id; 0: the slot has no id.
    pub fn id(&self) -> u32 {
        self.id_and_action().0
    }

    /// The action of the slot: how the hook handles an allocation whose call returns to the slot's address.
    pub fn action(&self) -> Action {
        self.id_and_action().1
    }

    /// Forgets the id of the slot, so that the next allocation from this address gets a site in the module
    /// that is now loaded at this address. The slot remembers the old id, because the old module may be
    /// loaded again.
    pub fn forget(&self) {
        let id = self.id();
        if id != 0 {
            self.meaning.store(u64::from(id) << 32, Ordering::Release);
        }
    }

    /// Changes the action of the slot, and keeps the site id of the slot.
    pub fn set_action(&self, action: Action) {
        let mut old = self.meaning.load(Ordering::Acquire);
        while old as u32 != 0 {
            let new = meaning(old as u32, action);
            match self.meaning.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }
}

/// The data about one site id, which the collector reads.
#[repr(C)]
#[derive(Default)]
pub struct SiteInfo {
    /// The return address; 0 until the id is in use.
    pub address: AtomicU64,
    /// The number of the module event that reported the first load of this site's module. If the library does
    /// not know this event, `events_before` is the number of module events before the site's first
    /// allocation. From `events_before`, the collector finds the module that contained the site's address.
    pub events_before: AtomicU32,
    /// Another id of the same address, from a time when another module was loaded at this address. The ids of
    /// one address form a ring; 0: the address has had only one id.
    pub same_address: AtomicU32,
}
#[cfg(not(edleak_loom))]
const _: () = assert!(core::mem::size_of::<SiteInfo>() == 16);

/// The action that a hook takes for a return address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action(pub u32);

impl Action {
    /// The hook counts the allocation at the return address of the slot.
    pub const COUNT: Action = Action(0);
    /// The hook records the full stack. No kind of [`Rule`] has the number 5, so no rule can be mistaken for
    /// this action.
    pub const WATCH: Action = Action(5);
    /// The return address is in the dynamic loader, which perhaps allocates a `link_map` there.
    pub const LOADER: Action = Action(6);

    /// The action for a frame that the hook skips: the hook finds the caller of the frame by `rule`, and
    /// looks up the action for this caller.
    pub const fn step(rule: Rule) -> Action {
        Action(rule.0)
    }

    /// If the action is to skip a frame: the rule by which the hook finds the caller of the frame. `None`:
    /// the action is another one.
    #[inline]
    pub fn as_step(self) -> Option<Rule> {
        use crate::rule::Kind;
        let rule = Rule(self.0);
        matches!(rule.kind(), Kind::Sp | Kind::Fp).then_some(rule)
    }
}

/// The slots in which a return address may be stored, in search order. The index is a Fibonacci hash: the
/// addresses of neighbouring calls differ only in their low bits, and the hash spreads these bits over the
/// whole index.
fn places(slots: &[SiteSlot], address: u64) -> impl Iterator<Item = &SiteSlot> {
    let hash = address.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let first_of = |bits: u32| (hash >> (64 - bits)) as usize;
    let near = first_of(NEAR_BITS);
    let near = (0..NEAR_PROBES).map(move |probe| (near + probe) % NEAR);
    // If the first `NEAR_PROBES` slots contain neither the address nor a free slot, the near region is nearly
    // full. So the search then examines only slots outside the near region.
    let first = first_of(SLOT_BITS);
    let first = if first < NEAR { first + SLOTS / 2 } else { first };
    let beyond =
        (first..first + MAX_PROBES).map(|index| if index < SLOTS { index } else { index - SLOTS + NEAR });
    near.chain(beyond).filter_map(|index| slots.get(index & slots.len().wrapping_sub(1)))
}

/// The slot of a return address; `None`: the table does not contain this address.
pub fn find(slots: &[SiteSlot], address: u64) -> Option<&SiteSlot> {
    let key = |slot: &&SiteSlot| slot.key.load(Ordering::Acquire);
    places(slots, address).take_while(|slot| key(slot) != 0).find(|slot| key(slot) == address)
}

/// Puts a return address, with its site id and its action, into a table that no other thread uses yet. If the
/// table already contains the address, `copy_into` does nothing.
pub fn copy_into(slots: &[SiteSlot], address: u64, meaning: u64) {
    let place = places(slots, address).find(|slot| [0, address].contains(&slot.key.load(Ordering::Relaxed)));
    if let Some(slot) = place.filter(|slot| slot.key.load(Ordering::Relaxed) == 0) {
        slot.key.store(address, Ordering::Relaxed);
        slot.meaning.store(meaning, Ordering::Relaxed);
    }
}

/// Finds the slot of `address`, or creates a slot with an id from `next_id`.
///
/// `intern` takes no lock. A signal handler may call `intern`, even if the signal interrupted an insertion.
/// If a thread finds a key without an id, the thread takes a new id and stores it; only the first stored id
/// counts. (If two threads find the same key without an id, the id of the second thread is never used.)
/// `None`: the table is full, and the allocation belongs to [`OTHER`].
///
/// For a slot without an id, `intern` calls `on_new`, which returns the number of the module at the address
/// (see [`SiteInfo::events_before`]) and the action. If the same module was loaded at `address` earlier, the
/// slot gets the id of that time again.
pub fn intern<'t>(
    slots: &'t [SiteSlot],
    infos: &[SiteInfo],
    next_id: &AtomicU32,
    address: u64,
    on_new: impl Fn() -> (u32, Action),
) -> Option<&'t SiteSlot> {
    for slot in places(slots, address) {
        let mut key = slot.key.load(Ordering::Acquire);
        if key == 0 {
            // Store an address in a free slot only while unused site ids are left. Otherwise, slots without
            // an id would fill the table.
            if next_id.load(Ordering::Relaxed) as usize >= infos.len() {
                return None;
            }
            key = match slot.key.compare_exchange(0, address, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => address,
                Err(theirs) => theirs,
            };
        }
        if key != address {
            continue;
        }
        if slot.meaning.load(Ordering::Acquire) as u32 == 0 {
            give_id(slot, infos, next_id, address, &on_new)?;
        }
        return Some(slot);
    }
    None
}

#[cold]
fn give_id(
    slot: &SiteSlot,
    infos: &[SiteInfo],
    next_id: &AtomicU32,
    address: u64,
    on_new: &impl Fn() -> (u32, Action),
) -> Option<()> {
    let old = slot.meaning.load(Ordering::Acquire);
    if old as u32 != 0 {
        return Some(()); // another thread has stored an id
    }
    let last = (old >> 32) as u32;
    let (module, action) = on_new();
    if let Some(id) = id_of_module(infos, last, address, module) {
        let _ = slot.meaning.compare_exchange(old, meaning(id, action), Ordering::AcqRel, Ordering::Acquire);
        return Some(());
    }
    let id = next_id.fetch_add(1, Ordering::Relaxed);
    let Some(info) = infos.get(id as usize) else {
        next_id.fetch_sub(1, Ordering::Relaxed);
        return None;
    };
    info.events_before.store(module, Ordering::Relaxed);
    if slot.meaning.compare_exchange(old, meaning(id, action), Ordering::AcqRel, Ordering::Acquire).is_ok() {
        if let Some(before) = infos.get(last as usize).filter(|_| last != 0) {
            let next = before.same_address.load(Ordering::Relaxed);
            info.same_address.store(if next == 0 { last } else { next }, Ordering::Relaxed);
            before.same_address.store(id, Ordering::Release);
        }
        // The collector treats an id as used after the library has stored the address of the id, so the
        // library stores the address last.
        info.address.store(address, Ordering::Release);
    }
    Some(())
}

/// The id that `address` had when `module` was loaded at this address before. All ids of one address form a
/// ring; the search begins at the id `last`.
fn id_of_module(infos: &[SiteInfo], last: u32, address: u64, module: u32) -> Option<u32> {
    /// The maximum number of ids that the search reads. A program loads fewer than 64 modules at one address.
    /// The maximum also ends the search if the target has damaged the ring of ids.
    const MOST: usize = 64;
    let mut id = last;
    for _ in 0..MOST {
        let info = infos.get(id as usize).filter(|_| id != 0)?;
        let is_same = info.events_before.load(Ordering::Relaxed) == module
            && info.address.load(Ordering::Acquire) == address;
        if is_same {
            return Some(id);
        }
        id = info.same_address.load(Ordering::Acquire);
        if id == last {
            return None;
        }
    }
    None
}

#[cfg(all(test, not(edleak_loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn table(sites: usize) -> (Vec<SiteSlot>, Vec<SiteInfo>, AtomicU32) {
        let slots = (0..sites * 2).map(|_| SiteSlot::default()).collect();
        let infos = (0..sites).map(|_| SiteInfo::default()).collect();
        (slots, infos, AtomicU32::new(FIRST))
    }

    // The real table uses the top bits of the hash as index; the small table of a test also masks these bits.
    #[test]
    fn an_address_keeps_its_id_and_ids_are_dense() {
        let (slots, infos, next) = table(64);
        let mut seen = Vec::new();
        for round in 0..2 {
            for i in 0..40u64 {
                let address = 0x5555_0000_0000 + i * 5;
                let slot =
                    intern(&slots, &infos, &next, address, || (0, Action::COUNT)).expect("there is room");
                let id = slot.id();
                if round == 0 {
                    seen.push(id);
                }
                assert_eq!(seen[i as usize], id);
                assert_eq!(infos[id as usize].address.load(Ordering::Relaxed), address);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (FIRST..FIRST + 40).collect::<Vec<_>>());
    }

    #[test]
    fn full_table_reports_it_and_still_finds_known_sites() {
        let (slots, infos, next) = table(16);
        let known: Vec<u64> = (0..14).map(|i| 0x1000 + i * 16).collect();
        for &address in &known {
            assert!(intern(&slots, &infos, &next, address, || (0, Action::COUNT)).is_some());
        }
        for i in 0..100 {
            assert!(intern(&slots, &infos, &next, 0x9000 + i, || (0, Action::COUNT)).is_none());
        }
        for &address in &known {
            assert!(intern(&slots, &infos, &next, address, || (0, Action::COUNT)).is_some());
        }
    }

    #[test]
    fn unfinished_insertion_is_finished_by_the_next_reader() {
        let (slots, infos, next) = table(16);
        let first = places(&slots, 0x4242).next().expect("a table has slots");
        first.key.store(0x4242, Ordering::Relaxed);
        let slot = intern(&slots, &infos, &next, 0x4242, || (0, Action::WATCH)).expect("there is room");
        assert_eq!(slot.id(), FIRST);
        assert_eq!(slot.action(), Action::WATCH);
    }

    #[test]
    fn modules_that_take_turns_at_an_address_keep_their_ids() {
        let (slots, infos, next) = table(64);
        let mut first_ids = Vec::new();
        for round in 0..30 {
            for module in [3, 7, 9] {
                let slot = intern(&slots, &infos, &next, 0x4242, || (module, Action::WATCH)).expect("room");
                if round == 0 {
                    first_ids.push(slot.id());
                }
                let index = [3, 7, 9].iter().position(|one| *one == module).expect("one of them");
                assert_eq!((slot.id(), slot.action()), (first_ids[index], Action::WATCH));
                slot.forget();
                assert_eq!(slot.id_and_action(), (0, Action::COUNT));
                slot.forget(); // the slot has no id, so nothing changes
            }
        }
        assert_eq!(next.load(Ordering::Relaxed), FIRST + 3);
    }

    #[test]
    fn a_damaged_ring_ends_the_search() {
        let (slots, infos, next) = table(16);
        for module in [1, 2] {
            intern(&slots, &infos, &next, 0x4242, || (module, Action::COUNT)).expect("room").forget();
        }
        infos[FIRST as usize].same_address.store(99, Ordering::Relaxed);
        assert!(intern(&slots, &infos, &next, 0x4242, || (5, Action::COUNT)).is_some());
    }

    #[test]
    fn sites_of_a_small_program_lie_on_few_pages() {
        let slots: Vec<_> = (0..SLOTS).map(|_| SiteSlot::default()).collect();
        let infos: Vec<_> = (0..MAX_SITES).map(|_| SiteInfo::default()).collect();
        let next = AtomicU32::new(FIRST);
        let mut state = 7u64;
        let addresses: Vec<u64> = (0..20_001)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                0x7000_0000_0000 + (state >> 40 << 16) + i // all addresses are different
            })
            .collect();
        let address = |i: u64| addresses[i as usize];
        for i in 0..300 {
            intern(&slots, &infos, &next, address(i), || (0, Action::COUNT)).expect("there is room");
        }
        let used =
            slots.iter().rposition(|slot| slot.key.load(Ordering::Relaxed) != 0).expect("there are sites");
        assert!(used < NEAR, "{used}");
        for i in 300..20_000 {
            intern(&slots, &infos, &next, address(i), || (0, Action::COUNT)).expect("there is room");
        }
        for i in 0..20_000 {
            assert_eq!(find(&slots, address(i)).map(SiteSlot::id), Some(FIRST + i as u32));
        }
        assert!(find(&slots, address(20_000)).is_none());
    }

    #[test]
    fn a_copied_table_has_every_site_once() {
        let (slots, infos, next) = table(64);
        let (copy, ..) = table(64);
        for address in [0x1000, 0x2000, 0x3000] {
            let slot = intern(&slots, &infos, &next, address, || (0, Action::WATCH)).expect("there is room");
            copy_into(&copy, address, slot.meaning.load(Ordering::Relaxed));
            copy_into(&copy, address, 0);
        }
        for address in [0x1000, 0x2000, 0x3000] {
            let (from, to) = (find(&slots, address).expect("met"), find(&copy, address).expect("copied"));
            assert_eq!(from.id_and_action(), to.id_and_action());
        }
        assert_eq!(copy.iter().filter(|slot| slot.key.load(Ordering::Relaxed) != 0).count(), 3);
    }

    #[test]
    fn threads_agree_on_every_id() {
        let (slots, infos, next) = table(2048);
        let ids: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..200u64)
                            .map(|i| {
                                intern(&slots, &infos, &next, 0x7000 + i * 3, || (0, Action::COUNT))
                                    .expect("there is room")
                                    .id()
                            })
                            .collect()
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().expect("a worker does not panic")).collect()
        });
        assert!(ids.iter().all(|of_one| of_one == &ids[0]));
        let mut distinct = ids[0].clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 200);
    }
}
