//! Records mapped memory: reads the events of calls such as mmap between slices, gives each site its ID in
//! the trace, and compares the recorded ranges with the mappings in /proc.

use super::Recording;
use crate::recording::mappings::ledger::GivenBack;
use crate::recording::mappings::{Mappings, Source, allocators};
use crate::sys::maps;
use crate::sys::memory::Part;
use crate::sys::shm::Session;
use edleak_format::{Error, ModuleId, Record, Site, SiteId, SiteKind, TraceWriter};
use edleak_session::site::OTHER;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The collector searches for the function name of a site only if the site has mapped at least this number of
/// bytes.
const LEAST_NAMED_BYTES: u64 = 64 << 10;
/// The shortest time after which the collector again records the bytes that the program gave back with
/// madvise.
const LEAST_PAUSE_OF_GIVEN_BACK: Duration = Duration::from_secs(1);

impl Recording {
    /// Reads all published events of mapped memory. Returns whether the collector has now read every event of
    /// mapped memory.
    pub(super) fn read_mappings(&mut self) -> bool {
        let source = Source { pid: self.pid, session: &self.session, modules: &self.modules };
        self.mappings.as_mut().is_none_or(|mappings| mappings.read(&source))
    }

    /// Time until the collector next reads events; `None`: the collector reads events only with the next
    /// slice.
    fn next_reading(&self) -> Option<Duration> {
        self.mappings.as_ref()?.next_reading()
    }

    /// Time until [`Recording::poll`] has work to do, if this work is due before the next slice; `None`: no
    /// work is due before the next slice.
    pub(crate) fn next_turn(&self, now: Instant) -> Option<Duration> {
        let pools = self.pools.as_ref().and_then(|pools| pools.due(now));
        self.next_reading().into_iter().chain(pools).chain(self.delay_left(now)).min()
    }

    /// The mappings that a forked child inherits from this recording's process.
    pub(crate) fn mappings_of_child(&mut self, child: &Session, pid: u32) -> Option<Mappings> {
        self.read_mappings();
        let ranges = maps::ranges(&maps::text_of(pid)?);
        Some(self.mappings.as_ref()?.inherited(&self.session, child, &ranges))
    }

    /// Records new sites of mapped memory in the trace.
    pub(super) fn learn_mapping_sites(&mut self) -> Result<(), Error> {
        let Some(mappings) = &self.mappings else { return Ok(()) };
        let unnamed = |(owner, site): (usize, &super::mappings::MappingSite)| {
            site.in_trace.is_none().then_some((owner, *site))
        };
        let new: Vec<_> = mappings.sites().iter().enumerate().filter_map(unnamed).collect();
        for (owner, site) in new {
            let Some(info) = self.session.infos().get(site.id as usize) else { continue };
            let address = info.address.load(Ordering::Acquire);
            if address == 0 && site.id > OTHER {
                continue; // a thread is still inserting the site
            }
            let events = info.events_before.load(Ordering::Relaxed);
            let module = self.module_at(address, events)?;
            let most = self.writer.as_ref().map_or(0, TraceWriter::most_sites);
            if self.sites as usize >= most {
                return Ok(());
            }
            let id = SiteId(self.sites);
            self.sites += 1;
            self.record_mapping_site(id, site.is_allocator, address, module)?;
            if let Some(mappings) = &mut self.mappings {
                mappings.name(owner, id);
            }
        }
        Ok(())
    }

    fn record_mapping_site(
        &mut self,
        id: SiteId,
        is_allocator: bool,
        address: u64,
        module: Option<ModuleId>,
    ) -> Result<(), Error> {
        let kind = if is_allocator { SiteKind::AllocatorMapping } else { SiteKind::Mapping };
        self.record(&Record::Site(Site { id, kind, parent: None, address, module, stack: None }))
    }

    /// Copies the counters of each mapping site into the slice, at the index of the site in the trace.
    pub(super) fn gather_mappings(&mut self) {
        let Some(mappings) = &self.mappings else { return };
        let mut live_bytes = 0;
        for (id, counters) in mappings.counters() {
            live_bytes += counters.live_bytes();
            if let Some(place) = self.counters.get_mut(id.0 as usize) {
                *place = counters;
            }
        }
        self.areas.set_counted(live_bytes);
    }

    /// If a reading is due, reads the size of each memory area from /proc, compares the recorded ranges with
    /// the mappings in /proc, and looks for children of the process.
    pub(super) fn read_areas(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if !self.areas.is_due(now) {
            return Ok(());
        }
        let was_complete = self.read_mappings();
        self.find_allocators(false)?;
        let mark = self.mappings.as_ref().map_or(0, |mappings| mappings.ledger().mark());
        if let Some(reading) = self.areas.read(self.pid, now) {
            let is_complete = self.read_mappings() && was_complete;
            if let Some(mappings) = self.mappings.as_mut().filter(|_| is_complete) {
                self.unmapped_unseen_bytes += mappings.retain_mapped(&reading.ranges(), mark);
            }
            let mappings = self.mappings.as_ref();
            let parts =
                |start: u64, end: u64| mappings.map_or_else(Vec::new, |all| parts_of(all, start, end));
            let calls = mappings.map(|_| &parts as &dyn Fn(u64, u64) -> Vec<Part>);
            for area in self.areas.take(&reading, self.pid, calls) {
                self.record(&Record::MemoryArea(area))?;
            }
        }
        self.look_at_children();
        Ok(())
    }

    /// Records the bytes that the program gave back with madvise, for each site at which this number has
    /// changed. A new record about a site replaces the older record about this site. To save room in the
    /// trace, the collector writes the records of given-back bytes at longer and longer intervals.
    pub(super) fn record_given_back(&mut self, is_end: bool) -> Result<(), Error> {
        let elapsed = self.began.elapsed();
        let Some(mappings) = &mut self.mappings else { return Ok(()) };
        if elapsed < self.next_given_back && !is_end {
            return Ok(());
        }
        self.next_given_back = elapsed + (elapsed / 64).max(LEAST_PAUSE_OF_GIVEN_BACK);
        let new = mappings.new_given_back();
        for (site, GivenBack { calls, bytes }) in new {
            self.record(&Record::GivenBack(edleak_format::GivenBack { site: Some(site), calls, bytes }))?;
        }
        let lost = self.session.header().lost_give_backs.load(Ordering::Relaxed);
        if lost != self.recorded_lost_give_backs {
            self.recorded_lost_give_backs = lost;
            self.record(&Record::GivenBack(edleak_format::GivenBack { site: None, calls: lost, bytes: 0 }))?;
        }
        Ok(())
    }

    /// Records in the trace how many events of mapped memory were lost, and how many bytes were unmapped by
    /// calls that edleak did not see. The function writes no record if both numbers are unchanged.
    pub(super) fn record_mapping_losses(&mut self) -> Result<(), Error> {
        let Some(mappings) = &self.mappings else { return Ok(()) };
        let now = edleak_format::Mappings {
            lost_events: mappings.lost(&self.session),
            unmapped_unseen_bytes: self.unmapped_unseen_bytes,
        };
        if self.recorded_mappings == Some(now) {
            return Ok(());
        }
        self.recorded_mappings = Some(now);
        self.record(&Record::Mappings(now))
    }

    /// Writes into the trace which sites of mapped memory are in functions of an allocator inside a module.
    /// Reading the function names of a large module takes long. So before the end of the recording, the
    /// collector looks only into modules that are already known to contain an allocator.
    pub(super) fn find_allocators(&mut self, is_end: bool) -> Result<(), Error> {
        let Some(mappings) = &self.mappings else { return Ok(()) };
        let mut by_module: BTreeMap<u32, Vec<(usize, SiteId, u64)>> = BTreeMap::new();
        let sites = mappings.sites().iter().zip(mappings.ledger().counters()).enumerate();
        for (owner, (site, counters)) in sites {
            let is_open = !site.is_allocator && !site.is_searched;
            let Some(id) = site.in_trace.filter(|_| is_open) else { continue };
            let Some(info) = self.session.infos().get(site.id as usize) else { continue };
            let address = info.address.load(Ordering::Acquire);
            let module = self.modules.at(address, info.events_before.load(Ordering::Relaxed));
            let module = module.filter(|id| is_end || self.detours.has_allocator(*id));
            if let Some(module) = module.filter(|_| counters.allocated_bytes >= LEAST_NAMED_BYTES) {
                by_module.entry(module.0).or_default().push((owner, id, address));
            }
        }
        for (module, sites) in by_module {
            let Some(loaded) = self.modules.all().get(module as usize) else { continue };
            let bias = loaded.module.load_bias;
            let offsets: Vec<u64> = sites.iter().map(|(_, _, address)| address.wrapping_sub(bias)).collect();
            let of_allocator = allocators::offsets_in_allocator(&loaded.file, &offsets);
            for ((owner, id, address), offset) in sites.into_iter().zip(offsets) {
                let is_allocator = of_allocator.contains(&offset);
                if is_allocator {
                    self.record_mapping_site(id, true, address, Some(ModuleId(module)))?;
                }
                if let Some(mappings) = &mut self.mappings {
                    mappings.note_allocator(owner, is_allocator);
                }
            }
        }
        Ok(())
    }
}

fn parts_of(mappings: &Mappings, start: u64, end: u64) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (from, to, owner) in mappings.ledger().pieces_in(start, end) {
        let Some(site) = mappings.sites().get(owner) else { continue };
        let found = parts
            .iter_mut()
            .find(|part| part.site == site.in_trace && part.is_allocator == site.is_allocator);
        match found {
            Some(part) => part.bytes += to - from,
            None => {
                parts.push(Part { bytes: to - from, site: site.in_trace, is_allocator: site.is_allocator })
            }
        }
    }
    parts
}
