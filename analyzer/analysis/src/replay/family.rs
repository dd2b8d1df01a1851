//! Builds the series of a sum of several sites. There are two kinds of sums: a watched site with all its
//! stacks, and the sites that are merged into one ([`Merged`]).
//!
//! From the time at which a site becomes watched, its new allocations are counted for its stacks. So the
//! site's own series stops growing at this time, and the series of its stacks begin only at this time. Also,
//! a leak that is spread over many stacks may be visible in none of them. The sum of the caller and its
//! stacks shows the whole leak. The replay computes sums only for sites that are part of a sum; other sites
//! take no extra time.

use super::gap::Gap;
use super::ids::{MIN_ID_LIMIT, SLACK};
use super::merge::Merged;
use edleak_format::{Columns, GROUP_SITES, Grid, Row, Site, SiteId};
use edleak_model::series::{Births, Point, Series, SeriesBuilder};
use rayon::slice::ParallelSliceMut;
use std::collections::{HashMap, HashSet};

const NONE: u32 = u32::MAX;

/// A change of the counters of one member of a sum, at one slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct FamilyMove {
    tick: u64,
    member: u32,
    live_bytes: u64,
    live_count: u64,
}

/// All sums of a replay.
#[derive(Debug)]
pub(super) struct Families {
    grid: Grid,
    /// For each site id, the index of the site in `members`; `NONE` if the site is in no sum. The vector is
    /// empty if no sites are summed up.
    member_of: Vec<u32>,
    members: Vec<Member>,
    families: Vec<Family>,
}

/// The series of each sum. The key of this map is the site that represents the members of the sum.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// The series of each watched site together with its stacks.
    pub(crate) with_stacks: HashMap<SiteId, Series>,
    /// The series of each set of merged sites.
    pub(crate) merged: HashMap<SiteId, Series>,
}

#[derive(Debug, Default)]
struct Member {
    /// The indexes of the sums that this site is part of: the sum of its caller with all stacks, and the sum
    /// of the sites merged with it.
    families: [Option<usize>; 2],
    live_bytes: u64,
    live_count: u64,
    is_seen: bool,
}

/// The kind of a sum of series: a watched site with all its stacks, or sites with the same code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Of {
    CallerWithStacks,
    SameCode,
}

#[derive(Debug)]
struct Family {
    of: Of,
    /// The site that represents all members of the sum.
    root: SiteId,
    builder: SeriesBuilder,
    live_bytes: u64,
    live_count: u64,
    /// Number of grid points before the first point of the sum.
    absent: usize,
    covered: usize,
    is_seen: bool,
    crossing: Option<Crossing>,
}

/// A gap (a time without slices) in the curve of a sum; the replay has not filled this gap yet. The replay
/// fills a gap as soon as it knows all changes of the slice after the gap.
#[derive(Debug)]
struct Crossing {
    tick: u64,
    gap: Gap,
    /// Live bytes and live count of all members of the sum together, before the gap.
    live: (u64, u64),
    /// For each member of the sum that changed, its live bytes and live count before the gap and after the
    /// gap.
    moved: Vec<[(u64, u64); 2]>,
}

impl Families {
    pub(super) fn new(sites: &[Site], merged: &Merged, grid: Grid) -> Self {
        let mut this = Self { grid, member_of: Vec::new(), members: Vec::new(), families: Vec::new() };
        let ids = sites.len().saturating_mul(SLACK).max(MIN_ID_LIMIT);
        let mut family_of: HashMap<(Of, SiteId), usize> = HashMap::new();
        let mut add = |of: Of, root: SiteId, members: &[SiteId]| {
            let fits = |id: &SiteId| (id.0 as usize) < ids;
            if !fits(&root) || !members.iter().all(fits) {
                return;
            }
            let family = *family_of.entry((of, root)).or_insert_with(|| {
                this.families.push(Family::new(of, root));
                this.families.len() - 1
            });
            this.member_of.resize(ids, NONE);
            for id in members {
                let member_of = &mut this.member_of[id.0 as usize];
                if *member_of == NONE {
                    // The number of members fits into a u32, because there are not more members than site
                    // ids.
                    *member_of = this.members.len() as u32;
                    this.members.push(Member::default());
                }
                this.members[*member_of as usize].families[of as usize] = Some(family);
            }
        };
        for (root, members) in merged.groups() {
            add(Of::SameCode, root, members);
        }
        let mut watched: HashSet<SiteId> = HashSet::new();
        for site in sites {
            let Some(parent) = site.parent.filter(|&parent| parent != site.id) else { continue };
            let root = merged.root(parent);
            if watched.insert(root) {
                add(Of::CallerWithStacks, root, merged.members(root).unwrap_or(&[root]));
            }
            add(Of::CallerWithStacks, root, &[site.id]);
        }
        this
    }

    /// Whether there are no sums to compute.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Looks at the sixteen sites from `first_site` on, and adds the changes of each site that is part of a
    /// sum to `moves`. `rows` has one row for each slice; the first row is the slice with index `first_slice`
    /// in the block.
    pub(super) fn note(
        &self,
        first_site: usize,
        rows: &[Row],
        columns: &Columns,
        first_slice: usize,
        moves: &mut Vec<FamilyMove>,
    ) {
        for lane in 0..GROUP_SITES {
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

    /// Adds the changes of a window (several decompressed blocks) to the sums; the changes may be in any
    /// order. `gaps` has all gaps that the replay has found so far, sorted by the tick of the slice that ends
    /// each gap.
    pub(super) fn condense(&mut self, mut moves: Vec<FamilyMove>, gaps: &[(u64, Gap)]) {
        // The order of the changes of one slice has no effect on the sums, so the sort need not be stable.
        moves.par_sort_unstable_by_key(|moved| moved.tick);
        for moved in moves {
            let Some(point) = self.grid.point_of(moved.tick) else { continue };
            let member = &mut self.members[moved.member as usize];
            let (was, is) = ((member.live_bytes, member.live_count), (moved.live_bytes, moved.live_count));
            for index in member.families.into_iter().flatten() {
                let family = &mut self.families[index];
                if !family.is_seen {
                    family.builder.absent(point as u64);
                    (family.absent, family.covered, family.is_seen) = (point, point, true);
                }
                if family.crossing.as_ref().is_none_or(|crossing| crossing.tick != moved.tick) {
                    family.cross();
                    match gaps.binary_search_by_key(&moved.tick, |&(tick, _)| tick) {
                        Ok(ended) if family.covered < point => {
                            family.begin_crossing(moved.tick, gaps[ended].1);
                        }
                        _ => family.push_until(point),
                    }
                }
                if let Some(crossing) = family.crossing.as_mut().filter(|_| member.is_seen) {
                    crossing.moved.push([was, is]);
                }
                family.live_bytes = family.live_bytes.wrapping_sub(was.0).wrapping_add(is.0);
                family.live_count = family.live_count.wrapping_sub(was.1).wrapping_add(is.1);
            }
            (member.live_bytes, member.live_count, member.is_seen) = (is.0, is.1, true);
        }
    }

    /// The series of every sum. `births` gives the birth times of the surviving allocations of merged sites.
    /// The arguments of `births` are the site that represents the merged sites, and their first grid point.
    pub(super) fn finish(self, births: impl Fn(SiteId, usize) -> Option<Births>) -> Sums {
        let points = self.grid.points;
        let mut sums = Sums::default();
        for mut family in self.families.into_iter().filter(|family| family.is_seen) {
            family.cross();
            family.push_until(points);
            match family.of {
                Of::CallerWithStacks => sums.with_stacks.insert(family.root, family.builder.finish()),
                Of::SameCode => {
                    if let Some(births) = births(family.root, family.absent) {
                        family.builder.births(births);
                    }
                    sums.merged.insert(family.root, family.builder.finish())
                }
            };
        }
        sums
    }
}

impl Family {
    fn new(of: Of, root: SiteId) -> Self {
        Self {
            of,
            root,
            builder: SeriesBuilder::new(),
            live_bytes: 0,
            live_count: 0,
            absent: 0,
            covered: 0,
            is_seen: false,
            crossing: None,
        }
    }

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

    /// Fills a gap (a time without slices) in the curve of the sum. Before this call, all changes of the
    /// slice after the gap must have been added. For each member of the sum, the function draws a straight
    /// line through the gap. At each grid point in the gap, the sum is the sum of the values of these lines.
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
