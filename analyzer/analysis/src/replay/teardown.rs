//! Finds the slice at which a program began to free everything because it was about to end (the teardown).
//!
//! If memory grew until the teardown, the program did not limit the growth while it worked, even if
//! destructors and exit handlers free the memory at the end. But the frees of the teardown let the curve fall
//! at the end of the record, and this fall would hide the growth from the model. So a record is judged only
//! up to the teardown. This module recognizes a teardown by its frees: in each slice of a teardown, the
//! program makes at least four times as many frees as allocations.
//!
//! If the last phase of work looks like a teardown, the only effect is that the judged record ends a little
//! too early.

use edleak_format::{Counters, EndReason, Grid, SiteId, SliceHeader, SliceVisitor, Trace};

/// Least ratio of frees to allocations in a slice of a teardown.
const FREES_PER_ALLOC: u64 = 4;
/// A teardown may contain up to this number of slices in a row without an allocation or a free, because the
/// ending program may wait for its threads.
const MOST_IDLE: usize = 3;
/// After the teardown, a slice with up to this number of allocations counts as a slice without allocations,
/// because many programs allocate a little to print a last message.
const FAREWELL_ALLOCS: u64 = 8;
/// A teardown takes at most 1/`MOST_OF_RECORD` of the record. If the frees at the end take more than this
/// share of the record, they count as normal work.
const MOST_OF_RECORD: u64 = 8;
/// A gap contains only a small share of the program's work if the program made at most 1/`MOST_IN_GAP` of its
/// allocations in the gap, and if at most 1/`MOST_IN_GAP` of its live bytes come from the gap.
const MOST_IN_GAP: u64 = 8;
/// Least share of a program's mean pace of allocations at which the program counts as at work.
const LEAST_PACE: f64 = 0.25;

/// Returns the grid for the judged record of a trace. If the program ended by itself, the grid ends at the
/// slice before the teardown.
pub fn judged_grid(trace: &Trace) -> Grid {
    let grid = trace.grid();
    let reason = trace.end().map(|end| end.reason);
    if !matches!(
        reason,
        Some(EndReason::Exited(_) | EndReason::Killed(_) | EndReason::Gone | EndReason::Executed)
    ) {
        return grid;
    }
    match last_tick_before(trace) {
        Some(tick) if tick >= grid.first_tick => {
            let points = (tick - grid.first_tick) / grid.stride_ticks.max(1) + 1;
            Grid { points: grid.points.min(usize::try_from(points).unwrap_or(usize::MAX)), ..grid }
        }
        _ => grid,
    }
}

/// The numbers of allocations and of frees that all sites together made up to a slice, and their live bytes
/// at this slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calls {
    tick: u64,
    allocs: u64,
    frees: u64,
    live_bytes: u64,
}

impl Calls {
    fn live(&self) -> u64 {
        self.allocs.saturating_sub(self.frees)
    }

    /// Whether the program allocated since the slice `older` at least at `LEAST_PACE` of its mean pace up to
    /// this slice.
    fn is_at_work_since(self, older: Self) -> bool {
        let pace = |allocs: u64, ticks: u64| allocs as f64 / (ticks as f64).max(1.0);
        let newest = pace(self.allocs.saturating_sub(older.allocs), self.tick.saturating_sub(older.tick));
        newest > 0.0 && newest >= LEAST_PACE * pace(self.allocs, self.tick)
    }
}

/// The newest slice before the teardown; `None`: there is no teardown.
fn last_tick_before(trace: &Trace) -> Option<u64> {
    let blocks = trace.blocks();
    let (first, last) = (blocks.first()?.first_tick, blocks.last()?.last_tick);
    let earliest = last - (last - first) / MOST_OF_RECORD;
    let stride = trace.grid().stride_ticks;
    // The teardown is nearly always in the last block. So the search begins with the newest slice, and reads
    // an older block only if it needs this block.
    let calls = (0..blocks.len()).rev().flat_map(|block| {
        let mut of_block = OfBlock::default();
        // The function ignores an error of this read, because edleak already counted the damaged part of the
        // block when it opened the trace.
        let _ = trace.replay_block(block, &mut of_block);
        of_block.calls.into_iter().rev()
    });
    beginning(calls, earliest, stride)
}

/// Searches slices from the newest to the oldest; a slice is due every `stride` ticks. Returns the tick of
/// the newest slice before the teardown.
///
/// If the last phase of frees begins before tick `earliest`, it counts as normal work. There is one
/// exception: if the frees begin in a gap without slices, they count as a teardown, because they may have
/// begun late in the gap.
///
/// If the program allocates and frees almost nothing after a gap at the end of the record, the program may
/// have ended early in the gap, and the recorder may have taken the last slice late. The replay draws a
/// straight line through the gap. If the program ended early in the gap, this line rises more slowly than the
/// program's memory did, as if the growth had nearly stopped. So the judged record ends before the gap if the
/// program was at work when the gap began, and if the gap contains only a small share of the program's work.
/// Otherwise the judged record ends with the gap, because a leak may have begun in the gap. If the gap is
/// long, the gate is undecided in both cases (`gate/undecided.rs`).
fn beginning(newest_first: impl Iterator<Item = Calls>, earliest: u64, stride: u64) -> Option<u64> {
    let mut newest_first = newest_first.peekable();
    let mut later = newest_first.next()?;
    let (mut before, mut idle) = (None, 0);
    while let Some(calls) = newest_first.next() {
        let allocs = later.allocs.saturating_sub(calls.allocs);
        let frees = later.frees.saturating_sub(calls.frees);
        let is_farewell = before.is_none() && allocs <= FAREWELL_ALLOCS;
        let is_missing = later.tick - calls.tick > 2 * stride;
        // A gap may contain both work and the teardown. If less than half of the live allocations are left
        // after the gap, the function assumes that the gap contains the teardown.
        let is_emptied = is_missing && later.live() < calls.live() / 2;
        if is_emptied || (frees > 0 && frees / FREES_PER_ALLOC >= allocs) {
            (before, idle) = (Some(calls.tick), 0);
        } else if is_missing && before.is_none() {
            // After this gap, the program allocated and freed almost nothing.
            let is_at_work = newest_first.peek().is_some_and(|older| calls.is_at_work_since(*older));
            let grown = later.live_bytes.saturating_sub(calls.live_bytes);
            let is_little = allocs <= later.allocs / MOST_IN_GAP && grown <= later.live_bytes / MOST_IN_GAP;
            return if is_at_work && is_little { Some(calls.tick) } else { later.tick.checked_sub(stride) };
        } else if ((allocs, frees) == (0, 0) || is_farewell) && idle < MOST_IDLE {
            idle += 1;
        } else {
            return before;
        }
        if calls.tick < earliest {
            return before.filter(|_| is_missing);
        }
        later = calls;
    }
    None
}

/// Adds up the counters of all sites at each slice of a block.
#[derive(Default)]
struct OfBlock {
    /// The counters of each site; the index is the site id, because site ids have no gaps.
    of_site: Vec<Counters>,
    allocs: u64,
    frees: u64,
    live_bytes: u64,
    calls: Vec<Calls>,
}

impl SliceVisitor for OfBlock {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        if let Some((SiteId(last), _)) = changed.last()
            && *last as usize >= self.of_site.len()
        {
            self.of_site.resize(*last as usize + 1, Counters::ZERO);
        }
        for (SiteId(id), counters) in changed {
            let was = std::mem::replace(&mut self.of_site[*id as usize], *counters);
            self.allocs = self.allocs.wrapping_sub(was.allocs).wrapping_add(counters.allocs);
            self.frees = self.frees.wrapping_sub(was.frees).wrapping_add(counters.frees);
            self.live_bytes =
                self.live_bytes.wrapping_sub(was.live_bytes()).wrapping_add(counters.live_bytes());
        }
        let (allocs, frees, live_bytes) = (self.allocs, self.frees, self.live_bytes);
        self.calls.push(Calls { tick: header.tick, allocs, frees, live_bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls the function `beginning` with the given slices. `slices` has the oldest slice first; each item
    /// has the numbers of allocations and of frees since the slice before.
    fn before(slices: &[(u64, u64)], earliest: u64) -> Option<u64> {
        before_the_end(slices.iter().map(|&calls| (1, calls)), earliest)
    }

    /// Calls the function `beginning` with the given slices, the oldest slice first. Each item of `steps` has
    /// the number of ticks since the slice before, and the numbers of allocations and of frees in this time.
    /// Each allocation has one byte.
    fn before_the_end(steps: impl Iterator<Item = (u64, (u64, u64))>, earliest: u64) -> Option<u64> {
        let mut sum = Calls { tick: 0, allocs: 0, frees: 0, live_bytes: 0 };
        let mut calls = vec![sum];
        for (ticks, (allocs, frees)) in steps {
            (sum.tick, sum.allocs, sum.frees) = (sum.tick + ticks, sum.allocs + allocs, sum.frees + frees);
            sum.live_bytes = sum.live();
            calls.push(sum);
        }
        beginning(calls.into_iter().rev(), earliest, 1)
    }

    #[test]
    fn frees_up_to_the_end_are_a_teardown() {
        let work = [(100, 90), (100, 110), (100, 90)];
        let then = |end: &[(u64, u64)]| before(&[&work, end].concat(), 0);
        assert_eq!(then(&[]), None);
        assert_eq!(then(&[(2, 500)]), Some(3));
        assert_eq!(then(&[(0, 100), (1, 500), (0, 7)]), Some(3));
        // In the next assertions, the program waits for threads, before and during the teardown.
        assert_eq!(then(&[(0, 0), (0, 0), (0, 100), (0, 0), (0, 0), (0, 1)]), Some(5));
        assert_eq!(then(&[(0, 100), (0, 0), (0, 0), (0, 0), (0, 0), (0, 1)]), Some(8));
        assert_eq!(then(&[(0, 0), (0, 0), (0, 0)]), None);
        // In the next assertions, the program prints a last message, which takes a few allocations.
        assert_eq!(then(&[(0, 500), (2, 0)]), Some(3));
        assert_eq!(then(&[(0, 500), (0, 0), (2, 1), (1, 1)]), Some(3));
        // If a program makes only a few allocations in each of many slices, these allocations count as work.
        assert_eq!(before(&[(1, 0), (1, 0), (1, 0), (1, 0), (0, 500)], 0), Some(4));
        assert_eq!(then(&[(0, 500), (1, 0), (1, 0), (1, 0), (1, 0)]), None);
        // The program frees memory and then continues its work, so this is no teardown.
        assert_eq!(then(&[(0, 500), (100, 90)]), None);
        assert_eq!(then(&[(200, 500)]), None);
    }

    #[test]
    fn frees_that_take_long_are_work() {
        let slices = [&[(100, 50); 10][..], &[(0, 50); 10]].concat();
        assert_eq!((before(&slices, 9), before(&slices, 11)), (Some(10), None));
        // If the program only frees memory from the first slice to the last, these frees are its normal work,
        // and there is no teardown.
        assert_eq!(before(&[(0, 5); 8], 0), None);
    }

    /// Searches for a teardown in slices that have a gap of 30 ticks. After the gap, `after` slices have no
    /// allocation and no free. `in_gap` has the numbers of allocations and frees in the gap.
    fn before_a_gap(in_gap: (u64, u64), after: usize, earliest: u64) -> Option<u64> {
        let work = [(1, (100, 90)); 20].into_iter();
        before_the_end(work.chain([(30, in_gap)]).chain(vec![(1, (0, 0)); after]), earliest)
    }

    #[test]
    fn the_record_ends_before_a_gap_with_a_teardown_or_little_work_and_else_with_the_gap() {
        for after in [0, 1, 2] {
            // The program frees all live memory in the gap, with or without work before.
            assert_eq!(before_a_gap((0, 200), after, 45), Some(20));
            assert_eq!(before_a_gap((1000, 1150), after, 45), Some(20));
            assert_eq!(before_a_gap((1000, 900), after, 45), Some(49));
            // The program made 2,000 allocations before the gap, of which 200 are live.
            assert_eq!(before_a_gap((0, 0), after, 45), Some(20));
            assert_eq!(before_a_gap((285, 280), after, 45), Some(20));
            assert_eq!(before_a_gap((286, 280), after, 45), Some(49));
            assert_eq!(before_a_gap((100, 72), after, 45), Some(20));
            assert_eq!(before_a_gap((100, 71), after, 45), Some(49));
        }
        assert_eq!(before_a_gap((1000, 900), MOST_IDLE + 1, 45), None);
    }

    #[test]
    fn a_program_that_was_quiet_before_a_gap_is_judged_to_its_end() {
        let end = |allocs: u64| {
            let work = [(1, (100, 0)); 20].into_iter().chain([(1, (allocs, 0)); 10]);
            before_the_end(work.chain([(30, (0, 0))]), 45)
        };
        assert_eq!((end(0), end(1), end(10), end(50)), (Some(59), Some(59), Some(59), Some(30)));
    }
}
