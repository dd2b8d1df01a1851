//! Adds the slices of a window to the series of one range of sites. (A window is the blocks that a replay
//! keeps decompressed at the same time.)

use super::family::{Families, FamilyMove};
use super::group::Group;
use super::merge::Merged;
use super::opened::Opened;
use super::sums::PowerSums;
use edleak_format::{CHUNK_SLICES, Counters, GROUP_SITES, Row, SiteId, TILE_SITES, TileReader};

pub(super) const GROUPS_PER_TILE: usize = TILE_SITES / GROUP_SITES;

/// The sums of the counters of all sites of one range, for each slice of a window.
#[derive(Default)]
pub(super) struct Condensed {
    /// Live bytes of all sites of the range, at each slice.
    pub(super) live_bytes: Vec<u64>,
    /// For each slice, the number of allocations since the previous slice. The item for the first slice of a
    /// block is the number of allocations since the start of the recording.
    pub(super) allocs: Vec<u64>,
    /// Number of bytes that all sites of this range together had allocated from the heap before the first
    /// slice.
    pub(super) first_allocated_bytes: u64,
    /// The newest counters of each site. Only the last window of the trace fills this list.
    pub(super) totals: Vec<Counters>,
    pub(super) family_moves: Vec<FamilyMove>,
}

/// The data that all tasks share while they process one window (several decompressed blocks).
pub(super) struct Range<'a> {
    pub(super) window: &'a [Opened],
    pub(super) families: &'a Families,
    pub(super) merged: &'a Merged,
    pub(super) is_last: bool,
    pub(super) points: u32,
    pub(super) powers: &'a PowerSums,
}

impl Range<'_> {
    /// Adds all slices of the window to the series of a range of sites; `first_site` is the first site of the
    /// range. The function works on one tile (128 neighbouring sites) at a time, so that the data of the tile
    /// stay in the innermost caches of the processor.
    #[inline(always)]
    pub(super) fn condense(&self, first_site: usize, groups: &mut [Group]) -> Condensed {
        let mut condensed = Condensed::default();
        let mut rows: Vec<Row> = Vec::with_capacity(CHUNK_SLICES);
        for (block, opened) in self.window.iter().enumerate() {
            let keeps_totals = self.is_last && block + 1 == self.window.len();
            let slices = condensed.live_bytes.len();
            condensed.live_bytes.resize(slices + opened.steps.len(), 0);
            condensed.allocs.resize(slices + opened.steps.len(), 0);
            let mut reader = TileReader::new(&opened.columns, first_site);
            for (tile, groups) in groups.chunks_mut(GROUPS_PER_TILE).enumerate() {
                let site = first_site + tile * TILE_SITES;
                let mut first = 0;
                while first < opened.steps.len() {
                    // The loop adds the first slice of the trace alone, because it must read the number of
                    // bytes allocated up to this slice.
                    let is_first = slices + first == 0;
                    let end = opened.steps.len().min(if is_first { 1 } else { first + CHUNK_SLICES });
                    reader.place(first, end - first);
                    let sums = &mut condensed.live_bytes[slices + first..slices + end];
                    let allocs = &mut condensed.allocs[slices + first..slices + end];
                    let live_bytes = &mut [[0; GROUP_SITES]; CHUNK_SLICES][..end - first];
                    for (i, group) in groups.iter_mut().enumerate() {
                        reader.rows(i, &mut rows);
                        group.take(&rows, &opened.steps[first..end], self.points, self.powers, live_bytes);
                        for (sum, row) in allocs.iter_mut().zip(&rows) {
                            *sum = sum.wrapping_add(row.allocs);
                        }
                        if !self.families.is_empty() {
                            let moves = &mut condensed.family_moves;
                            self.families.note(site + i * GROUP_SITES, &rows, &opened.columns, first, moves);
                        }
                    }
                    for (sum, lanes) in sums.iter_mut().zip(live_bytes) {
                        *sum = lanes.iter().fold(*sum, |sum, live| sum.wrapping_add(*live));
                    }
                    if is_first {
                        let is_of_heap = |at: &usize| !self.merged.is_beside_heap(SiteId((site + at) as u32));
                        condensed.first_allocated_bytes = (0..TILE_SITES)
                            .filter(is_of_heap)
                            .map(|site| reader.counters(site).allocated_bytes)
                            .fold(condensed.first_allocated_bytes, u64::wrapping_add);
                    }
                    first = end;
                }
                if keeps_totals {
                    condensed.totals.extend((0..TILE_SITES).map(|site| reader.counters(site)));
                }
                reader.next_tile();
            }
        }
        condensed
    }
}
