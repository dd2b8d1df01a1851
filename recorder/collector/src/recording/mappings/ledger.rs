//! The ledger of mapped memory: the exact address ranges that a program has mapped, and the site of each
//! range. The collector computes the ledger only from the program's calls of mmap, munmap and similar
//! functions. The computed ranges are the same as in the kernel's list of mappings.
//!
//! A **mapping** is the address range that one call of mmap or of a similar function has mapped. Later calls
//! may unmap, replace or move parts of a mapping. So a mapping consists of one or more **pieces**. A mapping
//! counts as one allocation, and as one free when its last piece is removed. When a piece is removed, the
//! bytes of this piece count as freed. All ranges are whole pages, because the kernel rounds each range to
//! whole pages.

use edleak_format::Counters;
use edleak_session::layout::PAGE_BYTES;
use std::collections::{BTreeMap, VecDeque};

const PAGE: u64 = PAGE_BYTES as u64;
/// A mask for the lower bits of an event's number. An event that reports the result of a call contains these
/// bits of the number of the event that reported the start of the same call.
const NUMBER_MASK: u32 = (1 << edleak_session::mapping::FLAG_BITS) - 1;
/// Maximum number of munmap and shmdt calls that the ledger remembers so that it can undo them. The target
/// reports each such call before it makes the call; if the call fails, a second event reports the failure
/// immediately after the call.
const MOST_UNDOABLE: usize = 256;
/// If there are more than this number of mappings, the ledger merges neighbouring mappings of one site, so
/// that the memory of the ledger stays bounded.
const MOST_MAPPINGS: usize = 1 << 20;
/// Maximum number of mremap calls that run at the same time. Each thread runs at most one mremap call at a
/// time, so this maximum is enough for 4096 threads.
const MOST_MOVES: usize = 4096;

/// A site that maps memory, as an index into [`Ledger::counters`].
pub(crate) type SiteIndex = usize;

/// A piece of a mapping. The ledger stores each piece under its start address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    end: u64,
    mapping: u64,
}

/// The mapping of one call, or of several merged calls.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    owner: SiteIndex,
    live_bytes: u64,
    /// Number of calls that have made this mapping. If the number is above 1, the ledger has merged mappings,
    /// because there were more than [`MOST_MAPPINGS`].
    calls: u64,
    /// The end of a System V segment; 0: the mapping is not a segment. The ledger stores the end of the
    /// segment, because a call of shmdt names only the start of the segment.
    attached_end: u64,
}

/// The bytes that a program gave back with madvise, at one site. madvise frees only the memory pages; the
/// address ranges stay mapped.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct GivenBack {
    /// Number of madvise calls.
    pub(crate) calls: u64,
    /// Sum of the lengths that the program passed to madvise, whether or not the pages were in memory.
    pub(crate) bytes: u64,
}

/// A piece that a call has removed from the ledger.
#[derive(Clone, Copy, Debug)]
struct Removed {
    start: u64,
    end: u64,
    mapping: u64,
    owner: SiteIndex,
}

/// The mapped ranges of one address space.
#[derive(Clone, Default, Debug)]
pub(crate) struct Ledger {
    /// All pieces of all mappings, by start address. The address ranges of two pieces never overlap.
    pieces: BTreeMap<u64, Piece>,
    /// All mappings, by serial number.
    mappings: BTreeMap<u64, Mapping>,
    next_mapping: u64,
    counters: Vec<Counters>,
    /// For each site, in the order of `counters`: the bytes that the program gave back with madvise. The list
    /// ends with the last site for which the program gave back bytes, so it may be shorter than `counters`.
    given_back: Vec<GivenBack>,
    /// The latest calls of munmap and shmdt, with the pieces that each call removed. If a call turns out to
    /// have failed, the ledger puts the pieces of this call back.
    undoable: VecDeque<(u32, Vec<Removed>)>,
    /// Calls of mremap that still run, with the pieces of the ranges that these calls move. Until a call of
    /// mremap ends, the pieces that it moves are not in `pieces`, but count as live.
    moving: VecDeque<(u32, Vec<Removed>)>,
}

/// The pages that a range covers; `None`: the length is 0, or the range ends beyond the address space.
fn pages(start: u64, length: u64) -> Option<(u64, u64)> {
    let end = start.checked_add(length)?.checked_next_multiple_of(PAGE)?;
    let start = start - start % PAGE;
    (length > 0).then_some((start, end))
}

impl Ledger {
    /// The counters of each site that maps memory.
    pub(crate) fn counters(&self) -> &[Counters] {
        &self.counters
    }

    /// For each site: the bytes that the program gave back with madvise in the mappings of this site. The
    /// list ends with the last site for which the program gave back bytes.
    pub(crate) fn given_back(&self) -> &[GivenBack] {
        &self.given_back
    }

    /// Live bytes of all sites together.
    #[cfg(test)]
    pub(crate) fn live_bytes(&self) -> u64 {
        self.counters.iter().map(Counters::live_bytes).sum()
    }

    /// The live pieces that overlap `start..end`: for each piece, the start and the end of the overlap, and
    /// the site that owns the piece.
    pub(crate) fn pieces_in(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, SiteIndex)> {
        let before = self.pieces.range(..start).next_back();
        let before = before.filter(|(_, piece)| piece.end > start);
        let inside = self.pieces.range(start..end.max(start));
        before.into_iter().chain(inside).filter_map(move |(&from, piece)| {
            let owner = self.mappings.get(&piece.mapping)?.owner;
            Some((from.max(start), piece.end.min(end), owner))
        })
    }

    /// The serial number that the next mapping will get. All mappings that exist now have lower serial
    /// numbers.
    pub(crate) fn mark(&self) -> u64 {
        self.next_mapping
    }

    /// Adds a mapping, which replaces all older pieces in its range.
    pub(crate) fn map(&mut self, start: u64, length: u64, owner: SiteIndex) {
        self.insert(start, length, owner, 0);
    }

    /// Adds the mapping of a System V segment (shared memory that the program attached with shmat).
    pub(crate) fn attach(&mut self, start: u64, length: u64, owner: SiteIndex) {
        self.insert(start, length, owner, start.saturating_add(length).saturating_add(PAGE - 1));
    }

    fn insert(&mut self, start: u64, length: u64, owner: SiteIndex, attached_end: u64) {
        let Some((start, end)) = pages(start, length) else { return };
        let replaced = self.take(start, end);
        self.count_freed(&replaced);
        if self.mappings.len() < MOST_MAPPINGS || !self.extend(start, end, owner) {
            let mapping = self.create(owner, end - start, attached_end);
            self.pieces.insert(start, Piece { end, mapping });
        }
        let counters = &mut self.counters[owner];
        counters.allocs += 1;
        counters.allocated_bytes = counters.allocated_bytes.wrapping_add(end - start);
    }

    /// If a mapping of `owner` ends at `start`, extends this mapping to `end` and returns `true`.
    fn extend(&mut self, start: u64, end: u64, owner: SiteIndex) -> bool {
        let Some((_, piece)) = self.pieces.range_mut(..start).next_back() else { return false };
        let Some(mapping) = self.mappings.get_mut(&piece.mapping) else { return false };
        let is_same = piece.end == start && mapping.owner == owner && mapping.attached_end == 0;
        if is_same {
            piece.end = end;
            mapping.live_bytes += end - start;
            mapping.calls += 1;
        }
        is_same
    }

    fn create(&mut self, owner: SiteIndex, live_bytes: u64, attached_end: u64) -> u64 {
        if self.counters.len() <= owner {
            self.counters.resize(owner + 1, Counters::ZERO);
        }
        let serial = self.next_mapping;
        self.next_mapping += 1;
        self.mappings.insert(serial, Mapping { owner, live_bytes, calls: 1, attached_end });
        serial
    }

    /// Notes that the program gave back the pages of a range with madvise. The call of madvise counts once at
    /// each site that owns a part of the range.
    pub(crate) fn give_back(&mut self, start: u64, length: u64) {
        let Some((start, end)) = pages(start, length) else { return };
        let mut parts: Vec<(SiteIndex, u64)> = Vec::new();
        for (from, to, owner) in self.pieces_in(start, end) {
            match parts.iter_mut().find(|(of, _)| *of == owner) {
                Some((_, bytes)) => *bytes += to - from,
                None => parts.push((owner, to - from)),
            }
        }
        for (owner, bytes) in parts {
            if self.given_back.len() <= owner {
                self.given_back.resize(owner + 1, GivenBack::default());
            }
            let sum = &mut self.given_back[owner];
            sum.calls += 1;
            sum.bytes = sum.bytes.saturating_add(bytes);
        }
    }

    /// Removes a range that munmap is about to unmap. `number` is the number of the event that reports the
    /// munmap call.
    pub(crate) fn unmap(&mut self, number: u32, start: u64, length: u64) {
        let Some((start, end)) = pages(start, length) else { return };
        let removed = self.take(start, end);
        self.free_undoably(number, removed);
    }

    /// Removes the segment that shmdt is about to detach from an address. `number` is the number of the event
    /// that reports the shmdt call.
    pub(crate) fn detach(&mut self, number: u32, start: u64) {
        let Some(piece) = self.pieces.get(&start).copied() else { return };
        let end = self.mappings.get(&piece.mapping).map_or(0, |mapping| mapping.attached_end);
        // shmdt unmaps all parts of the segment that are still mapped. Memory that other calls have mapped
        // between two parts of the segment stays mapped.
        let starts = self.pieces.range(start..end.max(start));
        let starts = starts.filter(|(_, other)| other.mapping == piece.mapping);
        let starts: Vec<(u64, u64)> = starts.map(|(&start, piece)| (start, piece.end)).collect();
        let removed = starts.into_iter().flat_map(|(start, end)| self.take(start, end)).collect();
        self.free_undoably(number, removed);
    }

    fn free_undoably(&mut self, number: u32, removed: Vec<Removed>) {
        self.count_freed(&removed);
        if self.undoable.len() == MOST_UNDOABLE {
            self.undoable.pop_front();
        }
        self.undoable.push_back((number & NUMBER_MASK, removed));
    }

    /// Removes a range that mremap is about to move. Until the move ends, the bytes of the moved range still
    /// count as live. `number` is the number of the event that reports the mremap call.
    pub(crate) fn begin_move(&mut self, number: u32, start: u64, length: u64) {
        let Some((start, end)) = pages(start, length) else { return };
        let removed = self.take(start, end);
        if self.moving.len() == MOST_MOVES {
            // There are more mremap calls than can run at the same time, so the event for the end of the
            // oldest call was lost. The ledger counts the range that the oldest call moved as freed.
            let lost = self.moving.pop_front();
            lost.into_iter().for_each(|(_, lost)| self.count_freed(&lost));
        }
        self.moving.push_back((number & NUMBER_MASK, removed));
    }

    /// Notes that the mremap call with this number has succeeded. Counts the old range as freed, and adds the
    /// new range for the site `owner`.
    pub(crate) fn end_move(&mut self, number: u32, start: u64, length: u64, owner: SiteIndex) {
        if let Some(index) = self.moving.iter().position(|(of, _)| *of == number & NUMBER_MASK) {
            let moved = self.moving.remove(index).map_or_else(Vec::new, |(_, moved)| moved);
            self.count_freed(&moved);
        }
        self.insert(start, length, owner, 0);
    }

    /// Notes that the call with this number has failed, and undoes its changes of the ledger.
    pub(crate) fn fail(&mut self, number: u32) {
        let number = number & NUMBER_MASK;
        if let Some(index) = self.moving.iter().position(|(of, _)| *of == number) {
            let kept = self.moving.remove(index).map_or_else(Vec::new, |(_, kept)| kept);
            for piece in kept {
                if self.is_free(piece) {
                    self.pieces.insert(piece.start, Piece { end: piece.end, mapping: piece.mapping });
                } else {
                    self.count_freed(&[piece]);
                }
            }
        } else if let Some(index) = self.undoable.iter().rposition(|(of, _)| *of == number) {
            let removed = self.undoable.remove(index).map_or_else(Vec::new, |(_, removed)| removed);
            self.restore(&removed);
        }
    }

    /// Whether no piece is in the range of a removed piece, so that the ledger can put the removed piece
    /// back. If the ring of events is damaged, the ledger may contain another piece in the range of the
    /// removed piece.
    fn is_free(&self, piece: Removed) -> bool {
        self.pieces_in(piece.start, piece.end).next().is_none()
    }

    /// Puts removed pieces back into the ledger.
    fn restore(&mut self, removed: &[Removed]) {
        let mut again: BTreeMap<u64, u64> = BTreeMap::new();
        for &piece in removed {
            if !self.is_free(piece) {
                continue;
            }
            let bytes = piece.end - piece.start;
            let serial = again.get(&piece.mapping).copied().unwrap_or(piece.mapping);
            let serial = if let Some(mapping) = self.mappings.get_mut(&serial) {
                mapping.live_bytes += bytes;
                serial
            } else {
                // The mapping has no other piece, so the ledger counted the mapping as freed. The call that
                // should unmap the piece has failed, so take this free back.
                let serial = self.create(piece.owner, bytes, 0);
                again.insert(piece.mapping, serial);
                self.counters[piece.owner].frees = self.counters[piece.owner].frees.saturating_sub(1);
                serial
            };
            let freed = &mut self.counters[piece.owner].freed_bytes;
            *freed = freed.wrapping_sub(bytes);
            self.pieces.insert(piece.start, Piece { end: piece.end, mapping: serial });
        }
    }

    /// Removes and returns all pieces in `start..end`. If a piece is only partly in `start..end`, the
    /// function removes only the part that is in this range. The function does not count the removed bytes as
    /// freed, because its callers do so.
    fn take(&mut self, start: u64, end: u64) -> Vec<Removed> {
        let mut removed = Vec::new();
        self.cut_at(start);
        self.cut_at(end);
        while let Some((&at, &piece)) = self.pieces.range(start..end).next() {
            self.pieces.remove(&at);
            let owner = self.mappings.get(&piece.mapping).map_or(0, |mapping| mapping.owner);
            removed.push(Removed { start: at, end: piece.end, mapping: piece.mapping, owner });
        }
        removed
    }

    /// Splits the piece that contains an address into two pieces at this address.
    fn cut_at(&mut self, address: u64) {
        let Some((_, piece)) = self.pieces.range_mut(..address).next_back() else { return };
        if piece.end > address {
            let behind = *piece;
            piece.end = address;
            self.pieces.insert(address, behind);
        }
    }

    fn count_freed(&mut self, removed: &[Removed]) {
        for piece in removed {
            let Some(mapping) = self.mappings.get_mut(&piece.mapping) else { continue };
            let bytes = piece.end - piece.start;
            let counters = &mut self.counters[mapping.owner];
            counters.freed_bytes = counters.freed_bytes.wrapping_add(bytes);
            mapping.live_bytes = mapping.live_bytes.saturating_sub(bytes);
            if mapping.live_bytes == 0 {
                counters.frees += mapping.calls;
                self.mappings.remove(&piece.mapping);
            }
        }
    }

    /// Counts those parts of mappings as freed that are outside `ranges` (the kernel's list), because a call
    /// that edleak did not see has unmapped these parts. The function checks only mappings whose serial
    /// number is below `mark`. Returns the number of freed bytes. `ranges` must be sorted.
    ///
    /// The caller must read all events, then get `mark`, then read `ranges`, and then read all events again.
    /// If the caller keeps this order of reads, a range that is missing in `ranges` was unmapped by a call
    /// that caused no event.
    pub(crate) fn retain_mapped(&mut self, ranges: &[(u64, u64)], mark: u64) -> u64 {
        let mut gone = Vec::new();
        for (&start, piece) in self.pieces.iter().filter(|(_, piece)| piece.mapping < mark) {
            let mut at = start;
            let first = ranges.partition_point(|range| range.1 <= start);
            for &(from, to) in ranges[first..].iter().take_while(|range| range.0 < piece.end) {
                if from > at {
                    gone.push((at, from));
                }
                at = at.max(to);
            }
            if at < piece.end {
                gone.push((at, piece.end));
            }
        }
        let mut bytes = 0;
        for (start, end) in gone {
            let removed = self.take(start, end);
            bytes += removed.iter().map(|piece| piece.end - piece.start).sum::<u64>();
            self.count_freed(&removed);
        }
        bytes
    }

    /// The ledger of a forked child. `ranges` is the child's memory map. The child inherits a piece of
    /// memory from its parent if the piece is in `ranges` and `owner_of` knows the site of the piece in the
    /// child. The ledger counts the inherited pieces as mapped by the child.
    pub(crate) fn inherited(
        &self,
        ranges: &[(u64, u64)],
        mut owner_of: impl FnMut(SiteIndex) -> Option<SiteIndex>,
    ) -> Ledger {
        let mut child = Ledger::default();
        let mut serials: BTreeMap<u64, u64> = BTreeMap::new();
        for &(start, end) in ranges {
            let before = self.pieces.range(..start).next_back().filter(|(_, piece)| piece.end > start);
            for (&from, piece) in before.into_iter().chain(self.pieces.range(start..end.max(start))) {
                let Some(mapping) = self.mappings.get(&piece.mapping) else { continue };
                let Some(owner) = owner_of(mapping.owner) else { continue };
                let (from, to) = (from.max(start), piece.end.min(end));
                let serial = *serials.entry(piece.mapping).or_insert_with(|| {
                    let serial = child.create(owner, 0, mapping.attached_end);
                    child.counters[owner].allocs += 1;
                    serial
                });
                if let Some(mapping) = child.mappings.get_mut(&serial) {
                    mapping.live_bytes += to - from;
                }
                let counters = &mut child.counters[owner];
                counters.allocated_bytes = counters.allocated_bytes.wrapping_add(to - from);
                child.pieces.insert(from, Piece { end: to, mapping: serial });
            }
        }
        child
    }
}

#[cfg(test)]
mod tests;
