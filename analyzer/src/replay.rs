//! 2 Blocks to one series per site, in parallel, in memory that follows the number of sites.
//!
//! ```text
//!   blocks    ▓▓▓▓ ▓▓▓▓ │ ▓▓▓▓ ▓▓▓▓ │ …      a window: as many blocks as there are threads
//!                │    │                       decode: one block per task ([`decode`])
//!   moves     ≡≡≡≡ ≡≡≡≡                      (slice, site, live bytes, live count), by slice, then by site
//!              ╲  ╳  ╱                        condense: one range of sites per task, slices in order of time
//!   sites     [0..) [4096..) [8192..) …       one [`State`] each
//! ```
//!
//! The slices of a trace may be at several distances (older ones coarser). A series has to be even, so it is taken on the
//! trace's [`Grid`]: at each point the newest slice that is not after it. Between two moves of a site nothing is done at all: the
//! stretch is pushed as one run when the next move comes. All sums are of integers, and each series sees its points in order of time,
//! so the result is the same to the bit for any number of threads.

mod births;
mod decode;
mod family;
pub mod points;
mod site;

use crate::growth_kind::{ProcessPoint, ProcessSeries};
use crate::series::{Point, Series, SeriesBuilder};
pub use births::BirthTable;
use decode::{Decoded, DecodedSlice, decode};
use edleak_format::{Counters, Grid, SiteId, Trace};
use family::Families;
use rayon::prelude::*;
use site::{PowerSums, State};

/// Sites per task.
const SITES_PER_TASK: usize = 4096;
/// Sites that go through a window together: their states (160 bytes each) stay in the innermost cache.
const SITES_AT_A_TIME: usize = 128;
/// Site ids are dense, so an id far beyond the catalog is a forgery and would only cost memory ...
const SLACK: usize = 4;
/// ... but a damaged catalog must not hide the slices of a sound trace.
const MIN_ID_LIMIT: usize = 1 << 16;

/// What the slices say.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Every site that a slice names, by ascending id.
    pub sites: Vec<ReplayedSite>,
    /// The process over time.
    pub process: ProcessSeries,
    /// Bytes allocated from the first slice to the last.
    pub turnover_bytes: u64,
    /// Slices read.
    pub slices: u64,
    /// Time of the last slice since the recording began.
    pub last_ns: u64,
    /// Blocks that were sound when the trace was opened and are not any more.
    pub unreadable_blocks: u64,
}

/// One site of a trace.
#[derive(Clone, Debug)]
pub struct ReplayedSite {
    /// Its id.
    pub id: SiteId,
    /// The series.
    pub series: Series,
    /// The series of the site and all its stacks together, where it has stacks.
    pub with_stacks: Option<Series>,
    /// The newest counters, also if that slice is on no grid point.
    pub counters: Counters,
}

/// Replays the slices of a trace.
pub fn replay(trace: &Trace) -> Replayed {
    let grid = trace.grid();
    let mut states = States::new(trace);
    let mut families = Families::new(trace.sites(), grid);
    let mut replayed = Replayed::default();
    let mut window: Vec<Decoded> = Vec::new();
    let blocks = trace.blocks().len();
    let threads = rayon::current_num_threads();

    for start in (0..blocks).step_by(threads) {
        window.resize_with(threads.min(blocks - start), Decoded::default);
        window.par_iter_mut().enumerate().for_each(|(i, decoded)| {
            decode(trace, start + i, start + i + 1 == blocks, &states, &families, decoded);
        });
        states.condense(&window, &mut replayed);
        families.condense(&window);
        replayed.unreadable_blocks +=
            window.iter().map(|decoded| u64::from(decoded.is_unreadable)).sum::<u64>();
    }
    states.finish(&window, families, &BirthTable::new(trace, grid), &mut replayed);
    replayed
}

/// All sites, by id.
#[derive(Debug)]
struct States {
    grid: Grid,
    id_limit: usize,
    sites: Vec<State>,
    powers: PowerSums,
    /// Live bytes of all sites at the newest slice.
    live_bytes: u64,
    /// What all sites had allocated at the first slice.
    first_allocated_bytes: Option<u64>,
}

impl States {
    fn new(trace: &Trace) -> Self {
        let id_limit = (SLACK * trace.sites().len()).max(MIN_ID_LIMIT);
        Self {
            grid: trace.grid(),
            id_limit,
            sites: Vec::new(),
            powers: PowerSums::new(trace.grid()),
            live_bytes: 0,
            first_allocated_bytes: None,
        }
    }

    /// Pushes the moves of a window, each range of sites on its own.
    fn condense(&mut self, window: &[Decoded], replayed: &mut Replayed) {
        let sites = window.iter().map(|decoded| decoded.sites).max().unwrap_or(0).max(self.sites.len());
        self.sites.resize_with(sites, State::default);
        let (grid, powers) = (self.grid, &self.powers);
        let slices = window.iter().map(|decoded| decoded.slices.len()).sum();

        // Each range adds up by how much it changes the process's live bytes at each slice; wrapping sums of integers
        // are the same in any order.
        let changes = self
            .sites
            .par_chunks_mut(SITES_PER_TASK)
            .enumerate()
            .fold(
                || vec![0u64; slices],
                |mut changes, (chunk, states)| {
                    condense_range(window, grid, powers, chunk * SITES_PER_TASK, states, &mut changes);
                    changes
                },
            )
            .reduce(
                || vec![0u64; slices],
                |mut one, other| {
                    one.iter_mut().zip(other).for_each(|(sum, change)| *sum = sum.wrapping_add(change));
                    one
                },
            );
        for (slice, change) in window.iter().flat_map(|decoded| &decoded.slices).zip(changes) {
            self.live_bytes = self.live_bytes.wrapping_add(change);
            let header = &slice.header;
            if self.grid.point_of(header.tick).is_some() {
                let resident_bytes = header.rss_anon_bytes.saturating_add(header.swap_bytes);
                replayed.process.push(ProcessPoint { live_bytes: self.live_bytes, resident_bytes });
            }
            replayed.slices += 1;
            replayed.last_ns = replayed.last_ns.max(header.time_ns);
            self.first_allocated_bytes.get_or_insert(slice.allocated_bytes);
        }
    }

    /// Ends every series. `window` is the last one: its last block names every site that ever counted anything.
    fn finish(
        self,
        window: &[Decoded],
        families: Families,
        births: &BirthTable<'_>,
        replayed: &mut Replayed,
    ) {
        let mut totals = vec![Counters::ZERO; self.sites.len()];
        for &(id, counters) in window.last().map_or(&[][..], |decoded| &decoded.totals) {
            totals[id as usize] = counters;
        }
        let allocated: u64 =
            totals.iter().fold(0, |sum, counters| sum.wrapping_add(counters.allocated_bytes));
        replayed.turnover_bytes = allocated.saturating_sub(self.first_allocated_bytes.unwrap_or(0));

        let points = self.grid.points;
        let mut with_stacks = families.finish();
        let ended: Vec<Option<ReplayedSite>> = self
            .sites
            .into_par_iter()
            .zip(totals)
            .enumerate()
            .map(|(id, (state, counters))| {
                if !state.is_seen() {
                    return None;
                }
                // Ids came out of a `SiteId`.
                let id = SiteId(id as u32);
                let births = births.of(id, state.absent());
                let series = state.finish(points, counters.allocs, counters.frees, &self.powers, births);
                Some(ReplayedSite { id, series, with_stacks: None, counters })
            })
            .collect();
        replayed.sites = ended.into_iter().flatten().collect();
        for site in &mut replayed.sites {
            site.with_stacks = with_stacks.remove(&site.id);
        }
        // A caller that was watched from the start has counted nothing itself, so that no slice names it.
        let silent = with_stacks.into_iter().map(|(id, together)| {
            let mut builder = SeriesBuilder::new();
            builder.absent(together.absent());
            builder.push_run(Point::default(), together.points());
            ReplayedSite {
                id,
                series: builder.finish(),
                with_stacks: Some(together),
                counters: Counters::ZERO,
            }
        });
        replayed.sites.extend(silent);
        replayed.sites.sort_by_key(|site| site.id);
    }
}

/// Pushes the moves of one range of sites, which starts at `first`: a few sites at a time through all slices of the
/// window, so that their states stay in the innermost cache.
fn condense_range(
    window: &[Decoded],
    grid: Grid,
    powers: &PowerSums,
    first: usize,
    states: &mut [State],
    changes: &mut [u64],
) {
    let mut slices: Vec<Cursor<'_>> = window
        .iter()
        .flat_map(|decoded| decoded.slices.iter().map(move |slice| Cursor::new(decoded, slice, grid, first)))
        .collect();
    for (group, states) in states.chunks_mut(SITES_AT_A_TIME).enumerate() {
        let base = first + group * SITES_AT_A_TIME;
        for (slice, sum) in slices.iter_mut().zip(&mut *changes) {
            let end = base + states.len();
            let moves = slice.ids.iter().zip(slice.live).take_while(|(id, _)| (**id as usize) < end);
            let mut taken = 0;
            match slice.point {
                Some(point) => {
                    let mut change = 0u64;
                    for (&id, &(live_bytes, live_count)) in moves {
                        let state = &mut states[id as usize - base];
                        change = change.wrapping_add(live_bytes.wrapping_sub(state.live_bytes()));
                        state.moves(point, live_bytes, live_count, powers, grid.points);
                        taken += 1;
                    }
                    *sum = sum.wrapping_add(change);
                }
                // After the last point only the totals count. A site that is new there has no point at all.
                None => {
                    for (&id, _) in moves {
                        states[id as usize - base].see_after_last(grid.points);
                        taken += 1;
                    }
                }
            }
            slice.ids = &slice.ids[taken..];
            slice.live = &slice.live[taken..];
        }
    }
}

/// The moves of one slice that are still to come, ascending by site.
struct Cursor<'a> {
    point: Option<usize>,
    ids: &'a [u32],
    live: &'a [(u64, u64)],
}

impl<'a> Cursor<'a> {
    /// At the moves of site `first`.
    fn new(decoded: &'a Decoded, slice: &DecodedSlice, grid: Grid, first: usize) -> Self {
        let before = decoded.site_ids[slice.moves.clone()].partition_point(|&id| (id as usize) < first);
        let rest = slice.moves.start + before..slice.moves.end;
        Self {
            point: grid.point_of(slice.header.tick),
            ids: &decoded.site_ids[rest.clone()],
            live: &decoded.live[rest],
        }
    }
}
