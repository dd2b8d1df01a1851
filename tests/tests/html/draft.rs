//! Writes traces for the tests of the HTML page. Each test gives the counters of each site as literal
//! numbers.

use edleak_format::{
    AddressSymbols, Counters, End, EndReason, Epoch, Module, ModuleId, ModuleSymbols, Record, Site, SiteId,
    SiteKind, SliceHeader, Stack, StackFrame, StackId, Start, Survivors, SymbolFrame, TraceWriter,
};
use std::path::{Path, PathBuf};

const BIAS: u64 = 0x5500_0000_0000;
/// The time between two slices, in nanoseconds.
pub(crate) const PERIOD_NS: u64 = 100_000_000;

/// The content of a trace that a test writes, with one slice every 100 ms.
pub(crate) struct Draft {
    pub(crate) command: Vec<String>,
    pub(crate) slices: u64,
    pub(crate) missing: std::ops::Range<u64>,
    pub(crate) end: EndReason,
    pub(crate) sites: Vec<DraftSite>,
}

/// One site: its stack, innermost frame first, and a function that returns the counters of the site at slice
/// i (the first slice has the number 0).
pub(crate) struct DraftSite {
    pub(crate) stack: Vec<SymbolFrame>,
    pub(crate) parent: Option<u32>,
    pub(crate) counters: fn(u64) -> Counters,
    pub(crate) epochs: Vec<Epoch>,
}

pub(crate) fn frame(function: &str) -> SymbolFrame {
    SymbolFrame {
        function: Some(function.into()),
        file: Some("/src/app.c".into()),
        line: 42,
        is_inlined: false,
    }
}

pub(crate) fn counters(allocated_bytes: u64, allocs: u64, freed_bytes: u64, frees: u64) -> Counters {
    Counters { allocated_bytes, allocs, freed_bytes, frees }
}

/// Counters of a site that allocates 100 bytes in every slice and never frees them.
pub(crate) fn leaking(slice: u64) -> Counters {
    counters(100 * (slice + 1), slice + 1, 0, 0)
}

/// Counters of a site that allocates 300 bytes in every slice and never frees them.
pub(crate) fn leaking_fast(slice: u64) -> Counters {
    counters(300 * (slice + 1), slice + 1, 0, 0)
}

/// Counters of a site that makes ten allocations of 100 bytes in every slice and keeps only the newest ten.
pub(crate) fn churning(slice: u64) -> Counters {
    counters(1000 * (slice + 1), 10 * (slice + 1), 1000 * slice, 10 * slice)
}

/// Counters of a site that makes one allocation at the start and keeps it.
pub(crate) fn constant(_slice: u64) -> Counters {
    counters(4096, 1, 0, 0)
}

pub(crate) fn caller(name: &str, counters: fn(u64) -> Counters) -> DraftSite {
    DraftSite { stack: vec![frame(name)], parent: None, counters, epochs: Vec::new() }
}

/// A full stack of the caller site with the index `parent`.
pub(crate) fn stack(parent: u32, names: &[&str], counters: fn(u64) -> Counters) -> DraftSite {
    DraftSite {
        stack: names.iter().map(|name| frame(name)).collect(),
        parent: Some(parent),
        counters,
        epochs: Vec::new(),
    }
}

impl Draft {
    /// Makes a trace with two leaking sites, a site that soon frees its allocations, and a site whose live
    /// bytes are constant. One of the two leaking sites has two full stacks.
    pub(crate) fn usual() -> Draft {
        let nothing = |_| Counters::ZERO;
        Draft {
            command: vec!["./server".into(), "--secret=hunter2".into()],
            slices: 200,
            missing: 0..0,
            end: EndReason::Stopped,
            sites: vec![
                caller("grow_list", leaking),
                caller("serve", churning),
                caller("start_up", constant),
                caller("make_node", nothing),
                stack(3, &["make_node", "parse_json", "handle_request", "main"], leaking_fast),
                stack(3, &["make_node", "warm_up", "main"], constant),
            ],
        }
    }

    pub(crate) fn with_sites(sites: Vec<DraftSite>) -> Draft {
        Draft { sites, ..Draft::usual() }
    }

    pub(crate) fn write(&self, path: &Path) -> PathBuf {
        let mut writer = TraceWriter::create(path, 16 << 20).expect("a trace of 16 MiB fits");
        self.records().iter().for_each(|record| writer.record(record).expect("the record is sound"));
        for i in (0..self.slices).filter(|i| !self.missing.contains(i)) {
            let tick = i + 1;
            let counters: Vec<Counters> = self.sites.iter().map(|site| (site.counters)(i)).collect();
            let live: u64 = counters.iter().map(Counters::live_bytes).sum();
            let header = SliceHeader {
                tick,
                time_ns: tick * PERIOD_NS,
                rss_anon_bytes: (1 << 20) + live,
                swap_bytes: 0,
            };
            writer.slice(&header, &counters).expect("the slice is sound");
        }
        let at_ns = self.slices * PERIOD_NS;
        writer.record(&Record::End(End { reason: self.end, at_ns })).expect("the record is sound");
        writer.finish().expect("the trace fits");
        path.to_owned()
    }

    fn records(&self) -> Vec<Record> {
        let module = ModuleId(0);
        let mut records = vec![
            Record::Start(Start {
                command: self.command.clone(),
                pid: 4242,
                tick_ns: PERIOD_NS,
                period_ticks: 1,
                ..Start::default()
            }),
            Record::Module(Module {
                id: module,
                path: "/opt/app/server".into(),
                build_id: vec![0xab, 0xcd],
                load_bias: BIAS,
                start: BIAS,
                end: BIAS + (1 << 40),
                loaded_ns: 0,
                unloaded_ns: 0,
            }),
        ];
        let mut addresses = Vec::new();
        for (i, site) in self.sites.iter().enumerate() {
            let id = SiteId(i as u32);
            let offset = |depth: usize| ((i as u64) << 16) + depth as u64 * 16 + 16;
            let frames: Vec<StackFrame> = (0..site.stack.len())
                .map(|depth| StackFrame { address: BIAS + offset(depth), module: Some(module) })
                .collect();
            addresses.extend(
                site.stack.iter().enumerate().map(|(depth, frame)| AddressSymbols {
                    offset: offset(depth),
                    frames: vec![frame.clone()],
                }),
            );
            let is_stack = site.parent.is_some();
            records.push(Record::Site(Site {
                id,
                kind: if is_stack { SiteKind::Stack } else { SiteKind::Caller },
                parent: site.parent.map(SiteId),
                address: BIAS + offset(0),
                module: Some(module),
                stack: is_stack.then_some(StackId(i as u32)),
            }));
            if is_stack {
                records.push(Record::Stack(Stack { id: StackId(i as u32), frames, is_cut: false }));
            }
            if !site.epochs.is_empty() {
                records.push(Record::Survivors(Survivors {
                    site: id,
                    epochs: site.epochs.clone(),
                    last_free_ns: 0,
                    max_age_at_free_ns: 0,
                }));
            }
        }
        records.push(Record::Symbols(ModuleSymbols { module, addresses }));
        records
    }
}
