//! Reads the slices (copies of the counters) that the target's threads took at marks, and makes records for
//! the trace from these slices, as far as the trace has room. A mark is a named instant that the target or
//! the user sets.

use crate::sys::shm::Session;
use edleak_format::{Counters, Mark, MarkId, MarkLosses, MarkSlice, SiteId};
pub use edleak_session::mark::MAX_NAME_BYTES;
use edleak_session::mark::{HEAD_WORDS, ID_WORDS, MAX_NAMES, MarkName, due_after};
use edleak_session::site::{MAX_SITES, OTHER};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// The slices at marks use at most 1/`SHARE_OF_TRACE` of a trace.
const SHARE_OF_TRACE: u64 = 8;
/// Number of slices at a mark that the trace gets while the count of this mark doubles, for example from 100
/// to 200. If the trace has little room, it gets fewer slices at marks.
const IN_A_DOUBLING: u64 = 32;
/// Maximum number of sites in one record of a slice. If a slice has more sites than this maximum, the
/// collector divides the slice into several records.
const SITES_OF_A_RECORD: usize = 1024;
/// Estimated maximum size in bytes of a record without its sites. `SITE_BYTES` is the estimated maximum size
/// in bytes of each site in a record.
const RECORD_BYTES: u64 = 32;
const SITE_BYTES: u64 = 24;

/// The name of a mark or of a pool in the form in which the trace stores it. Control characters and bytes
/// that are not UTF-8 become `\xNN`.
pub fn printable(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character.is_control() {
                true => character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text += &escaped(byte)),
                false => text.push(character),
            }
        }
        chunk.invalid().iter().for_each(|&byte| text += &escaped(byte));
    }
    text
}

fn escaped(byte: u8) -> String {
    format!("\\x{byte:02x}")
}

/// All marks with the same name.
#[derive(Debug, Default)]
struct NamedMark {
    name: String,
    is_cut: bool,
    /// For each index at which the session stores this name: how often the target set the mark. Two names
    /// with the same printable form count as one mark, so a mark can have several indices.
    by_place: BTreeMap<usize, u64>,
    by_command: u64,
    /// When the count of this mark reaches this number, the trace gets the next slice at this mark.
    due: u64,
    /// The count in the latest record of this mark; 0: the trace does not contain the name yet.
    recorded_count: u64,
}

impl NamedMark {
    fn count(&self) -> u64 {
        self.by_place.values().fold(self.by_command, |sum, count| sum.wrapping_add(*count))
    }
}

/// The trace ids of the sites of a session.
#[derive(Clone, Copy)]
pub(crate) struct TraceSites<'r> {
    /// The trace ids of call sites, in the order of their session ids. The first entry belongs to the session
    /// id [`OTHER`].
    pub(crate) callers: &'r [SiteId],
    /// The trace ids of the sites of watched stacks, indexed by stack.
    pub(crate) stacks: &'r [SiteId],
}

/// The time at which the collector read a slice that the target took at a mark.
#[derive(Clone, Copy)]
pub(crate) struct ReadAt {
    /// The tick of the next regular slice of the recording.
    pub(crate) tick: u64,
    /// The time from the start of the recording until the collector read the slice, in nanoseconds.
    pub(crate) ns: u64,
}

/// The marks of one recording.
#[derive(Default)]
pub(crate) struct Marks {
    places: BTreeMap<usize, usize>,
    known: Vec<NamedMark>,
    read: u64,
    /// Whether the ring of marks contains data that is not a slice, so that the collector reads no more
    /// slices from this ring.
    is_broken: bool,
    /// For each cell (the counters of one stack for one epoch) in a slice: the trace id of the stack's site,
    /// and the counters.
    cells: BTreeMap<usize, (SiteId, Counters)>,
    /// For each call site: the counters of its allocations that have no recorded stack.
    callers: BTreeMap<SiteId, Counters>,
    /// For each site: the sum of the counters of its cells. A cell holds the counters of one stack for one
    /// epoch.
    of_cells: BTreeMap<SiteId, Counters>,
    /// The counters of each site of the trace at the latest mark.
    current: Vec<Counters>,
    /// The sites whose counters have changed since the latest slice in the trace.
    changed: BTreeSet<u32>,
    number: u32,
    spent_bytes: u64,
    left_out: u64,
    recorded_losses: MarkLosses,
}

/// The 8-byte value at a position of the ring of marks.
fn word(session: &Session, at: u64) -> u64 {
    let ring = session.mark_ring();
    ring.get(at as usize % ring.len()).map_or(0, |word: &AtomicU64| word.load(Ordering::Relaxed))
}

impl Marks {
    /// Number of 8-byte values that the target has written into the ring of marks. The session already
    /// contains every site and every stack that occurs in a slice of this ring.
    pub(crate) fn written(session: &Session) -> u64 {
        session.mark_state().written.load(Ordering::Acquire)
    }

    /// Reads the slices up to the position `until` of the ring of marks, and returns the records for the
    /// trace. The size of the trace may be at most `capacity_bytes`. The session does not contain the
    /// counters of mapped memory and pools. So the function calls `others` with the position of each slice,
    /// and `others` returns the counters of mapped memory and pools that have changed before this slice.
    pub(crate) fn read(
        &mut self,
        session: &Session,
        until: u64,
        sites: TraceSites<'_>,
        mut others: impl FnMut(u64) -> Vec<(SiteId, Counters)>,
        at: ReadAt,
        capacity_bytes: u64,
    ) -> Vec<MarkSlice> {
        let mut slices = Vec::new();
        while self.read != until && !self.is_broken {
            let (head, count) = (word(session, self.read), word(session, self.read.wrapping_add(1)));
            let (place, ids) = (head as u32 as usize, head >> 32);
            let words = HEAD_WORDS as u64 + ids * ID_WORDS as u64;
            if place >= MAX_NAMES || words > until.wrapping_sub(self.read) {
                (self.is_broken, self.left_out) = (true, self.left_out + 1);
                break;
            }
            for nth in 0..ids {
                let at = self.read.wrapping_add(HEAD_WORDS as u64 + nth * ID_WORDS as u64);
                let value = |offset: u64| word(session, at.wrapping_add(offset));
                let counters = Counters {
                    allocs: value(1),
                    frees: value(2),
                    allocated_bytes: value(3),
                    freed_bytes: value(4),
                };
                self.apply(session, value(0) as usize, counters, sites);
            }
            for (site, counters) in others(self.read) {
                self.change(site, counters);
            }
            self.read = self.read.wrapping_add(words);
            let known = self.known_at(session, place);
            self.known[known].by_place.insert(place, count);
            slices.extend(self.slice_of(known, at, capacity_bytes));
        }
        session.mark_state().read.store(self.read, Ordering::Release);
        slices
    }

    /// Sets a mark that a user asked for. `counters` contains the current counters of every site of the
    /// trace. Returns how often this mark was set so far, and the records for the trace.
    pub(crate) fn set(
        &mut self,
        name: &str,
        counters: impl Iterator<Item = (SiteId, Counters)>,
        at: ReadAt,
        capacity_bytes: u64,
    ) -> (u64, Vec<MarkSlice>) {
        counters.for_each(|(site, counters)| self.change(site, counters));
        let known = self.named(name, false);
        self.known[known].by_command += 1;
        (self.known[known].count(), self.slice_of(known, at, capacity_bytes))
    }

    /// Returns a record for each new name of a mark. At the end of the recording, also returns a record for
    /// each name whose count has changed.
    pub(crate) fn names(&mut self, session: &Session, is_end: bool) -> Vec<Mark> {
        if is_end && session.mark_state().named.load(Ordering::Relaxed) != 0 {
            for (place, name) in session.mark_names().iter().enumerate() {
                let count = name.count.load(Ordering::Relaxed);
                if name.hash.load(Ordering::Acquire) != 0 && count > 0 {
                    let known = self.known_at(session, place);
                    self.known[known].by_place.insert(place, count);
                }
            }
        }
        let mut records = Vec::new();
        for (id, known) in (0..).zip(&mut self.known) {
            let count = known.count();
            if known.recorded_count == 0 || is_end && known.recorded_count != count {
                known.recorded_count = count;
                let (name, is_cut) = (known.name.clone(), known.is_cut);
                records.push(Mark { id: MarkId(id), name, is_cut, count });
            }
        }
        records
    }

    /// The losses of marks (numbers of names and slices that edleak could not record); `None`: these numbers
    /// have not changed since the last call.
    pub(crate) fn losses(&mut self, session: &Session) -> Option<MarkLosses> {
        let state = session.mark_state();
        let losses = MarkLosses {
            unnamed: state.unnamed.load(Ordering::Relaxed),
            put_off: state.put_off.load(Ordering::Relaxed),
            left_out: self.left_out,
        };
        (losses != self.recorded_losses).then(|| {
            self.recorded_losses = losses;
            losses
        })
    }

    /// Stores the counters that a slice contains for the session id `id`, which is the id of a call site or
    /// of a cell (the counters of one stack for one epoch).
    fn apply(&mut self, session: &Session, id: usize, counters: Counters, sites: TraceSites<'_>) {
        let caller = |id: usize| id.checked_sub(OTHER as usize).and_then(|index| sites.callers.get(index));
        let Some(cell) = id.checked_sub(MAX_SITES) else {
            if let Some(&site) = caller(id) {
                self.callers.insert(site, counters);
                self.sum_up(site);
            }
            return;
        };
        let Some(in_session) = session.cells().get(cell) else { return };
        let Some(stack) = in_session.stack.load(Ordering::Acquire).checked_sub(1) else { return };
        // If a stack has no site in the trace, the allocations of this stack count at its call site, as in
        // the regular slices of the recording.
        let parent =
            || session.stack_infos().get(stack as usize)?.site.load(Ordering::Acquire).try_into().ok();
        let site = sites.stacks.get(stack as usize).or_else(|| caller(parent()?));
        let Some(&site) = site else { return };
        if let Some((before, was)) = self.cells.insert(cell, (site, counters)) {
            let sum = self.of_cells.entry(before).or_default();
            *sum = difference(*sum, was);
            self.sum_up(before);
        }
        let sum = self.of_cells.entry(site).or_default();
        *sum = sum.plus(counters);
        self.sum_up(site);
    }

    fn sum_up(&mut self, site: SiteId) {
        let of = |all: &BTreeMap<SiteId, Counters>| all.get(&site).copied().unwrap_or(Counters::ZERO);
        self.change(site, of(&self.callers).plus(of(&self.of_cells)));
    }

    fn change(&mut self, site: SiteId, counters: Counters) {
        let index = site.0 as usize;
        if self.current.len() <= index {
            self.current.resize(index + 1, Counters::ZERO);
        }
        if self.current[index] != counters {
            self.current[index] = counters;
            self.changed.insert(site.0);
        }
    }

    fn known_at(&mut self, session: &Session, place: usize) -> usize {
        if let Some(&known) = self.places.get(&place) {
            return known;
        }
        let found = &session.mark_names()[place];
        let name = match (found.length.load(Ordering::Acquire) as usize).checked_sub(1) {
            Some(length) => {
                let bytes = found.bytes.iter().take(length.min(MAX_NAME_BYTES));
                printable(&bytes.map(|byte| byte.load(Ordering::Relaxed)).collect::<Vec<_>>())
            }
            // The thread that set the first mark of this name was stopped while it stored the name.
            None => format!("mark {place} without a name"),
        };
        let is_cut = |found: &MarkName| found.is_cut.load(Ordering::Relaxed) != 0;
        let known = self.named(&name, is_cut(found));
        self.places.insert(place, known);
        known
    }

    fn named(&mut self, name: &str, is_cut: bool) -> usize {
        self.known.iter().position(|known| known.name == name).unwrap_or_else(|| {
            self.known.push(NamedMark { name: name.to_owned(), is_cut, ..NamedMark::default() });
            self.known.len() - 1
        })
    }

    /// The records of a slice at this mark; empty: no slice is due at this mark, or the trace has no room.
    fn slice_of(&mut self, known: usize, at: ReadAt, capacity_bytes: u64) -> Vec<MarkSlice> {
        let budget = capacity_bytes / SHARE_OF_TRACE;
        let count = self.known[known].count();
        if count < self.known[known].due {
            return Vec::new();
        }
        let bytes = RECORD_BYTES * (self.changed.len() / SITES_OF_A_RECORD + 1) as u64
            + SITE_BYTES * self.changed.len() as u64;
        if self.spent_bytes + bytes > budget {
            self.left_out += 1;
            return Vec::new();
        }
        self.spent_bytes += bytes;
        // The less room is free for slices at marks, the fewer slices the collector takes: each time the free
        // room has halved, it takes half as many slices while the count of a mark doubles.
        let halvings = (budget / (budget - self.spent_bytes).max(1)).max(1).ilog2();
        self.known[known].due = due_after(count, (IN_A_DOUBLING >> halvings.min(5)).max(1));
        let sites: Vec<_> = std::mem::take(&mut self.changed)
            .into_iter()
            .map(|id| (SiteId(id), self.current[id as usize]))
            .collect();
        let mark = MarkId(known as u32);
        let mut parts: Vec<&[_]> = sites.chunks(SITES_OF_A_RECORD).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        let mut records = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let (number, goes_on) = (self.number, index < last);
            self.number += 1;
            records.push(MarkSlice {
                number,
                mark,
                count,
                tick: at.tick,
                read_ns: at.ns,
                goes_on,
                sites: part.to_vec(),
            });
        }
        records
    }
}

fn difference(sum: Counters, part: Counters) -> Counters {
    Counters {
        allocs: sum.allocs.wrapping_sub(part.allocs),
        frees: sum.frees.wrapping_sub(part.frees),
        allocated_bytes: sum.allocated_bytes.wrapping_sub(part.allocated_bytes),
        freed_bytes: sum.freed_bytes.wrapping_sub(part.freed_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: ReadAt = ReadAt { tick: 7, ns: 9 };

    fn live(bytes: u64) -> Counters {
        Counters { allocated_bytes: bytes, allocs: bytes, ..Counters::ZERO }
    }

    fn set(marks: &mut Marks, name: &str, bytes: u64, capacity_bytes: u64) -> Vec<MarkSlice> {
        marks.set(name, std::iter::once((SiteId(3), live(bytes))), AT, capacity_bytes).1
    }

    #[test]
    fn names_are_printed_so_that_they_cannot_harm_a_terminal() {
        assert_eq!(printable("für".as_bytes()), "für");
        assert_eq!(printable(b"a\x1b[31m\xff\n"), "a\\x1b[31m\\xff\\x0a");
        assert_eq!(printable(b""), "");
    }

    #[test]
    fn a_slice_names_what_changed_since_the_slice_of_any_mark() {
        let mut marks = Marks::default();
        let first = set(&mut marks, "a", 10, 1 << 20);
        assert_eq!(first[0].sites, [(SiteId(3), live(10))]);
        assert!(set(&mut marks, "b", 10, 1 << 20)[0].sites.is_empty());
        let third = &set(&mut marks, "a", 11, 1 << 20)[0];
        assert_eq!((third.number, third.mark, third.count), (2, MarkId(0), 2));
        assert_eq!(third.sites, [(SiteId(3), live(11))]);
    }

    #[test]
    fn a_million_marks_take_about_500_slices_and_a_small_trace_takes_fewer() {
        let slices = |capacity_bytes: u64| {
            let mut marks = Marks::default();
            let taken =
                (1..=1u64 << 20).map(|n| set(&mut marks, "a", n, capacity_bytes).len()).sum::<usize>();
            (taken, marks.left_out)
        };
        assert_eq!(slices(64 << 20), (512, 0));
        let (taken, left_out) = slices(64 << 10);
        assert!((64..160).contains(&taken) && left_out < 4, "{taken}, {left_out}");
    }

    #[test]
    fn slices_beyond_the_room_are_left_out_and_counted() {
        let mut marks = Marks::default();
        let taken = (1..=100u64).map(|n| set(&mut marks, &n.to_string(), n, 4096).len()).sum::<usize>();
        assert_eq!(taken as u64 + marks.left_out, 100);
        assert!(taken > 5 && marks.left_out > 50, "{taken}");
    }

    #[test]
    fn a_ring_that_holds_no_slice_ends_the_reading() {
        let session = Session::create(16, 0).expect("memory files can be made");
        session.mark_ring()[0].store(5 | 1 << 60, Ordering::Relaxed);
        session.mark_state().written.store(7, Ordering::Release);
        let mut marks = Marks::default();
        let sites = TraceSites { callers: &[], stacks: &[] };
        assert!(marks.read(&session, 7, sites, |_| Vec::new(), AT, 1 << 20).is_empty());
        assert_eq!(marks.losses(&session).map(|losses| losses.left_out), Some(1));
    }
}
