//! Phase 2: reads the blocks of a trace and makes one series per site, in parallel. The memory that a replay
//! needs grows with the number of sites.
//!
//! ```text
//!   blocks    ▓▓▓▓ ▓▓▓▓ │ ▓▓▓▓ ▓▓▓▓ │ …      a window: as many blocks as there are threads
//!                │    │                       open: one block per task ([`opened`])
//!   columns   ▤▤▤▤ ▤▤▤▤
//!              ╲  ╳  ╱                        condense: one range of sites per task, slices in order of time
//!   sites     [0..) [4096..) [8192..) …       sixteen in one [`Group`]
//! ```
//!
//! The slices of a trace are not evenly spaced: old slices are further apart than new slices. A series must
//! have evenly spaced points, so its points are the points of the trace's [`Grid`]. The value at a grid point
//! is the value of the newest slice at or before this point. If slices are missing, the points in the gap get
//! values on a straight line (`gap`). The series ends at the slice before the program began to free
//! everything because it was about to end ([`teardown`]).
//!
//! A replay with any number of threads gives the same result, bit for bit, because all sums are sums of
//! integers and each series gets its points in order of time.

mod arch;
mod births;
mod bucket_rows;
pub(crate) mod clock;
mod family;
mod gap;
mod group;
mod ids;
pub(crate) mod memory;
mod merge;
mod opened;
pub mod points;
mod sums;
pub mod teardown;
mod window;

pub use births::BirthTable;
use edleak_format::{Counters, GROUP_SITES, Grid, SiteId, SliceHeader, TILE_SITES, Trace};
use edleak_model::process_series::{ProcessPoint, ProcessSeries};
use edleak_model::series::{Point, Series, SeriesBuilder};
use edleak_model::work::{Work, WorkBuilder};
use edleak_text::meter;
use family::{Families, FamilyMove};
use gap::Gap;
use group::Group;
use ids::{MIN_ID_LIMIT, SLACK};
use memory::{Memory, MemoryEnds};
pub use merge::{Merged, MergingVisitor};
use opened::{Opened, Step};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use sums::PowerSums;
use window::{Condensed, GROUPS_PER_TILE, Range};

/// The replay divides the sites into ranges. The number of ranges is this number times the number of threads.
/// With more than one range per thread, a fast thread can take a second range while a slow thread is still at
/// its first.
const RANGES_PER_THREAD: usize = 2;

/// The result of a replay.
#[derive(Debug)]
pub(crate) struct Replayed<T> {
    /// The results for all sites of which a slice contains counters, in ascending order of the site ids.
    pub(crate) sites: Vec<T>,
    /// The memory of the process at each grid point.
    pub(crate) process: ProcessSeries,
    /// Number of bytes allocated from the heap, from the first slice to the last.
    pub(crate) turnover_bytes: u64,
    /// Number of slices that were read.
    pub(crate) slices: u64,
    /// The time of the last slice, in nanoseconds since the recording began.
    pub(crate) last_ns: u64,
    /// The number of allocations of the whole program, as a curve over the time of the record.
    pub(crate) work: Arc<Work>,
    /// Number of grid points without a slice; the values of these points lie on a straight line between two
    /// slices.
    pub(crate) missing_points: u64,
    /// Number of points without a slice between the end of the grid and the last slice of the trace.
    pub(crate) missing_behind: u64,
    /// The length of the longest gap: the greatest number of points in a row that have no slice.
    pub(crate) longest_gap: u64,
    /// Two kinds of memory, each at the first and at the last reading of /proc in the judged record: the
    /// memory of each site that maps memory, and anonymous memory that no recorded call mapped.
    pub(crate) memory: MemoryEnds,
    /// Number of blocks that were undamaged when the trace was opened, but that can no longer be read.
    pub(crate) unreadable_blocks: u64,
}

/// One site of a trace, or several merged sites ([`Merged`]).
#[derive(Clone, Debug)]
pub(crate) struct ReplayedSite {
    /// The id of the site.
    pub(crate) id: SiteId,
    /// The series of the site.
    pub(crate) series: Series,
    /// The series of the site together with all its stacks; `None`: the site has no stacks.
    pub(crate) with_stacks: Option<Series>,
    /// The counters of the site at the last slice of the trace, even if this slice is not on a grid point.
    pub(crate) counters: Counters,
}

/// Makes the series of each site of a trace, at the points of `grid`, and calls `each` to convert the site
/// into a result. Several threads process the sites in parallel. Each series is dropped after `each` has
/// returned, so only a few complete series are in memory at the same time.
///
/// If `with_sums` is true, each series also gets the exact sums that `--model edleak` needs.
pub(crate) fn replay<T: Send>(
    trace: &Trace,
    merged: &Merged,
    grid: Grid,
    with_sums: bool,
    each: impl Fn(ReplayedSite) -> T + Sync,
) -> Replayed<T> {
    let mut states = States::new(trace, grid, with_sums);
    let mut families = Families::new(trace.sites(), merged, grid);
    let mut replayed = Replayed {
        sites: Vec::new(),
        process: ProcessSeries::default(),
        turnover_bytes: 0,
        slices: 0,
        last_ns: 0,
        work: Arc::default(),
        missing_points: 0,
        missing_behind: 0,
        longest_gap: 0,
        memory: MemoryEnds::default(),
        unreadable_blocks: 0,
    };
    let mut window: Vec<Opened> = Vec::new();
    let blocks = trace.blocks().len();
    let threads = rayon::current_num_threads();
    meter::begin(blocks as u64);

    for start in (0..blocks).step_by(threads) {
        window.resize_with(threads.min(blocks - start), Opened::default);
        window.par_iter_mut().enumerate().for_each(|(i, opened)| opened.open(trace, start + i, states.grid));
        let is_last = start + window.len() == blocks;
        let moves = states.condense(&window, &families, merged, is_last, &mut replayed);
        families.condense(moves, &states.gaps);
        meter::advance(window.len() as u64);
        replayed.unreadable_blocks +=
            window.iter().map(|opened| u64::from(opened.is_unreadable)).sum::<u64>();
    }
    states.finish(families, merged, &BirthTable::new(trace, merged, grid), &mut replayed, each);
    replayed
}

/// The series of all sites while the replay builds them. The index of a site is its id.
#[derive(Debug)]
struct States {
    grid: Grid,
    id_limit: usize,
    exact: bool,
    groups: Vec<Group>,
    powers: PowerSums,
    /// Number of bytes that all sites had allocated from the heap up to the first slice.
    first_allocated_bytes: Option<u64>,
    /// Number of grid points up to the newest slice.
    covered: usize,
    /// Number of points up to the newest slice, on a grid that covers the whole recording. (The other grid
    /// may end earlier, where the teardown begins.)
    all_covered: usize,
    whole: Grid,
    work: WorkBuilder,
    /// The memory of the process at the newest slice.
    newest: ProcessPoint,
    /// All gaps so far: for each gap, the tick of the slice that ends the gap, and the grid points of the
    /// gap.
    gaps: Vec<(u64, Gap)>,
    memory: Memory,
    /// The newest counters of every site, from the last block. The first slice of a block names every site
    /// that ever counted anything.
    totals: Vec<Counters>,
}

impl States {
    fn new(trace: &Trace, grid: Grid, with_sums: bool) -> Self {
        let id_limit = (SLACK * trace.sites().len()).max(MIN_ID_LIMIT).next_multiple_of(TILE_SITES);
        Self {
            grid,
            id_limit,
            exact: with_sums,
            groups: Vec::new(),
            powers: PowerSums::new(grid),
            first_allocated_bytes: None,
            covered: 0,
            all_covered: 0,
            whole: trace.grid(),
            work: WorkBuilder::new(grid.points as u64),
            newest: ProcessPoint::default(),
            gaps: Vec::new(),
            memory: Memory::new(trace),
            totals: Vec::new(),
        }
    }

    /// Adds the slices of a window (several decompressed blocks) to the series; each task takes one range of
    /// sites. Returns the changes of all sites that are part of a sum, such as watched sites and their
    /// stacks.
    fn condense<T>(
        &mut self,
        window: &[Opened],
        families: &Families,
        merged: &Merged,
        is_last: bool,
        replayed: &mut Replayed<T>,
    ) -> Vec<FamilyMove> {
        let sites = window.iter().map(|opened| opened.columns.sites()).max().unwrap_or(0).min(self.id_limit);
        let groups = sites.next_multiple_of(TILE_SITES) / GROUP_SITES;
        if groups > self.groups.len() {
            self.groups.resize_with(groups, || Group::new(self.exact));
        }
        let points = self.grid.points as u32;
        let range = Range { window, families, merged, is_last, points, powers: &self.powers };
        let tiles = self.groups.len() / GROUPS_PER_TILE;
        let tiles_per_range = tiles.div_ceil(RANGES_PER_THREAD * rayon::current_num_threads()).max(1);
        let ranges: Vec<Condensed> = self
            .groups
            .par_chunks_mut(tiles_per_range * GROUPS_PER_TILE)
            .enumerate()
            .map(|(i, groups)| arch::condense(&range, i * tiles_per_range * TILE_SITES, groups))
            .collect();

        let mut slice = 0;
        for opened in window {
            let mut allocs = 0u64;
            for (at, (header, step)) in opened.headers().zip(&opened.steps).enumerate() {
                self.memory.slice(at == 0, opened.columns.memory(at));
                // The result of a wrapping sum of integers does not depend on the order of the integers.
                let sum = |of: fn(&Condensed) -> &Vec<u64>| {
                    ranges.iter().fold(0u64, |sum, range| sum.wrapping_add(of(range)[slice]))
                };
                allocs = allocs.wrapping_add(sum(|range| &range.allocs));
                // The live bytes of the process are only the heap, so the function subtracts memory that the
                // program mapped with calls such as mmap.
                let counted = self.memory.counted_bytes();
                let live_bytes = sum(|range| &range.live_bytes).saturating_sub(counted);
                self.note(header, *step, live_bytes, allocs, replayed);
                if self.first_allocated_bytes.is_none() {
                    let allocated = ranges.iter().map(|range| range.first_allocated_bytes);
                    self.first_allocated_bytes = Some(allocated.fold(0, u64::wrapping_add));
                }
                slice += 1;
            }
        }
        let mut moves = Vec::new();
        for mut range in ranges {
            moves.append(&mut range.family_moves);
            self.totals.append(&mut range.totals);
        }
        moves
    }

    /// Stores the values of the whole program at a slice. If slices are missing before this slice, the
    /// function also stores this gap.
    fn note<T>(
        &mut self,
        header: &SliceHeader,
        step: Step,
        live_bytes: u64,
        allocs: u64,
        replayed: &mut Replayed<T>,
    ) {
        replayed.slices += 1;
        replayed.last_ns = replayed.last_ns.max(header.time_ns);
        let resident_bytes = header.rss_anon_bytes.saturating_add(header.swap_bytes);
        let kinds = self.memory.kinds();
        let now = ProcessPoint { live_bytes, resident_bytes, kinds };
        let point = step.point as usize;
        // A slice after the end of the grid matters only if it ends a gap that began before the end of the
        // grid: it gives the values at the end of the gap.
        let is_of_record = step.counts || self.covered < self.grid.points;
        if let Some(gap) = self.covered.checked_sub(1).and_then(|newest| Gap::between(newest, point)) {
            replayed.missing_points += gap.points().len() as u64;
            self.gaps.push((header.tick, gap));
            for at in gap.points() {
                let line = |of: fn(&ProcessPoint) -> u64| gap.value(at, of(&self.newest), of(&now));
                let (live_bytes, resident_bytes) = (line(|p| p.live_bytes), line(|p| p.resident_bytes));
                replayed.process.push(ProcessPoint { live_bytes, resident_bytes, kinds });
            }
        }
        if is_of_record {
            self.covered = self.covered.max(point + usize::from(step.counts));
        }
        // If the record ends with a gap, the number of allocations in this gap is unknown, so the replay adds
        // nothing to the curve of allocations for this gap.
        if step.counts {
            self.work.push(point as u64, allocs);
            self.memory.count();
            replayed.process.push(now);
            self.newest = now;
        }
        let at = self.whole.point_of(header.tick).unwrap_or(self.whole.points);
        if let Some(gap) = self.all_covered.checked_sub(1).and_then(|newest| Gap::between(newest, at)) {
            let missing = gap.points();
            replayed.longest_gap = replayed.longest_gap.max(missing.len() as u64);
            replayed.missing_behind += missing.end.saturating_sub(missing.start.max(self.grid.points)) as u64;
        }
        self.all_covered = self.all_covered.max(at + 1);
    }

    /// Ends every series.
    fn finish<T: Send>(
        mut self,
        families: Families,
        merged: &Merged,
        births: &BirthTable,
        replayed: &mut Replayed<T>,
        each: impl Fn(ReplayedSite) -> T + Sync,
    ) {
        let of_heap = |(id, _): &(usize, &Counters)| !merged.is_beside_heap(SiteId(*id as u32));
        let allocated = self.totals.iter().enumerate().filter(of_heap);
        let allocated = allocated.fold(0u64, |sum, (_, counters)| sum.wrapping_add(counters.allocated_bytes));
        replayed.turnover_bytes = allocated.saturating_sub(self.first_allocated_bytes.unwrap_or(0));

        replayed.memory = self.memory.ends();
        let work = Arc::new(std::mem::take(&mut self.work).finish());
        replayed.work = Arc::clone(&work);
        let points = self.grid.points;
        let sums = families.finish(|root, absent| births.of(root, absent));
        let totals = |site: usize| self.totals.get(site).copied().unwrap_or(Counters::ZERO);
        let totals_of = |id: SiteId| match merged.members(id) {
            Some(members) => members.iter().fold(Counters::ZERO, |sum, id| sum.plus(totals(id.0 as usize))),
            None => totals(id.0 as usize),
        };
        let site = |id: SiteId, own: Option<Series>| {
            let counters = totals_of(id);
            let together = sums.merged.get(&id);
            let series = together.map(|series| series.clone().with_totals(counters.allocs, counters.frees));
            let with_stacks =
                sums.with_stacks.get(&id).cloned().map(|series| series.beside(Arc::clone(&work)));
            // If a caller was watched from the start, all its allocations are counted for its stacks. So no
            // slice has counters of the caller itself, and its own series has only zeros.
            let silent = || {
                let whole = with_stacks.as_ref();
                let mut builder = SeriesBuilder::new();
                builder.absent(whole.map_or(0, Series::absent));
                builder.push_run(Point::default(), whole.map_or(0, Series::points));
                builder.finish()
            };
            let series = series.or(own).unwrap_or_else(silent).beside(Arc::clone(&work));
            (id, each(ReplayedSite { id, series, with_stacks, counters }))
        };
        let made: Vec<Vec<(SiteId, T)>> = self
            .groups
            .into_par_iter()
            .enumerate()
            .map(|(group, sites)| {
                let first = group * GROUP_SITES;
                // The index fits into a u32, because it is the number of a `SiteId`.
                let id = |lane: usize| SiteId((first + lane) as u32);
                let mut made = Vec::with_capacity(GROUP_SITES);
                let facts = |lane: usize, absent| {
                    let counters = totals(first + lane);
                    (counters.allocs, counters.frees, births.of(id(lane), absent))
                };
                sites.finish(points, &self.powers, facts, |lane, series| {
                    if !merged.is_part(id(lane)) {
                        made.push(site(id(lane), Some(series)));
                    }
                });
                made
            })
            .collect();
        let mut made: Vec<(SiteId, T)> = made.into_iter().flatten().collect();
        let is_made = |id: &SiteId| made.binary_search_by_key(id, |(id, _)| *id).is_ok();
        let silent = sums.with_stacks.keys().chain(sums.merged.keys());
        let silent: BTreeSet<SiteId> = silent.filter(|id| !is_made(id)).copied().collect();
        made.extend(silent.into_iter().map(|id| site(id, None)));
        made.sort_by_key(|(id, _)| *id);
        replayed.sites = made.into_iter().map(|(_, site)| site).collect();
    }
}
