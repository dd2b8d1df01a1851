//! Counts mapped memory by site. The target reports each call of mmap, munmap and similar functions as an
//! event in a ring. From these events, the collector computes the exact address ranges that are mapped, and
//! from these ranges the counters of each site.

pub(crate) mod allocators;
pub(crate) mod ledger;
mod segments;

use crate::recording::domain_marks::CountersAtMarks;
use crate::recording::unpublished::Unpublished;
use crate::rules::modules::Modules;
use crate::sys::shm::Session;
use edleak_format::{Counters, SiteId};
use edleak_session::mapping::{self, MappingEvent, Operation};
use ledger::{GivenBack, Ledger, SiteIndex};
use segments::Segments;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// If the collector finds this number of events or more when it reads the ring, it reads the ring again after
/// [`SOON`].
const MANY: usize = mapping::MAX_EVENTS / 16;
const SOON: Duration = Duration::from_millis(2);
/// If the collector finds fewer than [`MANY`] events when it reads the ring, it reads the ring again after
/// this time. The ring has room for all calls that eight threads can make in 50 ms.
const PAUSE: Duration = Duration::from_millis(50);

/// A site that maps memory. If only some of the calls at a call site come from an allocator, this call site
/// has two mapping sites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappingSite {
    /// The site's ID in the session.
    pub(crate) id: u32,
    /// Whether an allocator makes the calls that map memory at this site. An allocator maps memory for the
    /// program's heap allocations, and edleak already counts these allocations at the sites that make them.
    pub(crate) is_allocator: bool,
    /// The site's ID in the trace; `None`: the trace does not contain the site yet.
    pub(crate) in_trace: Option<SiteId>,
    /// Whether the collector has already searched for the function of this site among the functions of
    /// allocators.
    pub(crate) is_searched: bool,
}

/// The mapped ranges and the counters of sites, as far as the collector has read the events of the target.
#[derive(Default)]
pub(crate) struct Mappings {
    ledger: Ledger,
    /// The sites that map memory. The ledger refers to a site by its index in this list.
    sites: Vec<MappingSite>,
    owners: HashMap<(u32, bool), SiteIndex>,
    /// For each ID of a caller of mmap or a similar function: whether this caller is in an allocator.
    in_allocator: Vec<Option<bool>>,
    /// For each module ID: whether the module is an allocator.
    allocator_modules: HashMap<u32, bool>,
    read: u32,
    unpublished: Unpublished,
    passed_over: u64,
    segments: Segments,
    at_marks: CountersAtMarks,
    /// For each site: the number of bytes given back with madvise, as the collector last wrote it into the
    /// trace.
    told_given_back: Vec<GivenBack>,
    /// Number of events that the collector found when it last read the ring.
    found: usize,
}

/// The process whose events the collector reads.
pub(crate) struct Source<'a> {
    /// The process ID.
    pub(crate) pid: u32,
    /// The session of the process.
    pub(crate) session: &'a Session,
    /// The modules of the process.
    pub(crate) modules: &'a Modules,
}

impl Mappings {
    /// The mappings of a forked child: all mappings of the parent that are also in the child's memory map
    /// `ranges`.
    pub(crate) fn inherited(&self, parent: &Session, child: &Session, ranges: &[(u64, u64)]) -> Mappings {
        let mut own = Mappings::default();
        let address = |session: &Session, id: u32| {
            session.infos().get(id as usize).map_or(0, |info| info.address.load(Ordering::Acquire))
        };
        let Mappings { sites, owners, .. } = &mut own;
        let ledger = self.ledger.inherited(ranges, |owner| {
            let site = self.sites.get(owner)?;
            // The child has the sites that its parent had at the fork. A site that the parent added after the
            // fork can have an ID that belongs to another site in the child.
            let is_same = address(child, site.id) == address(parent, site.id);
            is_same.then(|| owner_of(sites, owners, site.id, site.is_allocator))
        });
        own.ledger = ledger;
        own
    }

    /// The ledger, which contains the mapped address ranges and the site of each range.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The sites that map memory. The ledger refers to a site by its index in this list.
    pub(crate) fn sites(&self) -> &[MappingSite] {
        &self.sites
    }

    /// Gives a site its ID in the trace.
    pub(crate) fn name(&mut self, owner: SiteIndex, id: SiteId) {
        self.sites[owner].in_trace = Some(id);
    }

    /// Notes the result of a search for a site's function among the functions of allocators.
    pub(crate) fn note_allocator(&mut self, owner: SiteIndex, is_allocator: bool) {
        self.sites[owner].is_searched = true;
        self.sites[owner].is_allocator = is_allocator;
    }

    /// The sites that are in the trace, each with its counters.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (SiteId, Counters)> {
        let all = self.sites.iter().zip(self.ledger.counters());
        all.filter_map(|(site, counters)| Some((site.in_trace?, *counters)))
    }

    /// The counters that have changed up to the mark whose slice is at the position `slice` in the ring of
    /// marks. The result contains only sites that are in the trace.
    pub(crate) fn at_mark(&mut self, slice: u64) -> Vec<(SiteId, Counters)> {
        let sites = &self.sites;
        let in_trace = |(owner, counters): (usize, Counters)| Some((sites.get(owner)?.in_trace?, counters));
        self.at_marks.take(slice).into_iter().filter_map(in_trace).collect()
    }

    /// For each site in the trace: the bytes that the program gave back with madvise, if this number has
    /// changed since the last call.
    pub(crate) fn new_given_back(&mut self) -> Vec<(SiteId, GivenBack)> {
        let given_back = self.ledger.given_back();
        self.told_given_back.resize(given_back.len(), GivenBack::default());
        let all = self.sites.iter().zip(given_back).zip(&mut self.told_given_back);
        let new = all.filter_map(|((site, now), told)| {
            let id = site.in_trace.filter(|_| told != now)?;
            *told = *now;
            Some((id, *now))
        });
        new.collect()
    }

    /// Number of lost events. An event is lost if the ring is full, or if the thread that began to write the
    /// event never publishes it.
    pub(crate) fn lost(&self, session: &Session) -> u64 {
        session.header().lost_mappings.load(Ordering::Relaxed).saturating_add(self.passed_over)
    }

    /// Time until the collector next reads the ring; `None`: the collector found no event when it last read
    /// the ring.
    pub(crate) fn next_reading(&self) -> Option<Duration> {
        match self.found {
            0 => None,
            MANY.. => Some(SOON),
            _ => Some(PAUSE),
        }
    }

    /// Reads all events that the target has published in the ring. Returns whether the collector has now read
    /// every event in the ring.
    pub(crate) fn read(&mut self, source: &Source<'_>) -> bool {
        let ring = source.session.mappings();
        let written = ring.written.load(Ordering::Acquire);
        let waiting = (written.wrapping_sub(self.read) as usize).min(mapping::MAX_EVENTS);
        self.found = waiting;
        for _ in 0..waiting {
            match ring.get(self.read) {
                Some(event) => self.apply(self.read, event, source),
                None if self.unpublished.is_overdue(self.read) => self.passed_over += 1,
                None => break,
            }
            self.read = self.read.wrapping_add(1);
        }
        ring.read.store(self.read, Ordering::Release);
        self.read == written
    }

    fn apply(&mut self, number: u32, event: MappingEvent, source: &Source<'_>) {
        let MappingEvent { operation, flags, address, length, .. } = event;
        match operation {
            Operation::Map => {
                let owner = self.owner(&event, source);
                self.ledger.map(address, length, owner);
            }
            Operation::Unmap => self.ledger.unmap(number, address, length),
            Operation::Move => self.ledger.begin_move(number, address, length),
            Operation::Moved => {
                let owner = self.owner(&event, source);
                self.ledger.end_move(flags, address, length, owner);
            }
            Operation::Failed => self.ledger.fail(flags),
            Operation::Attach => {
                let owner = self.owner(&event, source);
                let bytes = self.segments.bytes_of(source.pid, address, length as u32);
                self.ledger.attach(address, bytes, owner);
            }
            Operation::Detach => self.ledger.detach(number, address),
            Operation::GiveBack => self.ledger.give_back(address, length),
            Operation::Mark => self.at_marks.note(address, self.ledger.counters()),
        }
    }

    /// The site that owns the range of an event. If an allocator made the call, the owner is the call site in
    /// the allocator; otherwise, the owner is the site that the event names.
    fn owner(&mut self, event: &MappingEvent, source: &Source<'_>) -> SiteIndex {
        let is_allocator = self.is_in_allocator(event.direct, source);
        let id = if is_allocator { event.direct } else { event.site };
        owner_of(&mut self.sites, &mut self.owners, id, is_allocator)
    }

    fn is_in_allocator(&mut self, direct: u32, source: &Source<'_>) -> bool {
        if let Some(Some(known)) = self.in_allocator.get(direct as usize) {
            return *known;
        }
        let Some(info) = source.session.infos().get(direct as usize) else { return false };
        let address = info.address.load(Ordering::Acquire);
        let module = source.modules.at(address, info.events_before.load(Ordering::Relaxed));
        // The collector does not know yet which module contains this caller. Do not store the answer `false`,
        // because the collector may learn the module later.
        let Some(id) = module else { return false };
        let Some(module) = source.modules.all().get(id.0 as usize) else { return false };
        let is_allocator = *self.allocator_modules.entry(id.0).or_insert_with(|| {
            allocators::is_library(&module.module.path) || allocators::is_malloc(&module.file)
        });
        let index = direct as usize;
        self.in_allocator.resize(self.in_allocator.len().max(index + 1), None);
        self.in_allocator[index] = Some(is_allocator);
        is_allocator
    }

    /// Counts a range of the ledger as freed if the range is not in `ranges` (the kernel's list of mappings),
    /// as [`Ledger::retain_mapped`] does. The caller must read all events, then get `mark` and read `ranges`,
    /// and then read all events again.
    pub(crate) fn retain_mapped(&mut self, ranges: &[(u64, u64)], mark: u64) -> u64 {
        self.ledger.retain_mapped(ranges, mark)
    }
}

fn owner_of(
    sites: &mut Vec<MappingSite>,
    owners: &mut HashMap<(u32, bool), SiteIndex>,
    id: u32,
    is_allocator: bool,
) -> SiteIndex {
    *owners.entry((id, is_allocator)).or_insert_with(|| {
        sites.push(MappingSite { id, is_allocator, in_trace: None, is_searched: false });
        sites.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn event(operation: Operation, flags: u32, address: u64, length: u64) -> MappingEvent {
        MappingEvent { operation, flags, address: address * PAGE, length: length * PAGE, site: 5, direct: 5 }
    }

    #[test]
    fn events_of_the_ring_become_counters_and_unpublished_ones_hold_the_rest_back() {
        let session = Session::create(16, 0).expect("memory files can be made");
        let modules = Modules::new(std::process::id());
        let source = Source { pid: std::process::id(), session: &session, modules: &modules };
        let mut mappings = Mappings::default();
        let ring = session.mappings();
        ring.push(event(Operation::Map, 0, 16, 8)).expect("there is room");
        let number = ring.push(event(Operation::Move, 0, 16, 2)).expect("there is room");
        ring.push(event(Operation::Moved, number, 64, 4)).expect("there is room");
        let failed = ring.push(event(Operation::Unmap, 0, 20, 1)).expect("there is room");
        ring.push(event(Operation::Failed, failed, 0, 0)).expect("there is room");
        assert!(mappings.read(&source));
        mappings.name(0, SiteId(9));
        let expected = Counters { allocs: 2, allocated_bytes: 12 * PAGE, frees: 0, freed_bytes: 2 * PAGE };
        assert_eq!(mappings.counters().collect::<Vec<_>>(), [(SiteId(9), expected)]);
        // A thread has reserved a place in the ring for an event, but was stopped before it published the
        // event.
        ring.written.fetch_add(1, Ordering::AcqRel);
        ring.push(event(Operation::Unmap, 0, 64, 4)).expect("there is room");
        assert!(!mappings.read(&source));
        assert_eq!((mappings.ledger().live_bytes(), mappings.lost(&session)), (10 * PAGE, 0));
        mappings.unpublished = Unpublished::overdue(mappings.read);
        assert!(mappings.read(&source));
        assert_eq!((mappings.ledger().live_bytes(), mappings.lost(&session)), (6 * PAGE, 1));
    }

    #[test]
    fn bytes_given_back_are_told_once_and_only_for_sites_in_the_trace() {
        let session = Session::create(16, 0).expect("memory files can be made");
        let modules = Modules::new(std::process::id());
        let source = Source { pid: std::process::id(), session: &session, modules: &modules };
        let mut mappings = Mappings::default();
        let ring = session.mappings();
        ring.push(event(Operation::Map, 0, 16, 8)).expect("there is room");
        ring.push_note(event(Operation::GiveBack, 0, 18, 2)).expect("there is room");
        assert!(mappings.read(&source));
        assert_eq!(mappings.new_given_back(), []);
        mappings.name(0, SiteId(9));
        let given = |calls, pages| [(SiteId(9), GivenBack { calls, bytes: pages * PAGE })];
        assert_eq!(mappings.new_given_back(), given(1, 2));
        assert_eq!(mappings.new_given_back(), []);
        ring.push_note(event(Operation::GiveBack, 0, 10, 100)).expect("there is room");
        assert!(mappings.read(&source));
        assert_eq!(mappings.new_given_back(), given(2, 10));
    }

    #[test]
    fn a_child_inherits_what_it_has_mapped_at_sites_that_both_know() {
        let sessions = [(); 2].map(|()| Session::create(16, 0).expect("memory files can be made"));
        let [parent, child] = &sessions;
        for session in &sessions {
            session.infos()[5].address.store(0x1234, Ordering::Release);
        }
        parent.infos()[6].address.store(0x5678, Ordering::Release);
        let mut mappings = Mappings::default();
        for (id, start) in [(5, 16), (6, 32)] {
            let owner = owner_of(&mut mappings.sites, &mut mappings.owners, id, false);
            mappings.ledger.map(start * PAGE, 4 * PAGE, owner);
        }
        let own = mappings.inherited(parent, child, &[(0, 18 * PAGE), (32 * PAGE, 36 * PAGE)]);
        assert_eq!((own.sites().len(), own.sites()[0].id), (1, 5));
        assert_eq!(own.ledger().live_bytes(), 2 * PAGE);
    }
}
