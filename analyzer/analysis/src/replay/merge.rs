//! Merges sites that are the same code at several addresses, so that the code gets one verdict.
//!
//! A trace has one site per return address. The same code gets many return addresses in three cases: the
//! program loads a plugin several times, at different addresses; it loads copies of the plugin under
//! different names; or it generates code for every query. If the same code stayed many sites, each of these
//! sites would have too few allocations for a verdict. So the analyzer merges sites if they share
//!
//! | sites | shared |
//! |---|---|
//! | callers in a module | the module's build ID and the offset in it; without a build ID, path and offset |
//! | callers in no module | nothing else: all generated code is one site |
//! | stacks | the caller, and for every frame the same as for a caller |
//! | callers of pools | the name of the pools, and for both frames the same as for a caller |
//!
//! The site with the lowest id represents all sites that are merged with it.

use crate::site::{Domain, Kind};
use edleak_format::{
    Counters, Epoch, Module, ModuleId, Site, SiteId, SiteKind, SliceHeader, SliceVisitor, StackFrame,
    Survivors, Trace,
};
use std::collections::{HashMap, HashSet};

/// The merged sites of a trace.
#[derive(Debug, Default)]
pub struct Merged {
    /// For each site that is represented by another site, the id of the representing site.
    root_of: HashMap<SiteId, SiteId>,
    /// For each site that represents merged sites, the ids of all these sites, in ascending order; the list
    /// includes the representing site.
    members: HashMap<SiteId, Vec<SiteId>>,
    /// Sites that count mappings or objects of pools, and not memory of the heap.
    beside_heap: HashSet<SiteId>,
}

/// Merges the sites in slices, and passes the slices on to another visitor. For each set of merged sites, the
/// other visitor gets only the site that represents the set, with the sum of their counters.
#[derive(Debug)]
pub struct MergingVisitor<'a, V> {
    merged: &'a Merged,
    visitor: &'a mut V,
    /// Whether `visitor` gets only sites of the heap.
    is_of_heap: bool,
    /// The newest counters of the merged sites.
    now: HashMap<SiteId, Counters>,
    changed: Vec<(SiteId, Counters)>,
}

impl<V: SliceVisitor> SliceVisitor for MergingVisitor<'_, V> {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        let leaves_out = |id: SiteId| self.is_of_heap && self.merged.beside_heap.contains(&id);
        if self.merged.members.is_empty() && !changed.iter().any(|&(id, _)| leaves_out(id)) {
            return self.visitor.slice(header, changed);
        }
        self.changed.clear();
        for &(id, counters) in changed.iter().filter(|&&(id, _)| !leaves_out(id)) {
            let root = self.merged.root(id);
            if self.merged.members(root).is_some() {
                self.now.insert(id, counters);
                self.changed.push((root, Counters::ZERO));
            } else {
                self.changed.push((id, counters));
            }
        }
        self.changed.sort_by_key(|(id, _)| *id);
        self.changed.dedup_by_key(|(id, _)| *id);
        for (id, counters) in &mut self.changed {
            if let Some(members) = self.merged.members(*id) {
                let of = |member: &SiteId| self.now.get(member).copied().unwrap_or(Counters::ZERO);
                *counters = members.iter().map(of).fold(Counters::ZERO, Counters::plus);
            }
        }
        self.visitor.slice(header, &self.changed);
    }
}

/// Says where a frame is in the code, independent of the address at which the code was loaded. Two frames of
/// the same code have equal places, even if their addresses differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Place<'a> {
    Build(&'a [u8], u64),
    Path(&'a str, u64),
    Generated,
}

#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Caller(SiteKind, Place<'a>),
    Pool(SiteKind, Vec<Place<'a>>),
    Stack(SiteId, Vec<Place<'a>>),
}

impl Merged {
    /// Finds the sites of `trace` that are the same code at several addresses, so that they must be merged.
    pub fn of(trace: &Trace) -> Self {
        let modules: HashMap<ModuleId, &Module> =
            trace.modules().iter().map(|module| (module.id, module)).collect();
        let place = |frame: &StackFrame| place_of(frame, &modules);
        let is_beside_heap = |site: &&Site| Kind::of(site.kind).domain() != Domain::Heap;
        let beside_heap = trace.sites().iter().filter(is_beside_heap).map(|site| site.id).collect();
        let mut merged = Self { beside_heap, ..Self::default() };
        let callers = trace.sites().iter().filter(|site| site.parent.is_none());
        merged.group(callers.filter_map(|site| Some((site.id, caller_key(site, place)?))));
        let of_pools = trace.sites().iter().filter(|site| matches!(site.kind, SiteKind::Pool(_)));
        merged.group(of_pools.filter_map(|site| {
            let frames = trace.stack(site.stack?)?.frames.iter().map(place).collect();
            Some((site.id, Key::Pool(site.kind, frames)))
        }));
        let stacks = trace.sites().iter().filter_map(|site| {
            let (parent, id) = (site.parent?, site.stack?);
            let frames = trace.stack(id)?.frames.iter().map(place).collect();
            Some((site.id, Key::Stack(merged.root(parent), frames)))
        });
        let stacks: Vec<_> = stacks.collect();
        merged.group(stacks.into_iter());
        merged
    }

    fn group<'a>(&mut self, sites: impl Iterator<Item = (SiteId, Key<'a>)>) {
        let mut groups: HashMap<Key<'a>, Vec<SiteId>> = HashMap::new();
        for (site, key) in sites {
            groups.entry(key).or_default().push(site);
        }
        for mut group in groups.into_values().filter(|group| group.len() > 1) {
            group.sort_unstable();
            group.dedup();
            let root = group[0];
            self.root_of.extend(group[1..].iter().map(|&site| (site, root)));
            if group.len() > 1 {
                self.members.insert(root, group);
            }
        }
    }

    /// Makes a visitor that gets the slices of one block. The new visitor merges sites and passes the slices
    /// on to `visitor`.
    pub(crate) fn visitor<'a, V: SliceVisitor>(&'a self, visitor: &'a mut V) -> MergingVisitor<'a, V> {
        MergingVisitor { merged: self, visitor, is_of_heap: false, now: HashMap::new(), changed: Vec::new() }
    }

    /// Makes a visitor like [`Self::visitor`], but `visitor` gets only sites of the heap.
    pub(crate) fn heap_visitor<'a, V: SliceVisitor>(&'a self, visitor: &'a mut V) -> MergingVisitor<'a, V> {
        MergingVisitor { is_of_heap: true, ..self.visitor(visitor) }
    }

    /// The watched sites that the recorder stopped watching before the end of the recording.
    pub(crate) fn ended_watches(&self, trace: &Trace) -> HashSet<SiteId> {
        let ends = trace.watch_ends().iter().filter(|end| end.at_ns > 0);
        ends.map(|end| self.root(end.site)).collect()
    }

    /// The site that represents `site`.
    pub(crate) fn root(&self, site: SiteId) -> SiteId {
        self.root_of.get(&site).copied().unwrap_or(site)
    }

    /// Whether a site counts mappings or objects of pools, and not memory of the heap.
    pub(crate) fn is_beside_heap(&self, site: SiteId) -> bool {
        self.beside_heap.contains(&site)
    }

    /// Whether another site represents `site`.
    pub(crate) fn is_part(&self, site: SiteId) -> bool {
        self.root_of.contains_key(&site)
    }

    /// The sites that `root` represents; `None`: `root` represents only itself.
    pub(crate) fn members(&self, root: SiteId) -> Option<&[SiteId]> {
        self.members.get(&root).map(Vec::as_slice)
    }

    /// Every site that represents others, with all sites that it represents.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (SiteId, &[SiteId])> {
        self.members.iter().map(|(root, members)| (*root, members.as_slice()))
    }

    /// The surviving allocations of every site. Merged sites get the sum of their surviving allocations. If
    /// merged sites have different birth epochs, the function leaves these sites out.
    pub(crate) fn survivors(&self, trace: &Trace) -> HashMap<SiteId, Survivors> {
        let known: HashMap<SiteId, &Survivors> =
            trace.survivors().iter().map(|survivors| (survivors.site, survivors)).collect();
        let alone = known
            .values()
            .filter(|survivors| !self.is_part(survivors.site) && self.members(survivors.site).is_none());
        let together = self.groups().filter_map(|(root, members)| {
            let members: Vec<&Survivors> =
                members.iter().map(|site| known.get(site).copied()).collect::<Option<_>>()?;
            Some((root, sum_of(root, &members)?))
        });
        alone.map(|survivors| (survivors.site, (*survivors).clone())).chain(together).collect()
    }
}

fn caller_key<'a>(site: &Site, place: impl Fn(&StackFrame) -> Place<'a>) -> Option<Key<'a>> {
    let is_caller = matches!(site.kind, SiteKind::Caller | SiteKind::Mapping | SiteKind::AllocatorMapping);
    (is_caller && site.address != 0)
        .then(|| Key::Caller(site.kind, place(&StackFrame { address: site.address, module: site.module })))
}

fn place_of<'a>(frame: &StackFrame, modules: &HashMap<ModuleId, &'a Module>) -> Place<'a> {
    let Some(module) = frame.module.and_then(|id| modules.get(&id)) else { return Place::Generated };
    let offset = frame.address.wrapping_sub(module.load_bias);
    match module.build_id.as_slice() {
        [] => Place::Path(&module.path, offset),
        build_id => Place::Build(build_id, offset),
    }
}

fn sum_of(root: SiteId, members: &[&Survivors]) -> Option<Survivors> {
    let (first, rest) = members.split_first()?;
    let mut sum = Survivors { site: root, ..(*first).clone() };
    for other in rest {
        let is_same = |(one, two): (&Epoch, &Epoch)| (one.from_ns, one.to_ns) == (two.from_ns, two.to_ns);
        if other.epochs.len() != sum.epochs.len() || !sum.epochs.iter().zip(&other.epochs).all(is_same) {
            return None;
        }
        for (epoch, more) in sum.epochs.iter_mut().zip(&other.epochs) {
            epoch.live_bytes = epoch.live_bytes.saturating_add(more.live_bytes);
            epoch.live_count = epoch.live_count.saturating_add(more.live_count);
            epoch.allocs = epoch.allocs.saturating_add(more.allocs);
        }
        sum.last_free_ns = sum.last_free_ns.max(other.last_free_ns);
        sum.max_age_at_free_ns = sum.max_age_at_free_ns.max(other.max_age_at_free_ns);
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::points::{SitePoints, for_each_site};
    use crate::replay::replay;
    use edleak_format::{Counters, Record, SliceHeader, Start, TraceWriter};

    const MIN_BYTES: u64 = 1 << 20;

    fn module(id: u32, path: &str, build_id: &[u8], load_bias: u64) -> Record {
        Record::Module(Module {
            id: ModuleId(id),
            path: path.into(),
            build_id: build_id.into(),
            load_bias,
            start: load_bias,
            end: load_bias + 0x1000,
            loaded_ns: 0,
            unloaded_ns: 0,
        })
    }

    fn site(id: u32, address: u64, module: Option<u32>) -> Site {
        Site {
            id: SiteId(id),
            kind: SiteKind::Caller,
            parent: None,
            address,
            module: module.map(ModuleId),
            stack: None,
        }
    }

    fn stack(id: u32, parent: u32, frames: &[(u64, Option<u32>)]) -> [Record; 2] {
        let frames = frames
            .iter()
            .map(|&(address, module)| StackFrame { address, module: module.map(ModuleId) })
            .collect();
        let stack_id = edleak_format::StackId(id);
        let of = Site {
            kind: SiteKind::Stack,
            parent: Some(SiteId(parent)),
            stack: Some(stack_id),
            ..site(id, 0x100, None)
        };
        [Record::Stack(edleak_format::Stack { id: stack_id, frames, is_cut: false }), Record::Site(of)]
    }

    /// Writes a trace of 40 slices. Site i allocates 100 + i bytes more in each slice, from slice i on.
    fn trace(name: &str, sites: u32, records: &[Record]) -> Trace {
        let path = std::env::temp_dir().join(format!("edleak-merge-{}-{name}", std::process::id()));
        let mut writer = TraceWriter::create(&path, MIN_BYTES).expect("a new file");
        let start = Start { tick_ns: 1_000_000, period_ticks: 1, ..Start::default() };
        writer.record(&Record::Start(start)).expect("room");
        records.iter().for_each(|record| writer.record(record).expect("room"));
        for slice in 0..40u64 {
            let counters = |site: u32| {
                let allocs = slice.saturating_sub(u64::from(site));
                let bytes = allocs * (100 + u64::from(site));
                Counters { allocated_bytes: bytes, allocs, ..Counters::ZERO }
            };
            let counters: Vec<Counters> = (0..sites).map(counters).collect();
            let header = SliceHeader { tick: slice, time_ns: slice * 1_000_000, ..SliceHeader::default() };
            writer.slice(&header, &counters).expect("room");
        }
        writer.finish().expect("room");
        let trace = Trace::from_bytes(std::fs::read(&path).expect("it is there")).expect("a trace");
        std::fs::remove_file(&path).expect("it was made here");
        trace
    }

    fn groups(merged: &Merged) -> Vec<Vec<u32>> {
        let mut groups: Vec<Vec<u32>> =
            merged.groups().map(|(_, members)| members.iter().map(|id| id.0).collect()).collect();
        groups.sort();
        groups
    }

    /// The records of a trace with plugins: one plugin at two addresses and under two names, another build of
    /// this plugin, a module without a build ID, and generated code.
    fn plugins() -> Vec<Record> {
        let mut records = vec![
            module(0, "/p.so", &[1], 0x1000),
            module(1, "/copy.so", &[1], 0x3000),
            module(2, "/p.so", &[2], 0x5000),
            module(3, "/q.so", &[], 0x7000),
            module(4, "/q.so", &[], 0x9000),
            module(5, "/r.so", &[], 0xb000),
        ];
        let places = [
            (0x1010, Some(0)),
            (0x3010, Some(1)),
            (0x3020, Some(1)),
            (0x5010, Some(2)),
            (0x7010, Some(3)),
            (0x9010, Some(4)),
            (0xb010, Some(5)),
            (0xf_0010, None),
            (0xf_0020, None),
        ];
        for (id, (address, module)) in (0..).zip(places) {
            records.push(Record::Site(site(id, address, module)));
        }
        records
    }

    #[test]
    fn sites_are_one_by_build_id_and_offset_or_by_path_or_for_want_of_a_module() {
        let merged = Merged::of(&trace("places", 9, &plugins()));
        assert_eq!(groups(&merged), [vec![0, 1], vec![4, 5], vec![7, 8]]);
        assert_eq!((merged.root(SiteId(8)), merged.root(SiteId(6))), (SiteId(7), SiteId(6)));
    }

    #[test]
    fn stacks_are_one_where_callers_and_frames_are() {
        let mut records = plugins();
        records.extend(stack(9, 0, &[(0x1010, Some(0)), (0x1f00, Some(0))]));
        records.extend(stack(10, 1, &[(0x3010, Some(1)), (0x3f00, Some(1))]));
        records.extend(stack(11, 1, &[(0x3010, Some(1)), (0x3e00, Some(1))]));
        records.extend(stack(12, 7, &[(0xf_0010, None), (0x1f00, Some(0))]));
        records.extend(stack(13, 8, &[(0xf_0020, None), (0x3f00, Some(1))]));
        let trace = trace("stacks", 14, &records);
        let merged = Merged::of(&trace);
        assert_eq!(groups(&merged), [vec![0, 1], vec![4, 5], vec![7, 8], vec![9, 10], vec![12, 13]]);
        // If callers are merged, the series of caller and stacks together is the sum of all these callers and
        // of all their stacks.
        let sites = replay(&trace, &merged, trace.grid(), false, |site| site).sites;
        let root = sites.iter().find(|site| site.id == SiteId(0)).expect("it has slices");
        let last = root.with_stacks.as_ref().expect("it has stacks").last();
        assert_eq!(last.live_count, [0, 1, 9, 10, 11].iter().map(|site| 39 - site).sum::<u64>());
    }

    #[test]
    fn sites_that_are_one_have_one_series_with_all_their_points() {
        let trace = trace("series", 9, &plugins());
        let merged = Merged::of(&trace);
        let sites = replay(&trace, &merged, trace.grid(), false, |site| site).sites;
        assert_eq!(sites.iter().map(|site| site.id.0).collect::<Vec<_>>(), [0, 2, 3, 4, 6, 7]);
        let of = |id: u32| sites.iter().find(|site| site.id == SiteId(id)).expect("it has slices");
        let last = of(7).series.last();
        assert_eq!((last.live_count, last.live_bytes), (32 + 31, 32 * 107 + 31 * 108));
        assert_eq!((last.allocs, last.frees, of(7).counters.allocs), (63, 0, 63));
        assert_eq!((of(7).series.absent(), of(6).series.absent()), (8, 7));
        // `for_each_site` must give the same points as those from which the replay made its series.
        let ids: Vec<SiteId> = sites.iter().map(|site| site.id).collect();
        let mut printed: Vec<SitePoints> = Vec::new();
        for_each_site(&trace, &merged, &ids, |points| {
            printed.push(points);
            Ok::<(), crate::error::Error>(())
        })
        .expect("nothing to fail");
        assert_eq!(printed.len(), ids.len());
        for (points, site) in printed.iter().zip(&sites) {
            assert_eq!(points.absent as u64, site.series.absent());
            let (last, _) = points.runs.last().expect("it has points");
            assert_eq!(*last, site.series.last());
            assert_eq!(points.points(), site.series.points());
        }
    }
}
