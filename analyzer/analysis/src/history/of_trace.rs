//! Makes the history of a trace. The module reads all slices once, and then reads the block with the peak of
//! the process a second time, to find which memory was live at the peak.

use super::{History, HistoryOptions, Instant, PackedBuilder, Peak, SiteHistory, by_importance};
use crate::replay::Merged;
use crate::replay::clock;
use crate::replay::teardown::judged_grid;
use crate::site::{Domain, JudgedSite, SiteLabel};
use edleak_format::{Counters, SiteId, SliceHeader, SliceVisitor, Trace};
use edleak_text::meter;

/// Maximum number of bytes that all packed counters take while the trace is being read. If the counters of
/// all sites exceed this limit, only the most important sites (first the leaks, then the sites that hold the
/// most memory) get packed counters. The function adds the counters of all other sites to the sum `others`
/// from the start.
const COLLECTED_BYTES: usize = 256 << 20;
/// Approximate number of bytes that the packed counters of one site at one instant take.
const BYTES_PER_CHANGE: usize = 10;
const UNKNOWN: u32 = u32::MAX;

pub(super) fn history_of(trace: &Trace, judged: &[JudgedSite], options: HistoryOptions) -> History {
    let grid = trace.grid();
    let blocks = trace.blocks();
    let (Some(_), Some(last)) = (blocks.first(), blocks.last()) else {
        return History { sites: empty_sites(judged), ..History::default() };
    };
    let tick_s = clock::tick_ns(trace) / 1e9;
    let judged_part = judged_grid(trace);
    let ticks = instant_ticks(grid.first_tick, grid.stride_ticks, last.last_tick, options.instants);
    let merged = Merged::of(trace);
    let mut pass = Pass::new(judged, ticks, tick_s);
    meter::begin(blocks.len() as u64);
    for block in 0..blocks.len() {
        meter::advance(1);
        pass.block = block;
        // The function ignores an error of this read, because the replay has already counted the blocks that
        // can no longer be read.
        let _ = trace.replay_block(block, &mut merged.visitor(&mut pass));
    }
    pass.end();
    let mut at_peak =
        AtPeak { tick: pass.peak_tick, index_of: &pass.index_of, live: vec![(0, 0); pass.sites.len()] };
    if pass.peak.live_bytes > 0 {
        let _ = trace.replay_block(pass.peak_block, &mut merged.visitor(&mut at_peak));
    }
    let live_at_peak = at_peak.live;
    let sites = judged.iter().zip(pass.sites).zip(live_at_peak);
    let sites = sites.map(|((judged, site), (live_bytes_at_peak, live_count_at_peak))| SiteHistory {
        label: judged.label.clone(),
        packed: site.builder.map(PackedBuilder::finish),
        peak: site.peak,
        live_bytes_at_peak,
        live_count_at_peak,
    });
    let sites: Vec<SiteHistory> = sites.collect();
    let judged_until =
        judged_part.first_tick + (judged_part.points.saturating_sub(1) as u64) * judged_part.stride_ticks;
    let is_whole = judged_part.points == grid.points;
    let last_s = pass.instants.last().map_or(0.0, |instant| instant.at_s);
    History {
        others_sites: judged
            .iter()
            .zip(&sites)
            .filter(|(judged, site)| judged.domain() == Domain::Heap && site.packed.is_none())
            .count() as u64,
        others: super::Packed::of(&pass.others),
        has_resident: pass.instants.iter().any(|instant| instant.resident_bytes > 0),
        judged_until_s: if is_whole { last_s } else { (judged_until as f64 * tick_s).min(last_s) },
        instants: pass.instants,
        sites,
        peak: pass.peak,
        has_turnover: true,
    }
}

fn empty_sites(judged: &[JudgedSite]) -> Vec<SiteHistory> {
    let empty = |label: &SiteLabel| SiteHistory {
        label: label.clone(),
        packed: Some(super::Packed::default()),
        peak: Peak::default(),
        live_bytes_at_peak: 0,
        live_count_at_peak: 0,
    };
    judged.iter().map(|site| empty(&site.label)).collect()
}

/// The ticks of at most `most` instants. The instants are evenly spaced and begin at the first point; the
/// distance between two instants is a multiple of the stride. The last instant is always the tick of the last
/// slice.
fn instant_ticks(first: u64, stride: u64, last: u64, most: usize) -> Vec<u64> {
    let stride = stride.max(1);
    let points = last.saturating_sub(first) / stride + 1;
    let most = most.max(2) as u64 - 1;
    let step = stride.saturating_mul(points.div_ceil(most).max(1));
    let mut ticks: Vec<u64> = (0..=last.saturating_sub(first) / step).map(|i| first + i * step).collect();
    if ticks.last().is_none_or(|&newest| newest < last) {
        ticks.push(last);
    }
    ticks
}

struct PassSite {
    now: Counters,
    peak: Peak,
    is_dirty: bool,
    /// Whether the site counts memory of the heap; the totals of the process include only such sites.
    is_of_heap: bool,
    builder: Option<PackedBuilder>,
}

struct Pass {
    ticks: Vec<u64>,
    tick_s: f64,
    /// For each site id, the index of the site in the list `sites`.
    index_of: Vec<u32>,
    sites: Vec<PassSite>,
    dirty: Vec<u32>,
    others: Vec<Counters>,
    others_now: Counters,
    instants: Vec<Instant>,
    sum: Counters,
    newest: Option<SliceHeader>,
    is_fresh: bool,
    peak: Peak,
    peak_tick: u64,
    peak_block: usize,
    block: usize,
}

impl Pass {
    fn new(judged: &[JudgedSite], ticks: Vec<u64>, tick_s: f64) -> Self {
        let mut index_of = Vec::new();
        for (index, site) in judged.iter().enumerate() {
            let SiteLabel::Number(number) = site.label else { continue };
            // The label fits into a `usize`, because it is the number of a `SiteId`.
            let number = number as usize;
            if index_of.len() <= number {
                index_of.resize(number + 1, UNKNOWN);
            }
            index_of[number] = index as u32;
        }
        let most = (COLLECTED_BYTES / BYTES_PER_CHANGE / ticks.len().max(1)).max(1);
        let site = |site: &JudgedSite| PassSite {
            now: Counters::ZERO,
            peak: Peak::default(),
            is_dirty: false,
            is_of_heap: site.domain() == Domain::Heap,
            builder: None,
        };
        let mut sites: Vec<PassSite> = judged.iter().map(site).collect();
        for &index in by_importance(judged).iter().take(most) {
            if sites[index].is_of_heap {
                sites[index].builder = Some(PackedBuilder::default());
            }
        }
        Self {
            ticks,
            tick_s,
            index_of,
            sites,
            dirty: Vec::new(),
            others: Vec::new(),
            others_now: Counters::ZERO,
            instants: Vec::new(),
            sum: Counters::ZERO,
            newest: None,
            is_fresh: false,
            peak: Peak::default(),
            peak_tick: 0,
            peak_block: 0,
            block: 0,
        }
    }

    /// Stores the counters of every instant before `tick`.
    fn end_instants_before(&mut self, tick: u64) {
        while self.ticks.get(self.instants.len()).is_some_and(|&due| due < tick) {
            self.end_instant();
        }
    }

    fn end_instant(&mut self) {
        let instant = self.instants.len();
        for index in self.dirty.drain(..) {
            let site = &mut self.sites[index as usize];
            site.is_dirty = false;
            if let Some(builder) = &mut site.builder {
                builder.push(instant, &site.now);
            }
        }
        let nominal = self.ticks[instant] as f64 * self.tick_s;
        let header = self.newest.unwrap_or_default();
        self.instants.push(Instant {
            at_s: if self.is_fresh { header.tick as f64 * self.tick_s } else { nominal },
            is_missing: !self.is_fresh,
            counters: self.sum,
            resident_bytes: header.rss_anon_bytes,
            swap_bytes: header.swap_bytes,
        });
        self.others.push(self.others_now);
        self.is_fresh = false;
    }

    fn end(&mut self) {
        self.end_instants_before(u64::MAX);
    }
}

impl SliceVisitor for Pass {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        self.end_instants_before(header.tick);
        let at_s = header.tick as f64 * self.tick_s;
        for (id, counters) in changed {
            let Some(&index) = self.index_of.get(id.0 as usize).filter(|&&index| index != UNKNOWN) else {
                continue;
            };
            let site = &mut self.sites[index as usize];
            if site.now == *counters {
                continue;
            }
            if site.is_of_heap {
                add_change(&mut self.sum, &site.now, counters);
            }
            if site.is_of_heap && site.builder.is_none() {
                add_change(&mut self.others_now, &site.now, counters);
            }
            site.now = *counters;
            if counters.live_bytes() > site.peak.live_bytes {
                site.peak = Peak { at_s, live_bytes: counters.live_bytes() };
            }
            if !site.is_dirty {
                site.is_dirty = true;
                self.dirty.push(index);
            }
        }
        if self.sum.live_bytes() > self.peak.live_bytes {
            self.peak = Peak { at_s, live_bytes: self.sum.live_bytes() };
            (self.peak_tick, self.peak_block) = (header.tick, self.block);
        }
        self.newest = Some(*header);
        self.is_fresh = true;
    }
}

fn add_change(sum: &mut Counters, was: &Counters, is: &Counters) {
    // A hostile target can write any counters, so the
    // sums use wrapping arithmetic, which never panics.
    let moved = |sum: u64, was: u64, is: u64| sum.wrapping_sub(was).wrapping_add(is);
    sum.allocated_bytes = moved(sum.allocated_bytes, was.allocated_bytes, is.allocated_bytes);
    sum.freed_bytes = moved(sum.freed_bytes, was.freed_bytes, is.freed_bytes);
    sum.allocs = moved(sum.allocs, was.allocs, is.allocs);
    sum.frees = moved(sum.frees, was.frees, is.frees);
}

/// The live bytes and count of each site at the slice of the peak.
struct AtPeak<'a> {
    tick: u64,
    index_of: &'a [u32],
    live: Vec<(u64, u64)>,
}

impl SliceVisitor for AtPeak<'_> {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        if header.tick > self.tick {
            return;
        }
        for (id, counters) in changed {
            if let Some(&index) = self.index_of.get(id.0 as usize).filter(|&&index| index != UNKNOWN) {
                self.live[index as usize] = (counters.live_bytes(), counters.live_count());
            }
        }
    }
}
