//! Replays a trace for a few sites at a time and gives the caller all points of these sites, for example to
//! print them.
//!
//! The points of all sites together may not fit into memory. So this module replays the trace several times,
//! each time for a group of sites whose points fit into memory. Threads replay the groups in parallel; the
//! caller gets the results in the order of the sites.

use super::gap::Gap;
use super::merge::Merged;
use super::teardown::judged_grid;
use crate::error::{Error, ErrorKind, Result};
use edleak_format::{Counters, Grid, SiteId, SliceHeader, SliceVisitor, Trace};
use edleak_model::series::Point;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Maximum number of bytes for the points of those groups of sites that are replayed at the same time.
const POINTS_BYTES: usize = 512 << 20;
/// Maximum number of grid points of a trace. A trace with more grid points can only be a forgery: even a
/// recording of a year, with one point per second, has only 32 million points.
const MAX_POINTS: usize = 1 << 26;

/// All points of one site, from the site's first point on. Equal points in a row are stored as one run, which
/// is the point and the number of its repetitions.
#[derive(Debug)]
pub struct SitePoints {
    /// The index of the site in the list of ids that the caller gave.
    pub index: usize,
    /// Number of grid points before the site's first point.
    pub absent: usize,
    /// The points of the site, as runs of equal points.
    pub runs: Vec<(Point, u64)>,
}

impl SitePoints {
    /// Number of points from the site's first point on.
    pub fn points(&self) -> u64 {
        self.runs.iter().map(|(_, times)| times).sum()
    }
}

/// Calls `each` with the points of every site, in the order of `ids`, which must be ascending. If several
/// sites are merged into one, the function passes the sum of their points to `each`.
///
/// # Errors
/// The record is too long to print, or `each` fails.
pub fn for_each_site<E: From<Error>>(
    trace: &Trace,
    merged: &Merged,
    ids: &[SiteId],
    mut each: impl FnMut(SitePoints) -> Result<(), E>,
) -> Result<(), E> {
    let groups = merged.groups().filter(|(root, _)| ids.binary_search(root).is_ok());
    let root_of: BTreeMap<SiteId, SiteId> =
        groups.flat_map(|(root, members)| members.iter().map(move |&site| (site, root))).collect();
    let mut sums = sums_of::<E>(trace, &root_of)?;
    for_each_single(trace, ids, |site| match sums.remove(&ids[site.index]) {
        Some(sum) => each(SitePoints { index: site.index, ..sum }),
        None => each(site),
    })
}

/// Calls `each` with the points of every site, in the order of `ids`, which must be ascending. The function
/// does not merge sites that are the same code.
fn for_each_single<E: From<Error>>(
    trace: &Trace,
    ids: &[SiteId],
    mut each: impl FnMut(SitePoints) -> Result<(), E>,
) -> Result<(), E> {
    let grid = judged_grid(trace);
    if grid.points > MAX_POINTS {
        let message = format!("{} points per site are too many to print", grid.points);
        let error = Error::new(ErrorKind::Output, message);
        return Err(error.with_remedy("record with a longer `--period`").into());
    }
    let threads = rayon::current_num_threads();
    let group_sites = (POINTS_BYTES / threads / size_of::<(Point, u64)>() / grid.points.max(1)).max(1);
    let groups: Vec<(usize, &[SiteId])> =
        ids.chunks(group_sites).enumerate().map(|(i, group)| (i * group_sites, group)).collect();
    for wave in groups.chunks(threads) {
        let collected: Vec<Vec<SitePoints>> =
            wave.par_iter().map(|&(first, ids)| collect(trace, grid, first, ids)).collect();
        collected.into_iter().flatten().try_for_each(&mut each)?;
    }
    Ok(())
}

/// The sums of the points of merged sites. The key of each sum is the site that represents the merged sites.
fn sums_of<E: From<Error>>(
    trace: &Trace,
    root_of: &BTreeMap<SiteId, SiteId>,
) -> Result<HashMap<SiteId, SitePoints>, E> {
    let members: Vec<SiteId> = root_of.keys().copied().collect();
    let points = judged_grid(trace).points;
    let mut sums: HashMap<SiteId, (usize, Vec<Point>)> = HashMap::new();
    for_each_single(trace, &members, |site| {
        if site.runs.is_empty() {
            return Ok(());
        }
        let (absent, sum) = sums
            .entry(root_of[&members[site.index]])
            .or_insert_with(|| (usize::MAX, vec![Point::default(); points]));
        *absent = site.absent.min(*absent);
        let mut at = site.absent;
        for (point, times) in site.runs {
            for sum in sum.iter_mut().skip(at).take(times as usize) {
                sum.live_bytes = sum.live_bytes.wrapping_add(point.live_bytes);
                sum.live_count = sum.live_count.wrapping_add(point.live_count);
                sum.allocs = sum.allocs.wrapping_add(point.allocs);
                sum.frees = sum.frees.wrapping_add(point.frees);
            }
            at += times as usize;
        }
        Ok::<(), E>(())
    })?;
    let end = |(root, (absent, sum)): (SiteId, (usize, Vec<Point>))| {
        let runs = sum.into_iter().skip(absent).map(|point| (point, 1)).collect();
        (root, SitePoints { index: 0, absent, runs })
    };
    Ok(sums.into_iter().map(end).collect())
}

fn collect(trace: &Trace, grid: Grid, first: usize, ids: &[SiteId]) -> Vec<SitePoints> {
    let sites = ids.iter().map(|_| Collected::default()).collect();
    let mut collector = Collector { grid, ids, newest: None, sites };
    for block in 0..trace.blocks().len() {
        // The function ignores an error of this read, because the replay has already counted the blocks that
        // can no longer be read.
        let _ = trace.replay_block(block, &mut collector);
    }
    let end = |(i, mut site): (usize, Collected)| {
        if site.is_seen {
            site.push_until(grid.points);
        }
        SitePoints { index: first + i, absent: site.absent, runs: site.runs }
    };
    collector.sites.into_iter().enumerate().map(end).collect()
}

/// Computes the sum of each watched site and its stacks.
#[derive(Debug)]
pub struct Families;

impl Families {
    /// The sum of the points of each watched site and its stacks, if both are among `ids`.
    ///
    /// # Errors
    /// The record is too long to print.
    pub fn of<E: From<Error>>(
        trace: &Trace,
        merged: &Merged,
        ids: &[SiteId],
    ) -> Result<HashMap<SiteId, SitePoints>, E> {
        let mut root_of: BTreeMap<SiteId, SiteId> = BTreeMap::new();
        let is_asked = |id: SiteId| ids.binary_search(&merged.root(id)).is_ok();
        for site in trace.sites().iter().filter(|site| is_asked(site.id)) {
            if let Some(parent) = site.parent.filter(|parent| is_asked(*parent) && *parent != site.id) {
                let root = merged.root(parent);
                if !root_of.contains_key(&root) {
                    let callers = merged.members(root).unwrap_or(std::slice::from_ref(&root));
                    root_of.extend(callers.iter().map(|&caller| (caller, root)));
                }
                root_of.insert(site.id, root);
            }
        }
        sums_of(trace, &root_of)
    }
}

struct Collector<'a> {
    grid: Grid,
    ids: &'a [SiteId],
    /// The point of the newest slice.
    newest: Option<usize>,
    sites: Vec<Collected>,
}

#[derive(Default)]
struct Collected {
    now: Counters,
    absent: usize,
    covered: usize,
    is_seen: bool,
    runs: Vec<(Point, u64)>,
}

impl Collected {
    fn push_until(&mut self, point: usize) {
        if point > self.covered {
            self.runs.push((point_of(&self.now), (point - self.covered) as u64));
            self.covered = point;
        }
    }

    /// Fills a gap (a time without slices) in the curve of a site: adds points on a straight line from the
    /// counters before the gap to the counters `is` after the gap. If the live bytes and the live count did
    /// not change in the gap, the function does nothing.
    fn push_over(&mut self, gap: &Gap, is: Point) {
        let was = point_of(&self.now);
        if (was.live_bytes, was.live_count) == (is.live_bytes, is.live_count) {
            return;
        }
        self.push_until(gap.points().start);
        for at in gap.points() {
            let on_the_way = Point {
                live_bytes: gap.value(at, was.live_bytes, is.live_bytes),
                live_count: gap.value(at, was.live_count, is.live_count),
                allocs: gap.value(at, was.allocs, is.allocs),
                frees: gap.value(at, was.frees, is.frees),
            };
            self.runs.push((on_the_way, 1));
        }
        self.covered = gap.points().end;
    }
}

fn point_of(counters: &Counters) -> Point {
    Point {
        live_bytes: counters.live_bytes(),
        live_count: counters.live_count(),
        allocs: counters.allocs,
        frees: counters.frees,
    }
}

impl SliceVisitor for Collector<'_> {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        let found = self.grid.point_of(header.tick);
        // A slice after the last grid point matters only if there is a gap before it, because it then gives
        // the values at the end of the gap.
        let point = found.unwrap_or(self.grid.points);
        let gap = self.newest.and_then(|newest| Gap::between(newest, point));
        if found.is_none() && gap.is_none() {
            return;
        }
        self.newest = Some(point);
        let (Some(first), Some(last)) = (self.ids.first(), self.ids.last()) else { return };
        let from = changed.partition_point(|(id, _)| id < first);
        let to = changed.partition_point(|(id, _)| id <= last);
        let mut at = 0;
        for (id, counters) in &changed[from..to] {
            at += self.ids[at..].partition_point(|known| known < id);
            if self.ids.get(at) != Some(id) {
                continue;
            }
            let site = &mut self.sites[at];
            let is = point_of(counters);
            if found.is_none() {
                if let Some(gap) = gap.as_ref().filter(|_| site.is_seen) {
                    let was = point_of(&site.now);
                    let live_bytes = is.live_bytes.max(was.live_bytes);
                    site.push_over(
                        gap,
                        Point { live_bytes, live_count: is.live_count.max(was.live_count), ..is },
                    );
                }
                continue;
            }
            if !site.is_seen {
                (site.absent, site.covered, site.is_seen) = (point, point, true);
            } else if let Some(gap) = &gap {
                site.push_over(gap, is);
            }
            site.push_until(point);
            site.now = *counters;
        }
    }
}
