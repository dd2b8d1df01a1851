//! Takes one slice of a recording: reads the counters from the session, learns new sites, and writes the
//! counters and the losses (counts of events that were not recorded) into the trace.

use crate::recording::Recording;
use crate::recording::counter_reader::CounterReader;
use crate::recording::mark_slices::Marks;
use crate::recording::stacks::Snapshot;
use crate::sys::process::{self, Size, Status};
use crate::sys::shm::Session;
use edleak_format::{Counters, Error, Losses, Record, SiteId, SliceHeader};
use edleak_session::header::{READY, READY_WITH_PARENTS_RULES};
use edleak_session::site::OTHER;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// At the end of an epoch, the collector records the survivors (live allocations) of at most this number of
/// stacks: those with the most live bytes. To record the live allocations of more stacks, the collector would
/// need so much time that it would miss slices. Measured with 27,000 stacks and 1,024 records: a quarter of
/// the slices was lost. At the end of the recording, the collector records the live allocations of all
/// stacks.
const SURVIVORS_AT_ONCE: usize = 256;

impl Recording {
    pub(super) fn take_slice(&mut self, tick: u64) -> Result<(), Error> {
        self.note_size(process::read_status(self.pid));
        self.write_slice(tick)
    }

    /// Lets the target run; until this call, the target waits for its rules. The collector calls this
    /// function after it has read the counters of the first slice, so the first slice shows the state before
    /// the target runs. The collector writes the first slice into the trace after this call, so the target
    /// does not wait until the slice is written.
    pub(super) fn let_target_go(&self) {
        let ready = &self.session.header().ready;
        if ready.load(Ordering::Relaxed) == 0 {
            let is_own = !self.has_parents_rules;
            ready.store(if is_own { READY } else { READY_WITH_PARENTS_RULES }, Ordering::Release);
            crate::sys::shm::wake(ready);
        }
    }

    /// Stores the memory size of the process. If the process has ended, the function leaves the stored size
    /// unchanged.
    pub(super) fn note_size(&mut self, status: Option<Status>) {
        if let Some(status) = status.filter(|status| status.size != Size::default()) {
            self.size = status.size;
            self.own_pid_namespace = Some(status.own_pid_namespace);
        }
    }

    pub(super) fn write_slice(&mut self, tick: u64) -> Result<(), Error> {
        let marked_until = Marks::written(&self.session);
        let learning_ns = self.began.elapsed().as_nanos() as u64;
        self.read_events(learning_ns)?;
        self.learn_sites(learning_ns)?;
        self.learn_thread_starts()?;
        self.learn_stacks(learning_ns)?;
        self.note_ended_watches(learning_ns)?;
        self.read_mappings();
        self.learn_mapping_sites()?;
        self.read_pools(false);
        self.learn_pool_sites()?;
        // The collector has now read the events of mapped memory and pools up to the position `marked_until`
        // in the ring of marks, so it can read the slices at marks.
        self.read_marks(marked_until, tick)?;
        // Learning new sites may take long, so the collector takes the time of the slice only now, just
        // before it reads the counters.
        let now_ns = self.began.elapsed().as_nanos() as u64;
        self.counter_reader.read(&self.session, self.stacks.in_slice(&self.session));
        self.epochs.grow(now_ns);
        let used = Arc::into_inner(std::mem::take(&mut self.survivors.latest));
        let latest = self.stacks.snapshot(&self.session, &self.epochs, now_ns, used);
        self.survivors.latest = Arc::new(latest);
        if self.epochs.advance(&self.session, now_ns) {
            let latest = Arc::clone(&self.survivors.latest);
            self.record_survivors(&latest, SURVIVORS_AT_ONCE)?;
            self.survivors.keep();
        }
        self.gather_counters(now_ns);
        self.gather_mappings();
        self.gather_pools();
        self.let_target_go();
        self.read_areas()?;
        if let Some(time) = process::processor_time(self.pid) {
            let [_, newest] = self.processor.get_or_insert([(now_ns, time); 2]);
            *newest = (now_ns, time);
        }
        self.read_losses()?;
        self.note_earlier_frees(now_ns, false)?;
        self.record_mapping_losses()?;
        self.record_given_back(false)?;
        self.record_pool_totals()?;
        let header = SliceHeader {
            tick,
            time_ns: now_ns,
            rss_anon_bytes: self.size.rss_anon_bytes,
            swap_bytes: self.size.swap_bytes,
        };
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.memory(self.areas.areas());
        writer.slice(&header, &self.counters)?;
        self.last_tick = tick;
        self.slices += 1;
        if let Some(watching) = &mut self.watching
            && self.schedule.is_even(tick)
        {
            let with_stacks = call_sites(&self.trace_ids, &self.counter_reader, &self.session);
            watching.auto_watch.push(&with_stacks);
        }
        Ok(())
    }

    /// Copies the counters of the session into the slice, at the index of each site in the trace.
    pub(super) fn gather_counters(&mut self, now_ns: u64) {
        self.counters.clear();
        self.counters.resize(self.sites as usize, Counters::ZERO);
        let of_sites =
            self.trace_ids.iter().zip(self.counter_reader.sites().get(OTHER as usize..).unwrap_or_default());
        let of_stacks = self.stacks.sites().iter().zip(self.counter_reader.stacks());
        for (id, counters) in of_sites.chain(of_stacks) {
            self.counters[id.0 as usize] = *counters;
        }
        // If a stack got no site in the trace because the trace was nearly full, the collector adds the
        // counters of this stack to its call site.
        let named = self.stacks.sites().len();
        let others = self.session.stack_infos().iter().zip(self.counter_reader.stacks()).skip(named);
        for (info, counters) in others {
            let site = info.site.load(Ordering::Relaxed).wrapping_sub(OTHER) as usize;
            if let Some(id) = self.trace_ids.get(site) {
                let sum = &mut self.counters[id.0 as usize];
                *sum = sum_of(*sum, *counters);
            }
        }
        if let Some(injected) = self.injected {
            self.counters[injected.site.0 as usize] = injected.counters(now_ns);
        }
    }

    /// Number of sites whose counters are not all zero. The result does not include call sites in wrapper
    /// functions, because the library skips these call sites and their counters stay zero.
    pub(super) fn seen_sites(&self) -> usize {
        let injected = self.injected.map(|injected| injected.site.0 as usize);
        let counted = self.counters.iter().enumerate().filter(|(_, counters)| **counters != Counters::ZERO);
        counted.filter(|(site, _)| Some(*site) != injected).count()
    }

    /// Records at which times the program made the allocations that are still live, for at most `most`
    /// stacks.
    pub(super) fn record_survivors(&mut self, survivors: &Snapshot, most: usize) -> Result<(), Error> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        survivors.each(self.stacks.sites(), &self.epochs, most, |one| writer.record(&Record::Survivors(one)))
    }

    pub(super) fn read_losses(&mut self) -> Result<(), Error> {
        let header = self.session.header();
        let losses = Losses {
            unknown_frees: header.unknown_frees.load(Ordering::Relaxed),
            lost_module_events: u64::from(header.events_lost.load(Ordering::Relaxed)),
            other_site_allocs: header.other_site_allocs.load(Ordering::Relaxed),
            untracked_allocs: header.untracked_allocs.load(Ordering::Relaxed),
            lost_stacks: header.lost_stacks.load(Ordering::Relaxed)
                + self.stacks.without_site(&self.session) as u64,
            missed_slices: self.losses.missed_slices,
            unrecorded_images: self.losses.unrecorded_images,
        };
        if losses != self.recorded_losses || self.slices == 0 {
            (self.losses, self.recorded_losses) = (losses, losses);
            self.record(&Record::Losses(losses))?;
        }
        Ok(())
    }
}

/// The counters of all call sites. The counters of a call site include the counters of all its stacks.
pub(super) fn call_sites(
    trace_ids: &[SiteId],
    counter_reader: &CounterReader,
    session: &Session,
) -> Vec<Counters> {
    let mut sums: Vec<Counters> = counter_reader.sites().get(OTHER as usize..).unwrap_or_default().to_vec();
    sums.truncate(trace_ids.len());
    for (info, counters) in session.stack_infos().iter().zip(counter_reader.stacks()) {
        let site = info.site.load(Ordering::Relaxed).wrapping_sub(OTHER) as usize;
        if let Some(sum) = sums.get_mut(site) {
            *sum = sum_of(*sum, *counters);
        }
    }
    sums
}

pub(super) fn sum_of(a: Counters, b: Counters) -> Counters {
    Counters {
        allocated_bytes: a.allocated_bytes.wrapping_add(b.allocated_bytes),
        allocs: a.allocs.wrapping_add(b.allocs),
        freed_bytes: a.freed_bytes.wrapping_add(b.freed_bytes),
        frees: a.frees.wrapping_add(b.frees),
    }
}
