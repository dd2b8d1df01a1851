//! The counters of mapped memory or of pools at each mark. The collector computes the counters of mapped
//! memory and pools from a ring of events. When the target takes a slice at a mark, it also adds one event to
//! this ring, so the collector knows which events came before the mark.

use edleak_format::Counters;
use edleak_session::mark::RING_WORDS;
use std::collections::{BTreeMap, VecDeque};

/// Maximum number of marks whose slice the collector has not read yet. If there are more such marks, the
/// collector adds their changed counters to the last mark of the list. Without a maximum, a damaged target
/// could add marks until the memory of the collector is full.
const MOST_WAITING: usize = 4096;

/// For each site whose counters have changed, by its index in a ledger: the new counters.
type Changes = BTreeMap<usize, Counters>;

/// For each mark whose slice the collector has not read yet: the counters that have changed since the
/// previous mark.
#[derive(Clone, Default, Debug)]
pub(crate) struct CountersAtMarks {
    /// For each site, in the order of the ledger: the counters of the site at the latest mark.
    latest: Vec<Counters>,
    /// The marks whose slice the collector has not read yet. Each element holds the position of the mark's
    /// slice in the ring of marks, and the counters that have changed since the previous mark.
    waiting: VecDeque<(u64, Changes)>,
    /// The position of the latest slice that was passed to [`CountersAtMarks::take`].
    read: u64,
}

impl CountersAtMarks {
    /// Notes the counters at a mark. `slice` is the position of the mark's slice in the ring of marks.
    pub(crate) fn note(&mut self, slice: u64, counters: &[Counters]) {
        // Ignore a position that no slice can have. Without this check, the collector would wait forever for
        // a slice at a wrong position, and would not use the counters of later marks.
        if slice.wrapping_sub(self.read) > 2 * RING_WORDS as u64 {
            return;
        }
        self.latest.resize(self.latest.len().max(counters.len()), Counters::ZERO);
        let pairs = self.latest.iter_mut().zip(counters).enumerate();
        let changed = pairs.filter(|(_, (before, now))| **before != **now).map(|(owner, (before, now))| {
            *before = *now;
            (owner, *now)
        });
        let changed: Changes = changed.collect();
        let is_full = self.waiting.len() >= MOST_WAITING;
        match self.waiting.back_mut().filter(|_| is_full) {
            Some((_, last)) => last.extend(changed),
            None => self.waiting.push_back((slice, changed)),
        }
    }

    /// Removes and returns the changes of all marks up to the mark whose slice is at position `slice`.
    pub(crate) fn take(&mut self, slice: u64) -> Changes {
        self.read = slice;
        let mut changes = Changes::new();
        while self.waiting.front().is_some_and(|(place, _)| *place <= slice) {
            changes.extend(self.waiting.pop_front().into_iter().flat_map(|(_, changed)| changed));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(bytes: u64) -> Counters {
        Counters { allocated_bytes: bytes, allocs: 1, ..Counters::ZERO }
    }

    #[test]
    fn each_mark_has_the_changes_since_the_mark_before() {
        let mut marks = CountersAtMarks::default();
        marks.note(0, &[live(1), live(2)]);
        marks.note(7, &[live(1), live(3), live(4)]);
        marks.note(14, &[live(9), live(3), live(4)]);
        assert_eq!(marks.take(0), Changes::from([(0, live(1)), (1, live(2))]));
        let both = Changes::from([(0, live(9)), (1, live(3)), (2, live(4))]);
        assert_eq!(marks.take(14), both, "a slice that is not in the trace leaves its changes to the next");
        assert!(marks.take(21).is_empty());
    }

    #[test]
    fn places_that_no_slice_has_hold_nothing_back_and_marks_beyond_the_room_are_merged() {
        let mut marks = CountersAtMarks::default();
        marks.note(u64::MAX, &[live(1)]);
        marks.note(1 << 40, &[live(1)]);
        for slice in 0..2 * MOST_WAITING as u64 {
            marks.note(slice, &[live(slice + 1)]);
        }
        assert_eq!(marks.waiting.len(), MOST_WAITING);
        let last = marks.take(2 * MOST_WAITING as u64);
        assert_eq!(last, Changes::from([(0, live(2 * MOST_WAITING as u64))]));
    }
}
