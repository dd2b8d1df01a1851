//! Finds the objects of pools in a program that does not report its objects to edleak, but uses the macros of
//! ASan (AddressSanitizer). The macros of ASan make memory accessible, or poison memory (make it
//! inaccessible).
//!
//! A program that uses these macros poisons a chunk of memory as soon as the program has allocated the chunk.
//! The program makes the bytes of an object accessible when it hands the object out, and poisons these bytes
//! again when it takes the object back. This table shows what the collector concludes from each call of a
//! macro:
//!
//! | the program | meaning |
//! |---|---|
//! | poisons a range outside all regions | the range is a new chunk and becomes a region |
//! | makes a part of a region accessible | the program hands out an object |
//! | poisons bytes of objects | the program takes these bytes back |
//! | makes a whole region accessible | the program gives the chunk back, before it frees the chunk |
//! | makes other memory accessible, for example a stack | nothing |

use std::collections::BTreeMap;

/// A site of pools, as an index into the sites of the ledger.
pub(super) type SiteIndex = u32;

/// A piece of an object. A new object is one piece; if the program poisons the middle of the object, two
/// pieces are left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    end: u64,
    owner: SiteIndex,
    /// Whether the object counts as freed when this piece is removed. Of all pieces of an object, this is
    /// `true` for one piece only.
    counts: bool,
}

/// The regions (chunks of memory that the program has poisoned) and the objects in these regions, for one
/// process.
#[derive(Clone, Default, Debug)]
pub(super) struct Poisoned {
    /// For the start of each region: the end of the region.
    regions: BTreeMap<u64, u64>,
    /// The pieces of objects, each under its start address.
    pieces: BTreeMap<u64, Piece>,
}

impl Poisoned {
    /// Whether no object exists.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Keeps only the objects for whose owner `is_kept` returns `true`.
    pub(super) fn retain(&mut self, is_kept: impl Fn(SiteIndex) -> bool) {
        self.pieces.retain(|_, piece| is_kept(piece.owner));
    }

    /// For each piece: its owner, its size in bytes, and whether the object counts as freed when this piece
    /// is removed.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (SiteIndex, u64, bool)> {
        self.pieces.iter().map(|(start, piece)| (piece.owner, piece.end - start, piece.counts))
    }

    /// Notes that the program has poisoned a range, and so has taken back the bytes of all objects in this
    /// range. For each piece of an object that overlaps the range, calls `freed` with three values: the owner
    /// of the object; the number of bytes of the piece that lie in the range; and whether the object now
    /// counts as freed.
    pub(super) fn poison(&mut self, start: u64, size: u64, freed: impl FnMut(SiteIndex, u64, bool)) {
        let Some(end) = start.checked_add(size).filter(|_| size > 0) else { return };
        self.take(start, end, freed);
        if self.region_around(start, end).is_none() {
            let (mut from, mut to) = (start, end);
            for (region, its_end) in overlapping(&self.regions, start, end, |end| *end) {
                self.regions.remove(&region);
                (from, to) = (from.min(region), to.max(its_end));
            }
            self.regions.insert(from, to);
        }
    }

    /// Notes that the program has made a range accessible. Returns whether the range is a new object; the
    /// caller adds this object with [`Self::hand_out`]. For objects that were in the range before, calls
    /// `freed` as [`Self::poison`] does.
    pub(super) fn unpoison(
        &mut self,
        start: u64,
        size: u64,
        freed: impl FnMut(SiteIndex, u64, bool),
    ) -> bool {
        let Some(end) = start.checked_add(size).filter(|_| size > 0) else { return false };
        let whole: Vec<u64> = overlapping(&self.regions, start, end, |end| *end)
            .into_iter()
            .filter_map(|(region, its_end)| (start <= region && its_end <= end).then_some(region))
            .collect();
        let is_object = whole.is_empty() && self.region_around(start, end).is_some();
        if is_object || !whole.is_empty() {
            self.take(start, end, freed);
        }
        whole.iter().for_each(|region| _ = self.regions.remove(region));
        is_object
    }

    /// Adds an object of `owner` in a range for which [`Self::unpoison`] has returned `true`.
    pub(super) fn hand_out(&mut self, start: u64, size: u64, owner: SiteIndex) {
        self.pieces.insert(start, Piece { end: start.saturating_add(size), owner, counts: true });
    }

    fn region_around(&self, start: u64, end: u64) -> Option<u64> {
        let (&region, &its_end) = self.regions.range(..=start).next_back()?;
        (end <= its_end).then_some(region)
    }

    /// Removes the bytes in a range from all objects, and calls `freed` for each piece that loses bytes.
    fn take(&mut self, start: u64, end: u64, mut freed: impl FnMut(SiteIndex, u64, bool)) {
        for (from, to) in overlapping(&self.pieces, start, end, |piece| piece.end) {
            let Some(piece) = self.pieces.remove(&from) else { continue };
            let mut counts = piece.counts;
            if from < start {
                self.pieces.insert(from, Piece { end: start, ..piece });
                counts = false;
            }
            if end < to {
                self.pieces.insert(end, Piece { counts, ..piece });
                counts = false;
            }
            freed(piece.owner, to.min(end) - from.max(start), counts);
        }
    }
}

/// The start and end of each range in `ranges` that overlaps `start..end`.
fn overlapping<T>(
    ranges: &BTreeMap<u64, T>,
    start: u64,
    end: u64,
    end_of: impl Fn(&T) -> u64,
) -> Vec<(u64, u64)> {
    let before = ranges.range(..start).next_back();
    let before = before.map(|(&from, range)| (from, end_of(range))).filter(|(_, to)| *to > start);
    let inside = ranges.range(start..end).map(|(&from, range)| (from, end_of(range)));
    before.into_iter().chain(inside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Poisoned memory, with the number of its objects and their bytes, summed up from all events so far.
    struct Counted {
        poisoned: Poisoned,
        objects: i64,
        bytes: i64,
    }

    impl Counted {
        fn new() -> Counted {
            Counted { poisoned: Poisoned::default(), objects: 0, bytes: 0 }
        }

        fn poison(&mut self, start: u64, size: u64) -> (i64, i64) {
            let Counted { poisoned, objects, bytes } = self;
            poisoned.poison(start, size, |_, freed, is_last| {
                *bytes -= freed as i64;
                *objects -= i64::from(is_last);
            });
            (self.objects, self.bytes)
        }

        fn unpoison(&mut self, start: u64, size: u64) -> (i64, i64) {
            let Counted { poisoned, objects, bytes } = self;
            let is_object = poisoned.unpoison(start, size, |_, freed, is_last| {
                *bytes -= freed as i64;
                *objects -= i64::from(is_last);
            });
            if is_object {
                poisoned.hand_out(start, size, 0);
                (self.objects, self.bytes) = (self.objects + 1, self.bytes + size as i64);
            }
            (self.objects, self.bytes)
        }
    }

    #[test]
    fn objects_of_a_chunk_are_counted_until_the_chunk_is_poisoned_or_given_back() {
        let mut arena = Counted::new();
        assert_eq!(arena.poison(4096, 4096), (0, 0));
        assert_eq!(arena.unpoison(4096, 100), (1, 100));
        assert_eq!(arena.unpoison(4200, 50), (2, 150));
        assert_eq!(arena.poison(4096, 104), (1, 50));
        assert_eq!(arena.unpoison(4096, 8), (2, 58));
        assert_eq!(arena.poison(4096, 4096), (0, 0), "a reset");
        assert_eq!(arena.unpoison(4096, 16), (1, 16));
        assert_eq!(arena.unpoison(4096, 4096), (0, 0), "the chunk is given back");
        assert_eq!(arena.unpoison(4096, 16), (0, 0), "the memory belongs to malloc now");
    }

    #[test]
    fn memory_that_was_never_poisoned_is_no_object() {
        let mut stack = Counted::new();
        assert_eq!(stack.unpoison(1 << 40, 1 << 20), (0, 0));
        assert_eq!(stack.poison(1 << 40, 64), (0, 0));
        // A program that keeps freed objects in a cache poisons each of these objects separately.
        assert_eq!(stack.unpoison(1 << 40, 64), (0, 0));
    }

    #[test]
    fn poison_in_the_middle_of_an_object_leaves_one_object() {
        let mut arena = Counted::new();
        arena.poison(0, 1000);
        arena.unpoison(100, 300);
        assert_eq!(arena.poison(200, 100), (1, 200));
        assert_eq!(arena.poison(100, 100), (0, 100), "the rest has no first piece");
        assert_eq!(arena.poison(0, 1000), (0, 0));
        assert_eq!(arena.poison(500, 1000), (0, 0), "chunks that overlap become one region");
        assert_eq!(arena.unpoison(900, 200), (1, 200));
        assert_eq!(arena.poison(u64::MAX - 5, 100), (1, 200));
    }
}
