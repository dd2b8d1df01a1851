//! Writes traces for the tests. The functions in this file compute the counters of each site at each slice.

use edleak_format::{
    AddressSymbols, AreaBytes, Counters, CpuUse, End, EndReason, Epoch, Losses, Module, ModuleId,
    ModuleSymbols, Record, Site, SiteId, SiteKind, SliceHeader, Stack, StackFrame, StackId, Start, Survivors,
    SymbolFrame, TraceWriter, WatchEnd,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The address at which the program is loaded.
pub(crate) const BIAS: u64 = 0x5500_0000_0000;
/// The build ID of the program.
pub(crate) const BUILD_ID: [u8; 4] = [0xab, 0xcd, 0x12, 0x34];

/// A directory that is removed after the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("edleak-pipeline-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the temporary directory is writable");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The content of a trace. A test can change the fields and then write the trace to a file.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) slices: u64,
    pub(crate) tick_ns: u64,
    pub(crate) ticks_per_slice: u64,
    pub(crate) build_id: Vec<u8>,
    pub(crate) end: Option<EndReason>,
    pub(crate) started_unix_ns: u64,
    pub(crate) losses: Losses,
    pub(crate) sites: Vec<DraftSite>,
    /// `Some(n)`: the trace has an additional slice at an irregular time, n ticks after the last regular
    /// slice.
    pub(crate) off_grid: Option<u64>,
    /// The numbers of the slices that the trace leaves out.
    pub(crate) missing: std::ops::Range<u64>,
    /// The processor time that the program used, and the time for which it waited for a processor.
    pub(crate) processor: Option<CpuUse>,
    /// The number of the slice from which edleak no longer watches site 0. `None`: edleak watches site 0
    /// until the end of the record.
    pub(crate) watch_end: Option<u64>,
    /// Returns the resident memory of the program (RssAnon) at slice i, in bytes.
    pub(crate) resident: fn(u64) -> u64,
    /// Returns the sizes of all memory areas at slice i, in the order of their ids.
    pub(crate) areas: fn(u64) -> Vec<AreaBytes>,
    /// Further records of the trace, in addition to its modules and sites.
    pub(crate) further: Vec<Record>,
}

/// A site: its place in the code and its counters.
#[derive(Clone)]
pub(crate) struct DraftSite {
    pub(crate) kind: SiteKind,
    pub(crate) parent: Option<u32>,
    /// The stack, innermost address first. For each return address: the address minus the load bias, and its
    /// frames.
    pub(crate) stack: Vec<(u64, Vec<SymbolFrame>)>,
    /// Returns the counters of the site at slice i. The first slice has the number 0.
    pub(crate) counters: fn(u64) -> Counters,
    pub(crate) survivors: Option<Vec<(u64, u64, u64)>>,
}

pub(crate) fn frame(function: &str, file: &str, line: u32) -> SymbolFrame {
    SymbolFrame { function: Some(function.into()), file: Some(file.into()), line, is_inlined: false }
}

pub(crate) fn counters(allocated_bytes: u64, allocs: u64, freed_bytes: u64, frees: u64) -> Counters {
    Counters { allocated_bytes, allocs, freed_bytes, frees }
}

/// A leak: the site allocates 100 bytes in every slice and never frees them.
pub(crate) fn leaking(slice: u64) -> Counters {
    counters(100 * (slice + 1), slice + 1, 0, 0)
}

/// A cache: the site makes 20 allocations, one in each slice, and then no more.
pub(crate) fn filling(slice: u64) -> Counters {
    let kept = (slice + 1).min(20);
    counters(64 * kept, kept, 0, 0)
}

/// A constant site: it makes one allocation and never frees it.
pub(crate) fn constant(_slice: u64) -> Counters {
    counters(4096, 1, 0, 0)
}

/// The site makes ten allocations in each slice, and frees them in the next slice.
pub(crate) fn churning(slice: u64) -> Counters {
    counters(1000 * (slice + 1), 10 * (slice + 1), 1000 * slice, 10 * slice)
}

pub(crate) fn nothing(_slice: u64) -> Counters {
    Counters::ZERO
}

pub(crate) fn caller(offset: u64, name: &str, line: u32, counters: fn(u64) -> Counters) -> DraftSite {
    DraftSite {
        kind: SiteKind::Caller,
        parent: None,
        stack: vec![(offset, vec![frame(name, "/src/leaker.c", line)])],
        counters,
        survivors: None,
    }
}

/// A leaking site, a cache, a constant site and a churning site, over 80 slices of 100 ms.
pub(crate) fn leaker() -> Draft {
    Draft {
        slices: 80,
        tick_ns: 100_000_000,
        ticks_per_slice: 1,
        build_id: BUILD_ID.to_vec(),
        end: Some(EndReason::Exited(0)),
        started_unix_ns: 1_700_000_000_000_000_000,
        losses: Losses::default(),
        off_grid: None,
        missing: 0..0,
        processor: None,
        watch_end: None,
        resident: |_| 0,
        areas: |_| Vec::new(),
        further: Vec::new(),
        sites: vec![
            caller(0x1010, "grow_list", 42, leaking),
            caller(0x1020, "fill_cache", 50, filling),
            caller(0x1030, "start", 60, constant),
            caller(0x1040, "serve", 70, churning),
        ],
    }
}

/// A caller that made allocations before edleak began to watch it. The caller has two recorded stacks, and
/// one of the two stacks leaks.
pub(crate) fn watched() -> Draft {
    let mut draft = leaker();
    let main = (0x2000, vec![frame("main", "/src/leaker.c", 90)]);
    let stack = |through: &str, offset: u64, line: u32, counters: fn(u64) -> Counters| DraftSite {
        kind: SiteKind::Stack,
        parent: Some(0),
        stack: vec![
            (0x1010, vec![frame("make", "/src/leaker.c", 42)]),
            (offset, vec![frame(through, "/src/leaker.c", line)]),
            main.clone(),
        ],
        counters,
        survivors: None,
    };
    draft.sites = vec![
        caller(0x1010, "make", 42, nothing),
        stack("handle_request", 0x1110, 77, leaking),
        stack("warm_up", 0x1120, 80, filling),
    ];
    draft
}

impl Draft {
    pub(crate) fn write(&self, path: &Path) -> PathBuf {
        // Some tests write several traces to the same path, one after the other.
        let _ = std::fs::remove_file(path);
        let mut writer = TraceWriter::create(path, 16 << 20).expect("a trace of 16 MiB fits");
        self.records().iter().for_each(|record| writer.record(record).expect("the record is sound"));
        for i in (0..self.slices).filter(|i| !self.missing.contains(i)) {
            let header = self.header((i + 1) * self.ticks_per_slice, i);
            writer.memory(&(self.areas)(i));
            writer.slice(&header, &self.counters(i)).expect("the slice is sound");
        }
        if let Some(ticks) = self.off_grid {
            let header = self.header(self.slices * self.ticks_per_slice + ticks, self.slices);
            writer.slice(&header, &self.counters(self.slices)).expect("the slice is sound");
        }
        if let Some(reason) = self.end {
            let at_ns = self.slices * self.ticks_per_slice * self.tick_ns;
            writer.record(&Record::End(End { reason, at_ns })).expect("the record is sound");
        }
        writer.finish().expect("the trace fits");
        path.to_owned()
    }

    fn header(&self, tick: u64, slice: u64) -> SliceHeader {
        let time_ns = tick * self.tick_ns;
        SliceHeader { tick, time_ns, rss_anon_bytes: (self.resident)(slice), swap_bytes: 0 }
    }

    fn counters(&self, slice: u64) -> Vec<Counters> {
        self.sites.iter().map(|site| (site.counters)(slice)).collect()
    }

    fn records(&self) -> Vec<Record> {
        let module = ModuleId(0);
        let mut symbols: Vec<AddressSymbols> = Vec::new();
        let mut records = vec![
            Record::Start(Start {
                command: vec!["./leaker".into(), "--fast".into()],
                pid: 4242,
                started_unix_ns: self.started_unix_ns,
                tick_ns: self.tick_ns,
                period_ticks: self.ticks_per_slice,
                machine: "x86_64".into(),
                recorder: "0.1.0".into(),
            }),
            Record::Module(Module {
                id: module,
                path: "/src/leaker".into(),
                build_id: self.build_id.clone(),
                load_bias: BIAS,
                start: BIAS,
                end: BIAS + 0x10000,
                loaded_ns: 0,
                unloaded_ns: 0,
            }),
        ];
        for (id, site) in (0..).zip(&self.sites) {
            let frames: Vec<StackFrame> = site
                .stack
                .iter()
                .map(|(offset, _)| StackFrame { address: BIAS + offset, module: Some(module) })
                .collect();
            symbols.extend(
                site.stack
                    .iter()
                    .map(|(offset, frames)| AddressSymbols { offset: *offset, frames: frames.clone() }),
            );
            let is_stack = matches!(site.kind, SiteKind::Stack | SiteKind::Pool(_));
            if is_stack {
                records.push(Record::Stack(Stack { id: StackId(id), frames: frames.clone(), is_cut: false }));
            }
            records.push(Record::Site(Site {
                id: SiteId(id),
                kind: site.kind,
                parent: site.parent.map(SiteId),
                address: frames.first().map_or(0, |frame| frame.address),
                module: frames.first().and_then(|frame| frame.module),
                stack: is_stack.then_some(StackId(id)),
            }));
            records.extend(site.survivors.as_ref().map(|epochs| self.survivors(SiteId(id), epochs)));
        }
        symbols.sort_by_key(|symbol| symbol.offset);
        symbols.dedup_by_key(|symbol| symbol.offset);
        records.push(Record::Symbols(ModuleSymbols { module, addresses: symbols }));
        records.push(Record::Losses(self.losses));
        records.extend(self.processor.map(Record::CpuUse));
        let slice_ns = self.ticks_per_slice * self.tick_ns;
        let end = |slice: u64| Record::WatchEnd(WatchEnd { site: SiteId(0), at_ns: (slice + 1) * slice_ns });
        records.extend(self.watch_end.map(end));
        records.extend(self.further.iter().cloned());
        records
    }

    fn survivors(&self, site: SiteId, epochs: &[(u64, u64, u64)]) -> Record {
        let length_ns = self.slices * self.ticks_per_slice * self.tick_ns / epochs.len() as u64;
        let epoch = |(i, &(live_bytes, live_count, allocs)): (u64, &(u64, u64, u64))| Epoch {
            from_ns: i * length_ns,
            to_ns: (i + 1) * length_ns,
            live_bytes,
            live_count,
            allocs,
        };
        let epochs = (0..).zip(epochs).map(epoch).collect();
        Record::Survivors(Survivors { site, epochs, last_free_ns: 0, max_age_at_free_ns: 0 })
    }
}
