//! One block to its moves: what the builders need, 20 bytes a move, in buffers that are used again.

use super::States;
use super::family::{Families, FamilyMove};
use edleak_format::{Counters, SiteId, SliceHeader, SliceVisitor, Trace};
use std::ops::Range;

/// A decoded block.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    /// Its slices, in order of time.
    pub slices: Vec<DecodedSlice>,
    /// The site of each move, ascending within a slice.
    pub site_ids: Vec<u32>,
    /// Live bytes and live count after each move.
    pub live: Vec<(u64, u64)>,
    /// The moves of watched sites and their stacks.
    pub family_moves: Vec<FamilyMove>,
    /// Newest counters of every site, by ascending id; of the last block of a trace only.
    pub totals: Vec<(u32, Counters)>,
    /// One more than the greatest id.
    pub sites: usize,
    /// The block could not be read after all.
    pub is_unreadable: bool,
}

/// One slice of a decoded block.
#[derive(Debug)]
pub(super) struct DecodedSlice {
    pub header: SliceHeader,
    /// Where its moves are.
    pub moves: Range<usize>,
    /// Bytes allocated so far by the sites it names.
    pub allocated_bytes: u64,
}

/// Decodes block `index` into `decoded`, whose buffers are kept.
pub(super) fn decode(
    trace: &Trace,
    index: usize,
    is_last: bool,
    states: &States,
    families: &Families,
    decoded: &mut Decoded,
) {
    decoded.slices.clear();
    decoded.site_ids.clear();
    decoded.live.clear();
    decoded.family_moves.clear();
    decoded.totals.clear();
    decoded.sites = 0;
    let mut visitor = Visitor { id_limit: states.id_limit, is_last, families, decoded };
    let is_unreadable = trace.replay_block(index, &mut visitor).is_err();
    decoded.is_unreadable = is_unreadable;
}

struct Visitor<'a> {
    id_limit: usize,
    is_last: bool,
    families: &'a Families,
    decoded: &'a mut Decoded,
}

impl SliceVisitor for Visitor<'_> {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        let decoded = &mut *self.decoded;
        let start = decoded.site_ids.len();
        let known = changed.partition_point(|(id, _)| (id.0 as usize) < self.id_limit);
        let changed = &changed[..known];
        decoded.site_ids.extend(changed.iter().map(|(id, _)| id.0));
        decoded
            .live
            .extend(changed.iter().map(|(_, counters)| (counters.live_bytes(), counters.live_count())));
        decoded.sites = decoded.sites.max(changed.last().map_or(0, |(id, _)| id.0 as usize + 1));
        if self.is_last {
            merge_totals(&mut decoded.totals, changed);
        }
        self.families.note(header.tick, changed, &mut decoded.family_moves);
        let allocated_bytes = match decoded.slices.is_empty() {
            true => {
                changed.iter().fold(0u64, |sum, (_, counters)| sum.wrapping_add(counters.allocated_bytes))
            }
            false => 0,
        };
        let moves = start..decoded.site_ids.len();
        decoded.slices.push(DecodedSlice { header: *header, moves, allocated_bytes });
    }
}

/// Both ascend by id; what is in `changed` is newer.
fn merge_totals(totals: &mut Vec<(u32, Counters)>, changed: &[(SiteId, Counters)]) {
    let mut at = 0;
    let mut added = Vec::new();
    for &(id, counters) in changed {
        at += totals[at..].partition_point(|(known, _)| *known < id.0);
        match totals.get_mut(at) {
            Some((known, newest)) if *known == id.0 => *newest = counters,
            _ => added.push((id.0, counters)),
        }
    }
    if !added.is_empty() {
        totals.extend(added);
        totals.sort_unstable_by_key(|(id, _)| *id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_keep_the_newest_counters_of_every_site() {
        let counters = |n| Counters { allocated_bytes: n, ..Counters::ZERO };
        let mut totals = Vec::new();
        merge_totals(&mut totals, &[(SiteId(1), counters(1)), (SiteId(5), counters(5))]);
        merge_totals(
            &mut totals,
            &[(SiteId(0), counters(10)), (SiteId(5), counters(50)), (SiteId(9), counters(90))],
        );
        assert_eq!(totals, [(0, counters(10)), (1, counters(1)), (5, counters(50)), (9, counters(90))]);
    }
}
