//! The marks of one recording. The collector reads the marks of the target with each slice. The command
//! `edleak-record mark` also sets marks.

use super::Recording;
use crate::recording::mark_slices::{Marks, ReadAt, TraceSites};
use edleak_format::{Error, MarkSlice, Record, SiteId};

impl Recording {
    /// Reads the slices that the target took at marks, up to the position `until` in the ring of marks.
    /// Before the collector calls this function, it must learn the sites in the slices up to `until`, and
    /// read the events of mapped memory and pools that came before the last of these slices.
    pub(super) fn read_marks(&mut self, until: u64, tick: u64) -> Result<(), Error> {
        let at = self.read_at(tick);
        let sites = TraceSites { callers: &self.trace_ids, stacks: self.stacks.sites() };
        let (mappings, pools) = (&mut self.mappings, &self.pools);
        let others = |slice: u64| {
            let mut changed = mappings.as_mut().map_or_else(Vec::new, |mappings| mappings.at_mark(slice));
            changed.extend(pools.iter().flat_map(|pools| pools.lock().at_mark(slice)));
            changed
        };
        let slices = self.marks.read(&self.session, until, sites, others, at, self.capacity_bytes);
        self.record_slices(slices)
    }

    /// Sets a mark at the request of a user. Returns how often a mark with this name was set so far.
    ///
    /// # Errors
    /// The collector cannot write the trace.
    pub(crate) fn mark(&mut self, name: &str) -> Result<u64, Error> {
        let marked_until = Marks::written(&self.session);
        let now_ns = self.began.elapsed().as_nanos() as u64;
        self.read_events(now_ns)?;
        self.learn_sites(now_ns)?;
        self.learn_stacks(now_ns)?;
        self.read_mappings();
        self.learn_mapping_sites()?;
        self.read_pools(false);
        self.learn_pool_sites()?;
        let tick = self.last_tick + 1;
        self.read_marks(marked_until, tick)?;
        self.counter_reader.read(&self.session, self.stacks.in_slice(&self.session));
        self.gather_counters(now_ns);
        self.gather_mappings();
        self.gather_pools();
        let injected = self.injected.map(|injected| injected.site);
        let counters = (0..).map(SiteId).zip(self.counters.iter().copied());
        let counters = counters.filter(|(site, _)| Some(*site) != injected);
        let at = self.read_at(tick);
        let (count, slices) = self.marks.set(name, counters, at, self.capacity_bytes);
        self.record_slices(slices)?;
        Ok(count)
    }

    /// Records the names of new marks in the trace. At the end of the recording, also records how often each
    /// mark was set.
    pub(super) fn record_marks(&mut self, is_end: bool) -> Result<(), Error> {
        for mark in self.marks.names(&self.session, is_end) {
            self.record(&Record::Mark(mark))?;
        }
        match self.marks.losses(&self.session) {
            Some(losses) => self.record(&Record::MarkLosses(losses)),
            None => Ok(()),
        }
    }

    fn read_at(&self, tick: u64) -> ReadAt {
        ReadAt { tick, ns: self.began.elapsed().as_nanos() as u64 }
    }

    fn record_slices(&mut self, slices: Vec<MarkSlice>) -> Result<(), Error> {
        if slices.is_empty() {
            return Ok(());
        }
        self.record_marks(false)?;
        slices.into_iter().try_for_each(|slice| self.record(&Record::MarkSlice(slice)))
    }
}
