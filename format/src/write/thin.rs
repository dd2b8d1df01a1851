//! Thinning: merges two old blocks and drops every other slice of these blocks.
//!
//! When the file reaches its capacity, the writer merges two neighbouring blocks and drops every other slice
//! of the two blocks. Slices of one level are 2^level ticks apart. The writer first thins the oldest blocks
//! of the level that takes the most space. So after some time all levels take equal shares of the capacity.
//! Recent slices are close together, and old slices are far apart. The number of levels grows only with the
//! logarithm of the recording's length. Thinning begins a new highest level only in two cases: if the whole
//! recording still has [`MIN_EVEN_SLICES`] slices at the new level, or if the writer can merge no two
//! neighbouring blocks at a lower level.

use crate::ids::{AreaId, SiteId};
use crate::layout::areas::Areas;
use crate::layout::delta::Encoder;
use crate::memory::AreaBytes;
use crate::slice::{Counters, SliceHeader, SliceVisitor};

/// Every recording keeps at least this number of evenly spaced slices, if the capacity has room for them.
pub(crate) const MIN_EVEN_SLICES: u64 = 256;

/// The properties of a block by which the writer chooses a pair to merge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub level: u8,
    pub bytes: u64,
}

/// Chooses two neighbouring blocks to merge and returns the index of the older block. `None`: the trace has
/// fewer than two blocks.
///
/// `span_ticks` is the number of ticks from the first slice to the newest slice.
pub(crate) fn choose_pair(blocks: &[Candidate], span_ticks: u64) -> Option<usize> {
    let coarsest = blocks.iter().map(|block| block.level).max()?;
    let mut bytes_of_level = [0u64; 64];
    for block in blocks {
        bytes_of_level[block.level as usize] += block.bytes;
    }
    let pairs = || blocks.windows(2).enumerate().map(|(index, pair)| (index, pair[0].level, pair[1].level));
    // The best pair is on the level with the most bytes. If several levels have equally many bytes, the best
    // pair is on the lowest of these levels. Among the pairs on one level, a pair of two blocks of equal
    // level is better than any other pair, and an older pair is better than a newer pair.
    let best = |may_begin_level: bool| {
        pairs()
            .filter(|&(_, a, b)| may_begin_level || a.min(b) < coarsest)
            .max_by_key(|&(index, a, b)| {
                let level = a.min(b);
                (bytes_of_level[level as usize], 63 - level, a == b, usize::MAX - index)
            })
            .map(|(index, ..)| index)
    };
    let may_begin_level = coarsest < 62 && span_ticks >> (coarsest + 1) >= MIN_EVEN_SLICES;
    best(may_begin_level).or_else(|| best(true))
}

/// Receives the slices of the blocks to merge, and passes only the newest slice of each span of
/// `stride_ticks`. A reader that wants one value per `stride_ticks` uses exactly the newest slice of each
/// span. So thinning does not change the values that this reader gets.
pub(crate) struct Thinner<'a> {
    encoder: &'a mut Encoder,
    stride_ticks: u64,
    /// The tick of the first slice of the trace; this slice is never dropped.
    first_tick: u64,
    /// The newest slice that the thinner has received. Whether the thinner drops this slice depends on the
    /// tick of the next slice.
    waiting: Option<SliceHeader>,
    table: Vec<Counters>,
    is_dirty: Vec<bool>,
    dirty: Vec<u32>,
    begins_block: bool,
    areas: Areas,
}

impl<'a> Thinner<'a> {
    pub(crate) fn new(encoder: &'a mut Encoder, stride_ticks: u64, first_tick: u64) -> Thinner<'a> {
        Thinner {
            encoder,
            stride_ticks,
            first_tick,
            waiting: None,
            table: Vec::new(),
            is_dirty: Vec::new(),
            dirty: Vec::new(),
            begins_block: false,
            areas: Areas::default(),
        }
    }

    /// Call this function before the first slice of a block. The first slice of a block holds absolute
    /// values: if a site is not in it, the counters of the site are zero.
    pub(crate) fn begin_block(&mut self) {
        self.begins_block = true;
    }

    /// Ends the input; `next_tick` is the tick of the slice after the merged blocks.
    pub(crate) fn finish(mut self, next_tick: u64) {
        self.pass_or_drop(next_tick);
    }

    fn span(&self, tick: u64) -> u64 {
        tick.div_ceil(self.stride_ticks)
    }

    /// Passes the slice in `waiting` on, or drops it if the next slice is in the same span of `stride_ticks`.
    fn pass_or_drop(&mut self, next_tick: u64) {
        let Some(header) = self.waiting.take() else { return };
        if self.span(header.tick) == self.span(next_tick) && header.tick != self.first_tick {
            return;
        }
        self.dirty.sort_unstable();
        self.encoder.memory(self.areas.all());
        let table = &self.table;
        self.encoder.slice(&header, self.dirty.iter().map(|&id| (SiteId(id), table[id as usize])));
        for id in self.dirty.drain(..) {
            self.is_dirty[id as usize] = false;
        }
    }

    /// Passes the slice in `waiting` on or drops it, when the next slice arrives. At the beginning of a
    /// block, the function clears all values, because the first slice of a block holds absolute values.
    fn next(&mut self, header: &SliceHeader) {
        self.pass_or_drop(header.tick);
        if !std::mem::take(&mut self.begins_block) {
            return;
        }
        self.areas.clear();
        for id in 0..self.table.len() as u32 {
            if self.table[id as usize] != Counters::ZERO {
                self.set(id, Counters::ZERO);
            }
        }
    }

    fn set(&mut self, id: u32, counters: Counters) {
        let index = id as usize;
        if index >= self.table.len() {
            self.table.resize(index + 1, Counters::ZERO);
            self.is_dirty.resize(index + 1, false);
        }
        self.table[index] = counters;
        if !std::mem::replace(&mut self.is_dirty[index], true) {
            self.dirty.push(id);
        }
    }
}

impl SliceVisitor for Thinner<'_> {
    fn memory(&mut self, header: &SliceHeader, changed: &[(AreaId, AreaBytes)]) {
        self.next(header);
        self.areas.set(changed);
    }

    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        self.next(header);
        for &(SiteId(id), counters) in changed {
            self.set(id, counters);
        }
        self.waiting = Some(*header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(levels: &[u8]) -> Vec<Candidate> {
        levels.iter().map(|&level| Candidate { level, bytes: 100 }).collect()
    }

    #[test]
    fn the_fullest_level_gives_way_oldest_first() {
        assert_eq!(choose_pair(&blocks(&[1, 1, 0, 0, 0]), 1 << 20), Some(2));
        assert_eq!(choose_pair(&blocks(&[1, 1, 1, 0, 0]), 1 << 20), Some(0));
        assert_eq!(choose_pair(&blocks(&[2, 1, 0]), 1 << 20), Some(1), "the finest, where levels are even");
        assert_eq!(choose_pair(&blocks(&[0]), 1 << 20), None);
        assert_eq!(choose_pair(&[], 1 << 20), None);
    }

    #[test]
    fn the_even_slices_of_the_whole_run_are_kept_while_anything_else_can_give_way() {
        // The span is 1000 ticks: at level 1 the trace has 500 slices. Level 2 would leave 250 slices, fewer
        // than `MIN_EVEN_SLICES`.
        assert_eq!(choose_pair(&blocks(&[1, 1, 1, 0, 0]), 1000), Some(3));
        assert_eq!(choose_pair(&blocks(&[1, 1, 1, 0]), 1000), Some(2));
        assert_eq!(choose_pair(&blocks(&[1, 1, 1]), 1000), Some(0), "nothing else is left");
    }
}
