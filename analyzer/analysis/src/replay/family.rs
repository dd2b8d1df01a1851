//! Watched sites taken together with their stacks.
//!
//! A site that becomes watched hands its allocations over to its stacks: its own series flattens and those of the
//! stacks begin late, and a leak spread over many stacks may show in none of them. The sum of all has neither gap. Only sites that
//! have stacks pay for it.

use super::gap::Gap;
use edleak_format::{Columns, Grid, LANES, Row, Site, SiteId};
use edleak_model::series::{Point, Series, SeriesBuilder};
use std::collections::HashMap;

const NONE: u32 = u32::MAX;

/// A move of a member of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct FamilyMove {
    tick: u64,
    member: u32,
    live_bytes: u64,
    live_count: u64,
}

/// All watched sites.
#[derive(Debug)]
pub(super) struct Families {
    grid: Grid,
    /// Member of a family by site id; `NONE` for the others. Empty if nothing is watched.
    member_of: Vec<u32>,
    members: Vec<Member>,
    families: Vec<Family>,
}

#[derive(Debug)]
struct Member {
    family: usize,
    live_bytes: u64,
    live_count: u64,
    is_seen: bool,
}

#[derive(Debug)]
struct Family {
    parent: SiteId,
    builder: SeriesBuilder,
    live_bytes: u64,
    live_count: u64,
    covered: usize,
    is_seen: bool,
    crossing: Option<Crossing>,
}

/// A gap in the record that a family is on its way over: all moves at its end are those of one slice.
#[derive(Debug)]
struct Crossing {
    tick: u64,
    gap: Gap,
    /// Live bytes and count of all members before it.
    live: (u64, u64),
    /// Those of each member that moved, before and after it.
    moved: Vec<[(u64, u64); 2]>,
}

impl Families {
    pub(super) fn new(sites: &[Site], grid: Grid) -> Self {
        let mut this = Self { grid, member_of: Vec::new(), members: Vec::new(), families: Vec::new() };
        let ids = sites.len().saturating_mul(super::SLACK).max(super::MIN_ID_LIMIT);
        let fits = |id: SiteId| (id.0 as usize) < ids;
        let mut family_of: HashMap<SiteId, usize> = HashMap::new();
        for site in sites {
            let Some(parent) =
                site.parent.filter(|&parent| fits(parent) && fits(site.id) && parent != site.id)
            else {
                continue;
            };
            this.member_of.resize(ids, NONE);
            let family = *family_of.entry(parent).or_insert_with(|| {
                this.families.push(Family {
                    parent,
                    builder: SeriesBuilder::new(),
                    live_bytes: 0,
                    live_count: 0,
                    covered: 0,
                    is_seen: false,
                    crossing: None,
                });
                this.families.len() - 1
            });
            for id in [parent, site.id] {
                if this.member_of[id.0 as usize] == NONE {
                    // Fewer members than `ids`, which came from u32s.
                    this.member_of[id.0 as usize] = this.members.len() as u32;
                    this.members.push(Member { family, live_bytes: 0, live_count: 0, is_seen: false });
                }
            }
        }
        this
    }

    /// Nothing is watched.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Notes the moves of the members among sixteen sites, which begin with `first_site`; `rows` are slices of the block from
    /// `first_slice` on.
    pub(super) fn note(
        &self,
        first_site: usize,
        rows: &[Row],
        columns: &Columns,
        first_slice: usize,
        moves: &mut Vec<FamilyMove>,
    ) {
        for lane in 0..LANES {
            let Some(&member) = self.member_of.get(first_site + lane).filter(|&&member| member != NONE)
            else {
                continue;
            };
            for (slice, row) in rows.iter().enumerate().filter(|(_, row)| row.named[lane] != 0) {
                let tick = columns.header(first_slice + slice).tick;
                let (live_bytes, live_count) = (row.live_bytes[lane], row.live_count[lane]);
                moves.push(FamilyMove { tick, member, live_bytes, live_count });
            }
        }
    }

    /// Adds the moves of a window, which come in any order. `gaps` are all so far, by the ticks that end them.
    pub(super) fn condense(&mut self, mut moves: Vec<FamilyMove>, gaps: &[(u64, Gap)]) {
        moves.sort_by_key(|moved| moved.tick);
        for moved in moves {
            let Some(point) = self.grid.point_of(moved.tick) else { continue };
            let member = &mut self.members[moved.member as usize];
            let family = &mut self.families[member.family];
            if !family.is_seen {
                family.builder.absent(point as u64);
                (family.covered, family.is_seen) = (point, true);
            }
            if family.crossing.as_ref().is_none_or(|crossing| crossing.tick != moved.tick) {
                family.cross();
                match gaps.binary_search_by_key(&moved.tick, |&(tick, _)| tick) {
                    Ok(ended) if family.covered < point => family.begin_crossing(moved.tick, gaps[ended].1),
                    _ => family.push_until(point),
                }
            }
            let (was, is) = ((member.live_bytes, member.live_count), (moved.live_bytes, moved.live_count));
            if let Some(crossing) = family.crossing.as_mut().filter(|_| member.is_seen) {
                crossing.moved.push([was, is]);
            }
            family.live_bytes = family.live_bytes.wrapping_sub(was.0).wrapping_add(is.0);
            family.live_count = family.live_count.wrapping_sub(was.1).wrapping_add(is.1);
            (member.live_bytes, member.live_count, member.is_seen) = (is.0, is.1, true);
        }
    }

    /// The series of every watched site with its stacks.
    pub(super) fn finish(self) -> HashMap<SiteId, Series> {
        let points = self.grid.points;
        let end = |mut family: Family| {
            family.cross();
            family.push_until(points);
            (family.parent, family.builder.finish())
        };
        self.families.into_iter().filter(|family| family.is_seen).map(end).collect()
    }
}

impl Family {
    fn push_until(&mut self, point: usize) {
        let run = point.saturating_sub(self.covered) as u64;
        let now = Point { live_bytes: self.live_bytes, live_count: self.live_count, allocs: 0, frees: 0 };
        self.builder.push_run(now, run);
        self.covered = self.covered.max(point);
    }

    fn begin_crossing(&mut self, tick: u64, gap: Gap) {
        self.push_until(gap.points().start);
        let live = (self.live_bytes, self.live_count);
        self.crossing = Some(Crossing { tick, gap, live, moved: Vec::new() });
    }

    /// Puts the points of the gap, now that all moves at its end are known: the sum of every member's own line.
    fn cross(&mut self) {
        let Some(Crossing { gap, live, moved, .. }) = self.crossing.take() else { return };
        for at in gap.points() {
            let (live_bytes, live_count) = moved.iter().fold(live, |(bytes, count), [was, is]| {
                let on_the_way = (gap.value(at, was.0, is.0), gap.value(at, was.1, is.1));
                (
                    bytes.wrapping_sub(was.0).wrapping_add(on_the_way.0),
                    count.wrapping_sub(was.1).wrapping_add(on_the_way.1),
                )
            });
            self.builder.push(Point { live_bytes, live_count, allocs: 0, frees: 0 });
        }
        self.covered = self.covered.max(gap.points().end);
    }
}
