//! The objects that the program's own pools have handed out, and the counters of the sites that asked for
//! these objects.
//!
//! The program identifies each pool by an address. Two pools may have an object at the same address, because
//! a pool may take its memory from another pool. So only the pool and the address together identify an
//! object.

use crate::recording::pools::poisoned::{Poisoned, SiteIndex};
use edleak_format::{Counters, SiteId};
use edleak_session::pool::{Operation, PoolEvent};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// If there are more than this number of live objects, the collector counts no further objects, so that the
/// memory of the collector stays bounded.
const MOST_OBJECTS: usize = 1 << 25;
/// Maximum number of names of pools. If a program uses more names, the pools with the additional names count
/// as pools without a name.
const MOST_NAMES: usize = 1 << 16;
/// The name of the pool that contains all objects that the program marks with ASan's poisoning macros.
const POISONED_NAME: &str = "memory that the program poisons";
/// When the program resets a pool (frees all its objects), the ledger empties its list of the pool's objects.
/// If the list has room for more than this number of objects, the ledger also frees the memory of the list.
const KEPT_ROOM: usize = 256;

/// A map whose keys are addresses or small numbers.
type Addresses<T> = HashMap<u64, T, BuildHasherDefault<AddressHasher>>;

/// Computes the hash of one number. The hash function of the standard library would take as long as all other
/// work for an event.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

/// A site that gets objects from pools with one name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PoolSite {
    /// The index of the pool's name in the ledger's list of names.
    pub(crate) name: u32,
    /// The session id of the return address in the pool's own function, which reports an object to edleak; 0:
    /// there is no such address.
    pub(crate) direct: u16,
    /// The session id of the return address in the program's function that called the pool's function; 0:
    /// unknown.
    pub(crate) caller: u16,
    /// The site's ID in the trace; `None`: the trace does not contain the site yet.
    pub(crate) in_trace: Option<SiteId>,
}

impl PoolSite {
    fn key(name: u32, direct: u16, caller: u16) -> u64 {
        u64::from(name) << 32 | u64::from(direct) << 16 | u64::from(caller)
    }
}

#[derive(Clone, Copy, Debug)]
struct Object {
    size: u64,
    owner: SiteIndex,
}

#[derive(Clone, Default, Debug)]
struct Pool {
    name: u32,
    objects: Addresses<Object>,
}

/// The live objects of all pools of one process, and the counters of the sites that got these objects.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pools: Addresses<Pool>,
    poisoned: Poisoned,
    /// The names of pools; the first name is empty and stands for pools without a name.
    names: Vec<String>,
    /// The index of [`POISONED_NAME`] in `names`; `None`: the program has poisoned no memory yet.
    poisoned_name: Option<u32>,
    sites: Vec<PoolSite>,
    counters: Vec<Counters>,
    owners: Addresses<SiteIndex>,
    /// Number of live objects.
    live: usize,
    /// Maximum number of live objects in the ledger.
    most: usize,
    /// Number of objects for which the ledger had no room.
    refused: u64,
    /// Number of objects that a pool took back although the pool had not handed these objects out.
    unknown_frees: u64,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger {
            pools: Addresses::default(),
            poisoned: Poisoned::default(),
            names: vec![String::new()],
            poisoned_name: None,
            sites: Vec::new(),
            counters: Vec::new(),
            owners: Addresses::default(),
            live: 0,
            most: MOST_OBJECTS,
            refused: 0,
            unknown_frees: 0,
        }
    }
}

impl Ledger {
    /// The sites that get objects from pools. The ledger refers to a site by its index in this list.
    pub(crate) fn sites(&self) -> &[PoolSite] {
        &self.sites
    }

    /// Gives a site its ID in the trace.
    pub(crate) fn set_in_trace(&mut self, owner: usize, id: SiteId) {
        self.sites[owner].in_trace = Some(id);
    }

    /// The names of pools; the first name is empty and stands for pools without a name.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The counters of each site, in the order of [`Ledger::sites`].
    pub(crate) fn by_owner(&self) -> &[Counters] {
        &self.counters
    }

    /// The sites that are in the trace, each with its counters.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (SiteId, Counters)> {
        let all = self.sites.iter().zip(&self.counters);
        all.filter_map(|(site, counters)| Some((site.in_trace?, *counters)))
    }

    /// Number of pools that hold objects.
    pub(crate) fn pools(&self) -> u64 {
        let of_program = self.pools.values().filter(|pool| !pool.objects.is_empty()).count();
        of_program as u64 + u64::from(!self.poisoned.is_empty())
    }

    /// Number of objects for which the ledger or the trace has no room. The number also includes the objects
    /// of new sites, which the trace does not contain yet. At the next slice, the collector adds the new
    /// sites to the trace if there is room; then the number no longer includes the objects of these sites.
    pub(crate) fn refused(&self) -> u64 {
        let all = self.sites.iter().zip(&self.counters);
        let unnamed = all.filter(|(site, _)| site.in_trace.is_none());
        self.refused + unnamed.map(|(_, counters)| counters.allocs).sum::<u64>()
    }

    /// Number of objects that a pool took back although the pool had not handed these objects out.
    pub(crate) fn unknown_frees(&self) -> u64 {
        self.unknown_frees
    }

    /// Changes the objects and counters as an event reports. `name` returns the pool name at an index in the
    /// session.
    pub(crate) fn apply(&mut self, event: &PoolEvent, name: impl FnOnce(u64) -> String) {
        let PoolEvent { operation, pool, address, size, .. } = *event;
        match operation {
            Operation::Alloc => self.alloc(event),
            Operation::Free => {
                match self.pools.get_mut(&pool).and_then(|pool| pool.objects.remove(&address)) {
                    Some(object) => self.count_freed(object.owner, object.size),
                    None => self.unknown_frees += 1,
                }
            }
            Operation::Reset => self.reset(pool),
            Operation::Name => {
                let name = self.name(name(address));
                self.pools.entry(pool).or_default().name = name;
            }
            Operation::Trim => self.trim(pool, address, size),
            Operation::Move => {
                if pool != address {
                    self.reset(address);
                    if let Some(moved) = self.pools.remove(&pool) {
                        self.pools.insert(address, moved);
                    }
                }
            }
            Operation::Poison => {
                let Ledger { poisoned, counters, live, .. } = self;
                poisoned.poison(address, size, |owner, bytes, is_last| {
                    count_freed(counters, owner, bytes, is_last);
                    *live -= usize::from(is_last);
                });
            }
            Operation::Unpoison => self.unpoison(event),
            Operation::Mark => {} // a mark changes no object
        }
    }

    fn alloc(&mut self, event: &PoolEvent) {
        let pool = self.pools.get(&event.pool);
        let name = pool.map_or(0, |pool| pool.name);
        // If the new object replaces an object at the same address, it needs no additional room.
        let replaces = || pool.is_some_and(|pool| pool.objects.contains_key(&event.address));
        if self.live >= self.most && !replaces() {
            self.refused += 1;
            return;
        }
        let owner = self.owner(name, event.direct, event.caller);
        let object = Object { size: event.size, owner };
        let replaced = self.pools.entry(event.pool).or_default().objects.insert(event.address, object);
        self.live += 1;
        if let Some(replaced) = replaced {
            // The pool must have taken the replaced object back without an event, so the replaced object
            // counts as freed.
            self.count_freed(replaced.owner, replaced.size);
        }
        self.count_allocated(owner, event.size);
    }

    fn unpoison(&mut self, event: &PoolEvent) {
        let Ledger { poisoned, counters, live, .. } = self;
        let is_object = poisoned.unpoison(event.address, event.size, |owner, bytes, is_last| {
            count_freed(counters, owner, bytes, is_last);
            *live -= usize::from(is_last);
        });
        if !is_object {
            return;
        }
        if self.live >= self.most {
            self.refused += 1;
            return;
        }
        let name = match self.poisoned_name {
            Some(name) => name,
            None => {
                let name = self.name(POISONED_NAME.to_owned());
                self.poisoned_name = Some(name);
                name
            }
        };
        let owner = self.owner(name, event.direct, event.caller);
        self.poisoned.hand_out(event.address, event.size, owner);
        self.live += 1;
        self.count_allocated(owner, event.size);
    }

    /// Counts all objects of a pool as freed.
    fn reset(&mut self, pool: u64) {
        let Ledger { pools, counters, live, .. } = self;
        let Some(found) = pools.get_mut(&pool) else { return };
        *live -= found.objects.len();
        for object in found.objects.values() {
            count_freed(counters, object.owner, object.size, true);
        }
        if found.name == 0 {
            pools.remove(&pool);
        } else if found.objects.capacity() > KEPT_ROOM {
            found.objects = Addresses::default();
        } else {
            found.objects.clear();
        }
    }

    /// Counts the objects of a pool that are outside a range as freed. If an object is partly in the range,
    /// only its bytes outside the range count as freed.
    fn trim(&mut self, pool: u64, start: u64, size: u64) {
        let end = start.saturating_add(size);
        let Ledger { pools, counters, live, .. } = self;
        let Some(found) = pools.get_mut(&pool) else { return };
        let mut moved = Vec::new();
        found.objects.retain(|&address, object| {
            let (from, to) = (address.max(start), address.saturating_add(object.size).min(end));
            let kept = to.saturating_sub(from);
            let is_kept = kept > 0 || (object.size == 0 && (start..end).contains(&address));
            count_freed(counters, object.owner, object.size - kept, !is_kept);
            *live -= usize::from(!is_kept);
            object.size = kept;
            if is_kept && from != address {
                moved.push((from, *object));
            }
            is_kept && from == address
        });
        found.objects.extend(moved);
    }

    /// The index of a pool's name in the list of names. If the list of names does not contain the name, the
    /// function adds the name. The result is 0 if the name is empty or if the list is full.
    fn name(&mut self, name: String) -> u32 {
        let known = self.names.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            if self.names.len() >= MOST_NAMES {
                return 0;
            }
            self.names.push(name);
            self.names.len() - 1
        });
        index as u32
    }

    fn owner(&mut self, name: u32, direct: u16, caller: u16) -> SiteIndex {
        let Ledger { owners, sites, counters, .. } = self;
        *owners.entry(PoolSite::key(name, direct, caller)).or_insert_with(|| {
            sites.push(PoolSite { name, direct, caller, in_trace: None });
            counters.push(Counters::ZERO);
            (sites.len() - 1) as SiteIndex
        })
    }

    fn count_allocated(&mut self, owner: SiteIndex, bytes: u64) {
        let counters = &mut self.counters[owner as usize];
        counters.allocs += 1;
        counters.allocated_bytes = counters.allocated_bytes.wrapping_add(bytes);
    }

    fn count_freed(&mut self, owner: SiteIndex, bytes: u64) {
        self.live -= 1;
        count_freed(&mut self.counters, owner, bytes, true);
    }

    /// The ledger of a forked child. The child's counters begin with the live objects of the parent.
    /// `is_same` tells whether the ID of a site stands for the same code address in the child as in the
    /// parent.
    pub(crate) fn inherited(&self, is_same: impl Fn(u16) -> bool) -> Ledger {
        let mut own = self.clone();
        let is_known = |site: &PoolSite| is_same(site.direct) && is_same(site.caller);
        let known: Vec<bool> = own.sites.iter().map(is_known).collect();
        let is_kept = |owner: SiteIndex| known.get(owner as usize).copied().unwrap_or(false);
        own.pools.values_mut().for_each(|pool| pool.objects.retain(|_, object| is_kept(object.owner)));
        own.poisoned.retain(is_kept);
        own.sites.iter_mut().for_each(|site| site.in_trace = None);
        own.counters.iter_mut().for_each(|counters| *counters = Counters::ZERO);
        // A site that the parent added after the fork can have an ID that belongs to another site in the
        // child.
        own.owners.retain(|_, owner| is_kept(*owner));
        (own.live, own.refused, own.unknown_frees) = (0, 0, 0);
        let objects = own.pools.values().flat_map(|pool| pool.objects.values());
        let objects = objects.map(|object| (object.owner, object.size, true));
        let live: Vec<(SiteIndex, u64, bool)> = objects.chain(own.poisoned.pieces()).collect();
        for (owner, bytes, is_first) in live {
            let counters = &mut own.counters[owner as usize];
            counters.allocs += u64::from(is_first);
            counters.allocated_bytes = counters.allocated_bytes.wrapping_add(bytes);
            own.live += usize::from(is_first);
        }
        own
    }
}

fn count_freed(counters: &mut [Counters], owner: SiteIndex, bytes: u64, is_last: bool) {
    let counters = &mut counters[owner as usize];
    counters.frees += u64::from(is_last);
    counters.freed_bytes = counters.freed_bytes.wrapping_add(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(operation: Operation, pool: u64, address: u64, size: u64) -> PoolEvent {
        PoolEvent { operation, pool, address, size, direct: 3, caller: 4 }
    }

    fn apply(ledger: &mut Ledger, events: &[(Operation, u64, u64, u64)]) {
        for &(operation, pool, address, size) in events {
            ledger.apply(&event(operation, pool, address, size), |index| format!("name {index}"));
        }
    }

    fn counted(ledger: &Ledger) -> Vec<[u64; 4]> {
        let of = |one: &Counters| [one.allocs, one.allocated_bytes, one.frees, one.freed_bytes];
        ledger.counters.iter().map(of).collect()
    }

    #[test]
    fn two_pools_hold_objects_at_one_address_and_a_reset_frees_those_of_its_pool() {
        use Operation::{Alloc, Free, Reset};
        let mut ledger = Ledger::default();
        apply(&mut ledger, &[(Alloc, 1, 100, 4096), (Alloc, 2, 100, 16), (Alloc, 2, 116, 16)]);
        apply(&mut ledger, &[(Reset, 2, 0, 0), (Free, 2, 100, 0), (Free, 1, 999, 0), (Reset, 7, 0, 0)]);
        assert_eq!(counted(&ledger), [[3, 4096 + 32, 2, 32]]);
        assert_eq!((ledger.unknown_frees(), ledger.pools(), ledger.live), (2, 1, 1));
        apply(&mut ledger, &[(Free, 1, 100, 0)]);
        assert_eq!((counted(&ledger), ledger.live), (vec![[3, 4096 + 32, 3, 4096 + 32]], 0));
    }

    #[test]
    fn an_object_handed_out_twice_counts_as_taken_back_in_between() {
        let mut ledger = Ledger::default();
        apply(&mut ledger, &[(Operation::Alloc, 1, 100, 8), (Operation::Alloc, 1, 100, 5)]);
        assert_eq!((counted(&ledger), ledger.live), (vec![[2, 13, 1, 8]], 1));
    }

    #[test]
    fn a_full_ledger_refuses_further_objects_but_takes_frees_and_replacements() {
        use Operation::{Alloc, Free, Poison, Unpoison};
        let mut ledger = Ledger { most: 2, ..Ledger::default() };
        apply(&mut ledger, &[(Poison, 0, 4096, 4096), (Unpoison, 0, 4096, 64), (Alloc, 1, 8, 10)]);
        apply(&mut ledger, &[(Alloc, 1, 16, 10), (Unpoison, 0, 5000, 8)]);
        assert_eq!((ledger.live, ledger.refused), (2, 2));
        // The second object at an address replaces the first object.
        apply(&mut ledger, &[(Alloc, 1, 8, 30)]);
        assert_eq!((ledger.live, ledger.refused), (2, 2));
        // The ledger has no room for the new object. Still, it removes the bytes of the new object from the
        // older object at the same addresses.
        apply(&mut ledger, &[(Unpoison, 0, 4096, 32)]);
        assert_eq!((ledger.live, ledger.refused), (2, 3));
        assert_eq!(counted(&ledger), [[1, 64, 0, 32], [2, 40, 1, 10]]);
        // When the program gives a chunk back, the objects in the chunk are freed, so the ledger has room
        // again.
        apply(&mut ledger, &[(Unpoison, 0, 4096, 4096), (Alloc, 1, 16, 10), (Free, 1, 8, 0)]);
        assert_eq!((ledger.live, ledger.refused), (1, 3));
    }

    #[test]
    fn memory_that_is_no_object_makes_no_site() {
        let mut ledger = Ledger::default();
        apply(&mut ledger, &[(Operation::Unpoison, 0, 1 << 40, 64)]);
        assert_eq!((ledger.sites().len(), ledger.names()), (0, [String::new()].as_slice()));
    }

    #[test]
    fn pools_of_one_name_share_their_sites_and_a_moved_pool_keeps_its_name() {
        use Operation::{Alloc, Free, Move, Name, Reset};
        let mut ledger = Ledger::default();
        apply(&mut ledger, &[(Alloc, 1, 8, 1), (Name, 1, 5, 0), (Name, 2, 5, 0), (Alloc, 1, 9, 10)]);
        apply(&mut ledger, &[(Alloc, 2, 9, 100), (Move, 2, 3, 0), (Alloc, 3, 10, 1000), (Free, 3, 9, 0)]);
        assert_eq!(ledger.names(), ["", "name 5"]);
        assert_eq!(counted(&ledger), [[1, 1, 0, 0], [3, 1110, 1, 100]]);
        // A named pool that is reset keeps its name; the address of an unnamed pool is forgotten.
        apply(&mut ledger, &[(Reset, 1, 0, 0), (Alloc, 1, 9, 7)]);
        assert_eq!(counted(&ledger), [[1, 1, 1, 1], [4, 1117, 2, 110]]);
    }

    #[test]
    fn a_trim_frees_what_lies_outside_and_cuts_what_reaches_beyond() {
        use Operation::{Alloc, Free, Trim};
        let mut ledger = Ledger::default();
        apply(&mut ledger, &[(Alloc, 1, 0, 10), (Alloc, 1, 10, 10), (Alloc, 1, 20, 10), (Alloc, 1, 30, 10)]);
        apply(&mut ledger, &[(Trim, 1, 15, 10)]);
        assert_eq!(counted(&ledger), [[4, 40, 2, 30]]);
        apply(&mut ledger, &[(Free, 1, 15, 0), (Free, 1, 20, 0)]);
        assert_eq!((counted(&ledger), ledger.unknown_frees()), (vec![[4, 40, 4, 40]], 0));
    }

    #[test]
    fn a_child_begins_with_the_objects_of_its_parent_at_sites_that_both_know() {
        use Operation::{Alloc, Free, Poison, Unpoison};
        let mut ledger = Ledger::default();
        apply(&mut ledger, &[(Alloc, 1, 8, 10), (Alloc, 1, 16, 20), (Free, 1, 8, 0)]);
        apply(&mut ledger, &[(Poison, 0, 4096, 4096), (Unpoison, 0, 4096, 64)]);
        ledger.apply(&PoolEvent { direct: 9, ..event(Alloc, 1, 24, 40) }, |_| String::new());
        let mut child = ledger.inherited(|id| id != 9);
        assert_eq!(counted(&child), [[1, 20, 0, 0], [1, 64, 0, 0], [0, 0, 0, 0]]);
        assert_eq!(child.live, 2);
        apply(&mut child, &[(Free, 1, 16, 0), (Free, 1, 24, 0)]);
        assert_eq!((counted(&child)[0], child.unknown_frees()), ([1, 20, 1, 20], 1));
    }
}
