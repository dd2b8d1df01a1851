//! Reads the data of single slices: the totals of the program at every slice, the counters of all sites at
//! one slice, and the allocations that were freed before the next slice.
//!
//! A profile needs the exact counters of one slice, to show which sites held the memory at the peak. A
//! profile also needs all slices, to show which sites soon free their allocations. The series of `replay` and
//! a `history` do not contain every slice, so a profile reads the slices from the trace. Blocks are read in
//! parallel, and their results are joined in order of time. A profile takes memory for each site and for each
//! slice, but not for each pair of a site and a slice.

use crate::replay::Merged;
use edleak_format::{Counters, SiteId, SliceHeader, SliceVisitor, Trace};
use rayon::prelude::*;
use std::ops::RangeInclusive;

/// The limit for site ids is this number times the number of sites in the catalog; an id above the limit is
/// forged.
const SLACK: usize = 4;
/// The limit for site ids is never below this number, so that undamaged slices can be read even if a damaged
/// catalog has too few sites.
const MIN_ID_LIMIT: usize = 1 << 16;

/// The counters and the memory of the whole program at one slice.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Instant {
    /// The slice's tick.
    pub(crate) tick: u64,
    /// The time of the slice, in nanoseconds since the recording began.
    pub(crate) time_ns: u64,
    /// The counters of all sites together.
    pub(crate) total: Counters,
    /// RssAnon of the process, in bytes.
    pub(crate) rss_anon_bytes: u64,
    /// VmSwap of the process, in bytes.
    pub swap_bytes: u64,
}

/// The temporary allocations of one site: the allocations that the program freed before the next slice. Both
/// fields of this struct are lower bounds. If a site frees more allocations between two slices than it held
/// at the first slice, the difference was both allocated and freed between these slices.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Temporaries {
    /// Number of allocations that the program freed before the next slice.
    pub(crate) allocs: u64,
    /// Number of bytes in the allocations that the program freed before the next slice.
    pub(crate) bytes: u64,
}

/// All slices of a trace.
#[derive(Clone, Default, Debug)]
pub(crate) struct Slices {
    instants: Vec<Instant>,
    temporaries: Vec<Temporaries>,
}

impl Slices {
    /// Reads every slice. The function counts temporary allocations (those that are freed before the next
    /// slice) only between slices whose ticks are in the range `ticks`.
    ///
    /// The function leaves out blocks that can no longer be read; the replay has already counted such blocks
    /// as damaged.
    pub(crate) fn of(trace: &Trace, merged: &Merged, ticks: RangeInclusive<u64>) -> Slices {
        let limit = id_limit(trace);
        let mut slices = Slices::default();
        let mut now: Vec<Counters> = Vec::new();
        let mut newest_tick = None;
        let blocks: Vec<usize> = (0..trace.blocks().len()).collect();
        for window in blocks.chunks(rayon::current_num_threads()) {
            let read = |&block: &usize| {
                let mut reader = BlockReader::new(limit, ticks.clone());
                let _ = trace.replay_block(block, &mut merged.heap_visitor(&mut reader));
                reader
            };
            for block in window.par_iter().map(read).collect::<Vec<_>>() {
                slices.join(block, &mut now, &mut newest_tick, &ticks);
            }
        }
        slices
    }

    /// All slices, in order of time.
    pub(crate) fn instants(&self) -> &[Instant] {
        &self.instants
    }

    /// The number and the bytes of the allocations of one site that the program freed before the next slice.
    pub(crate) fn temporaries(&self, id: SiteId) -> Temporaries {
        self.temporaries.get(id.0 as usize).copied().unwrap_or_default()
    }

    /// The index of the slice with the most live bytes; if several slices have the same number of live bytes,
    /// the first of them. `None`: the trace has no slice.
    pub(crate) fn peak(&self) -> Option<usize> {
        let most = self.instants.iter().map(|instant| instant.total.live_bytes()).max()?;
        self.instants.iter().position(|instant| instant.total.live_bytes() == most)
    }

    /// The index of the newest slice at or before the time `time_ns`; `None`: all slices are later.
    pub(crate) fn newest_at(&self, time_ns: u64) -> Option<usize> {
        self.instants.partition_point(|instant| instant.time_ns <= time_ns).checked_sub(1)
    }

    /// The precision of a time at this slice, in nanoseconds: the distance to the slice before or after it,
    /// whichever is longer; 0 if the trace has only one slice.
    pub(crate) fn precision_ns(&self, index: usize) -> u64 {
        let time = |at: usize| self.instants.get(at).map(|instant| instant.time_ns);
        let Some(own) = time(index) else { return 0 };
        let before = index.checked_sub(1).and_then(time).map_or(0, |before| own.saturating_sub(before));
        let after = time(index + 1).map_or(0, |after| after.saturating_sub(own));
        before.max(after)
    }

    fn join(
        &mut self,
        block: BlockReader,
        now: &mut Vec<Counters>,
        newest_tick: &mut Option<u64>,
        ticks: &RangeInclusive<u64>,
    ) {
        let Some(first) = block.instants.first() else { return };
        if block.sites.len() > self.temporaries.len() {
            self.temporaries.resize(block.sites.len(), Temporaries::default());
            now.resize(block.sites.len(), Counters::ZERO);
        }
        let is_inside = newest_tick.is_none_or(|tick| ticks.contains(&tick)) && ticks.contains(&first.tick);
        for (id, site) in block.sites.iter().enumerate().filter(|(_, site)| site.is_seen) {
            let known = &mut self.temporaries[id];
            if is_inside {
                known.note(&now[id], &site.first);
            }
            known.allocs = known.allocs.saturating_add(site.temporaries.allocs);
            known.bytes = known.bytes.saturating_add(site.temporaries.bytes);
            now[id] = site.now;
        }
        *newest_tick = block.instants.last().map(|instant| instant.tick);
        self.instants.extend(block.instants);
    }
}

impl Temporaries {
    fn note(&mut self, before: &Counters, after: &Counters) {
        let at_least = |freed: u64, was: u64, held: u64| freed.saturating_sub(was).saturating_sub(held);
        let allocs = at_least(after.frees, before.frees, before.live_count());
        let bytes = at_least(after.freed_bytes, before.freed_bytes, before.live_bytes());
        self.allocs = self.allocs.saturating_add(allocs);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// The counters of every site at the newest slice at or before `tick`; the index is the site id.
pub(crate) fn counters_at(trace: &Trace, merged: &Merged, tick: u64) -> Vec<Counters> {
    let block = trace.blocks().partition_point(|block| block.first_tick <= tick);
    let Some(block) = block.checked_sub(1) else { return Vec::new() };
    let mut counters = CountersAt { tick, limit: id_limit(trace), now: Vec::new() };
    let _ = trace.replay_block(block, &mut merged.heap_visitor(&mut counters));
    counters.now
}

fn id_limit(trace: &Trace) -> usize {
    (SLACK * trace.sites().len()).max(MIN_ID_LIMIT)
}

struct CountersAt {
    tick: u64,
    limit: usize,
    now: Vec<Counters>,
}

impl SliceVisitor for CountersAt {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        if header.tick > self.tick {
            return;
        }
        for (id, counters) in changed.iter().filter(|(id, _)| (id.0 as usize) < self.limit) {
            let id = id.0 as usize;
            if id >= self.now.len() {
                self.now.resize(id + 1, Counters::ZERO);
            }
            self.now[id] = *counters;
        }
    }
}

#[derive(Clone, Copy, Default)]
struct SiteInBlock {
    is_seen: bool,
    first: Counters,
    now: Counters,
    temporaries: Temporaries,
}

/// Reads one block without the blocks before it. A block can be read without the blocks before it, because
/// its first slice has the counters of every site that ever counted anything.
struct BlockReader {
    limit: usize,
    ticks: RangeInclusive<u64>,
    total: Counters,
    instants: Vec<Instant>,
    sites: Vec<SiteInBlock>,
}

impl BlockReader {
    fn new(limit: usize, ticks: RangeInclusive<u64>) -> Self {
        Self { limit, ticks, total: Counters::ZERO, instants: Vec::new(), sites: Vec::new() }
    }
}

impl SliceVisitor for BlockReader {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        let newest = self.instants.last().map(|instant| instant.tick);
        let is_inside =
            newest.is_some_and(|tick| self.ticks.contains(&tick)) && self.ticks.contains(&header.tick);
        for (id, counters) in changed.iter().filter(|(id, _)| (id.0 as usize) < self.limit) {
            let id = id.0 as usize;
            if id >= self.sites.len() {
                self.sites.resize(id + 1, SiteInBlock::default());
            }
            let site = &mut self.sites[id];
            replace(&mut self.total, &site.now, counters);
            if !site.is_seen && newest.is_none() {
                site.first = *counters;
            } else if is_inside {
                site.temporaries.note(&site.now, counters);
            }
            site.is_seen = true;
            site.now = *counters;
        }
        self.instants.push(Instant {
            tick: header.tick,
            time_ns: header.time_ns,
            total: self.total,
            rss_anon_bytes: header.rss_anon_bytes,
            swap_bytes: header.swap_bytes,
        });
    }
}

/// Replaces the counters of one site in a sum of counters. A hostile target can write anything into its
/// counters, so the sums use wrapping arithmetic.
fn replace(total: &mut Counters, was: &Counters, is: &Counters) {
    let exchange = |sum: &mut u64, was: u64, is: u64| *sum = sum.wrapping_sub(was).wrapping_add(is);
    exchange(&mut total.allocated_bytes, was.allocated_bytes, is.allocated_bytes);
    exchange(&mut total.allocs, was.allocs, is.allocs);
    exchange(&mut total.freed_bytes, was.freed_bytes, is.freed_bytes);
    exchange(&mut total.frees, was.frees, is.frees);
}
