//! Tests of the ledger, most of them against a simple model of it.

use super::*;

/// A simple model of the ledger, with which a test compares the ledger. For each page, the model stores
/// the owner and the number of the mapping.
#[derive(Clone, Default, Debug)]
struct Pages {
    owners: BTreeMap<u64, (SiteIndex, u64)>,
    counters: Vec<Counters>,
    mappings: u64,
}

impl Pages {
    fn new(owners: usize) -> Pages {
        Pages { counters: vec![Counters::ZERO; owners], ..Pages::default() }
    }

    fn drop_page(&mut self, page: u64) {
        let Some((owner, mapping)) = self.owners.remove(&page) else { return };
        self.counters[owner].freed_bytes += PAGE;
        let is_last = self.owners.values().all(|(_, other)| *other != mapping);
        self.counters[owner].frees += u64::from(is_last);
    }

    fn map(&mut self, first: u64, count: u64, owner: SiteIndex) {
        (first..first + count).for_each(|page| self.drop_page(page));
        self.mappings += 1;
        for page in first..first + count {
            self.owners.insert(page, (owner, self.mappings));
        }
        self.counters[owner].allocs += 1;
        self.counters[owner].allocated_bytes += count * PAGE;
    }

    fn unmap(&mut self, first: u64, count: u64) {
        (first..first + count).for_each(|page| self.drop_page(page));
    }
}

fn assert_same(ledger: &Ledger, pages: &Pages) {
    let mut found = BTreeMap::new();
    for (start, end, owner) in ledger.pieces_in(0, u64::MAX) {
        for page in start / PAGE..end / PAGE {
            assert_eq!(found.insert(page, owner), None, "page {page} twice");
        }
    }
    let expected: BTreeMap<u64, SiteIndex> =
        pages.owners.iter().map(|(page, (owner, _))| (*page, *owner)).collect();
    assert_eq!(found, expected);
    for (owner, counters) in pages.counters.iter().enumerate() {
        let counted = ledger.counters().get(owner).copied().unwrap_or(Counters::ZERO);
        assert_eq!(counted, *counters, "owner {owner}");
    }
}

/// A random number below `limit`.
fn below(state: &mut u64, limit: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % limit
}

#[test]
fn any_row_of_calls_leaves_the_pages_that_a_list_of_pages_has() {
    const SPACE: u64 = 40;
    const OWNERS: usize = 5;
    for seed in 0..300u64 {
        let mut state = seed;
        let (mut ledger, mut pages) = (Ledger::default(), Pages::new(OWNERS));
        for number in 0..120u32 {
            let first = below(&mut state, SPACE);
            let count = 1 + below(&mut state, 9);
            let owner = below(&mut state, OWNERS as u64) as SiteIndex;
            // The test uses lengths that are not whole pages, because the ledger must round them up as
            // the kernel does.
            let length = count * PAGE - below(&mut state, PAGE);
            match below(&mut state, 8) {
                0..3 => {
                    ledger.map(first * PAGE, length, owner);
                    pages.map(first, count, owner);
                }
                3..5 => {
                    ledger.unmap(number, first * PAGE, length);
                    pages.unmap(first, count);
                }
                5 => {
                    // In this step of the test, the call fails, so the ledger must undo its changes.
                    ledger.unmap(number, first * PAGE, length);
                    ledger.fail(number);
                }
                6 => {
                    let to = SPACE + 20 + below(&mut state, SPACE);
                    let new = 1 + below(&mut state, 12);
                    ledger.begin_move(number, first * PAGE, length);
                    pages.unmap(first, count);
                    ledger.end_move(number, to * PAGE, new * PAGE, owner);
                    pages.map(to, new, owner);
                }
                _ => {
                    ledger.begin_move(number, first * PAGE, length);
                    ledger.fail(number);
                }
            }
            assert_same(&ledger, &pages);
        }
    }
}

#[test]
fn a_call_of_madvise_counts_once_at_each_owner_of_its_range() {
    let mut ledger = Ledger::default();
    ledger.map(10 * PAGE, 4 * PAGE, 2);
    ledger.map(14 * PAGE, 2 * PAGE, 0);
    ledger.map(16 * PAGE, 2 * PAGE, 2);
    ledger.give_back(9 * PAGE, 9 * PAGE - 1);
    ledger.give_back(17 * PAGE, 1);
    ledger.give_back(40 * PAGE, PAGE);
    let given = |calls, pages: u64| GivenBack { calls, bytes: pages * PAGE };
    assert_eq!(ledger.given_back(), [given(1, 2), given(0, 0), given(2, 7)]);
    assert_eq!(ledger.live_bytes(), 8 * PAGE, "the ranges stay mapped");
    let child = ledger.inherited(&[(0, 100 * PAGE)], Some);
    assert_eq!(child.given_back(), [], "a forked child counts its own calls");
}

#[test]
fn a_hole_leaves_two_pieces_of_one_mapping() {
    let mut ledger = Ledger::default();
    ledger.map(10 * PAGE, 10 * PAGE, 0);
    ledger.unmap(1, 13 * PAGE, 2 * PAGE);
    let pieces: Vec<_> = ledger.pieces_in(0, u64::MAX).collect();
    assert_eq!(pieces, [(10 * PAGE, 13 * PAGE, 0), (15 * PAGE, 20 * PAGE, 0)]);
    let counters = ledger.counters()[0];
    assert_eq!((counters.allocs, counters.frees, counters.live_bytes()), (1, 0, 8 * PAGE));
    ledger.unmap(2, 0, 100 * PAGE);
    assert_eq!((ledger.counters()[0].frees, ledger.live_bytes()), (1, 0));
}

#[test]
fn a_move_in_place_grows_and_shrinks_and_its_bytes_stay_live_meanwhile() {
    let mut ledger = Ledger::default();
    ledger.map(10 * PAGE, 4 * PAGE, 0);
    ledger.begin_move(7, 10 * PAGE, 4 * PAGE);
    assert_eq!(ledger.live_bytes(), 4 * PAGE);
    // In this test, another thread maps other pages while the kernel moves the range.
    ledger.map(20 * PAGE, PAGE, 1);
    ledger.end_move(7, 10 * PAGE, 6 * PAGE, 2);
    assert_eq!(ledger.pieces_in(0, u64::MAX).count(), 2);
    assert_eq!((ledger.counters()[0].live_bytes(), ledger.counters()[2].live_bytes()), (0, 6 * PAGE));
    ledger.begin_move(8, 10 * PAGE, 6 * PAGE);
    ledger.end_move(8, 10 * PAGE, PAGE, 2);
    assert_eq!(ledger.counters()[2].live_bytes(), PAGE);
    assert_eq!((ledger.counters()[2].allocs, ledger.counters()[2].frees), (2, 1));
}

#[test]
fn a_range_given_away_while_its_move_is_under_way_stays_with_its_new_owner() {
    let mut ledger = Ledger::default();
    ledger.map(10 * PAGE, 4 * PAGE, 0);
    ledger.begin_move(7, 10 * PAGE, 4 * PAGE);
    // In this test, the kernel has already moved a range to a new address (mremap). Before the ledger
    // gets the event for the end of the move, another thread maps new memory at the old address of the
    // range.
    ledger.map(10 * PAGE, 4 * PAGE, 1);
    ledger.end_move(7, 50 * PAGE, 4 * PAGE, 0);
    let pieces: Vec<_> = ledger.pieces_in(0, u64::MAX).collect();
    assert_eq!(pieces, [(10 * PAGE, 14 * PAGE, 1), (50 * PAGE, 54 * PAGE, 0)]);
}

#[test]
fn detach_takes_a_segment_with_holes_and_nothing_else() {
    let mut ledger = Ledger::default();
    ledger.attach(10 * PAGE, 5 * PAGE, 0);
    ledger.map(15 * PAGE, PAGE, 1);
    ledger.unmap(1, 12 * PAGE, PAGE);
    ledger.detach(2, 15 * PAGE);
    assert_eq!(ledger.counters()[1].live_bytes(), PAGE, "shmdt of another mapping fails");
    ledger.detach(3, 10 * PAGE);
    assert_eq!((ledger.counters()[0].live_bytes(), ledger.counters()[0].frees), (0, 1));
    ledger.fail(3);
    assert_eq!((ledger.counters()[0].live_bytes(), ledger.counters()[0].frees), (4 * PAGE, 0));
}

#[test]
fn pieces_that_the_kernel_does_not_have_are_freed_unless_they_are_newer() {
    let mut ledger = Ledger::default();
    ledger.map(10 * PAGE, 10 * PAGE, 0);
    let mark = ledger.mark();
    ledger.map(40 * PAGE, PAGE, 1);
    let mapped = [(0, 12 * PAGE), (14 * PAGE, 15 * PAGE), (18 * PAGE, 19 * PAGE)];
    assert_eq!(ledger.retain_mapped(&mapped, mark), 6 * PAGE);
    let pieces: Vec<_> =
        ledger.pieces_in(0, u64::MAX).map(|(start, end, _)| (start / PAGE, end / PAGE)).collect();
    assert_eq!(pieces, [(10, 12), (14, 15), (18, 19), (40, 41)]);
    assert_eq!(ledger.counters()[0].freed_bytes, 6 * PAGE);
}

#[test]
fn a_forked_child_begins_with_what_its_map_still_has() {
    let mut ledger = Ledger::default();
    ledger.map(10 * PAGE, 10 * PAGE, 0);
    ledger.unmap(1, 12 * PAGE, PAGE);
    ledger.map(30 * PAGE, PAGE, 1);
    let ranges = [(0, 11 * PAGE), (11 * PAGE, 15 * PAGE), (30 * PAGE, 31 * PAGE)];
    let mut child = ledger.inherited(&ranges, |owner| (owner == 0).then_some(3));
    let counters = child.counters()[3];
    assert_eq!((counters.allocs, counters.allocated_bytes, counters.frees), (1, 4 * PAGE, 0));
    child.unmap(1, 0, 100 * PAGE);
    assert_eq!((child.counters()[3].frees, child.live_bytes()), (1, 0));
}

#[test]
fn ranges_of_nothing_or_beyond_the_address_space_are_ignored() {
    let mut ledger = Ledger::default();
    ledger.map(PAGE, 0, 0);
    ledger.map(u64::MAX - PAGE, 8 * PAGE, 0);
    ledger.unmap(1, u64::MAX - 1, u64::MAX);
    ledger.end_move(99, 0, 0, 0);
    ledger.fail(12);
    assert_eq!((ledger.live_bytes(), ledger.pieces_in(0, u64::MAX).count()), (0, 0));
}
