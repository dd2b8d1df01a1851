//! Golden traces, one for each version of the format. Every later version of the reader must read all golden
//! traces.

mod common;

use std::path::PathBuf;

use common::{Slices, TempFile, read, site, write};
use edleak_format::{
    AddressSymbols, Allocator, AreaBytes, AreaId, AreaKind, Columns, Counters, CpuTotals,
    DEFAULT_CAPACITY_BYTES, End, EndReason, Epoch, Error, GivenBack, Losses, MIN_CAPACITY_BYTES, Mappings,
    Mark, MarkId, MarkLosses, MarkSlice, MemoryArea, Module, ModuleId, ModuleSymbols, Pool, PoolId, Pools,
    Record, Site, SiteId, SiteKind, Stack, StackFrame, StackId, Survivors, SymbolFrame, Trace, TraceWriter,
    UncountedFunctions, rewrite,
};

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/golden", name].iter().collect()
}

/// The format version that the writer writes.
const VERSION: u32 = 5;

/// Records of every kind that a format version has. All records together use every kind of field that the
/// format has.
fn records(version: u32) -> Vec<Record> {
    let mut records = records_of_version_1();
    if version >= 3 {
        records.extend([
            Record::MemoryArea(MemoryArea { id: AreaId(0), kind: AreaKind::Heap, name: String::new() }),
            Record::MemoryArea(MemoryArea { id: AreaId(3), kind: AreaKind::Named, name: "jit code".into() }),
            Record::Allocator(Allocator { module: ModuleId(0), symbol: "mi_malloc".into() }),
            Record::CpuTotals(CpuTotals { own_ns: 70_000_000, children_ns: 1 << 40 }),
        ]);
    }
    if version >= 4 {
        let area =
            |id, kind, name: &str| Record::MemoryArea(MemoryArea { id: AreaId(id), kind, name: name.into() });
        records.extend([
            Record::Site(Site { kind: SiteKind::Mapping, ..site(10) }),
            Record::Site(Site { kind: SiteKind::AllocatorMapping, ..site(11) }),
            area(4, AreaKind::Counted, ""),
            area(5, AreaKind::Unseen, "jit code"),
            area(6, AreaKind::Site, "10"),
            area(7, AreaKind::Allocators, ""),
            Record::Mappings(Mappings { lost_events: 3, unmapped_unseen_bytes: 1 << 20 }),
        ]);
    }
    if version >= 5 {
        let name = |id, name: &str| Record::Pool(Pool { id: PoolId(id), name: name.into() });
        let totals = Pools { pools: 1 << 20, lost_events: 3, lost_resets: 0, unknown_frees: 70_000 };
        records.extend([
            Record::Site(Site { kind: SiteKind::Pool(PoolId(1)), stack: Some(StackId(3)), ..site(12) }),
            name(0, ""),
            name(1, "requests"),
            Record::Pools(totals),
        ]);
    }
    records
}

fn records_of_version_1() -> Vec<Record> {
    let address = 0x7f00_1234_5678;
    vec![
        Record::Module(Module {
            id: ModuleId(0),
            path: "/usr/bin/leaker".into(),
            build_id: vec![0xde, 0xad, 0xbe, 0xef],
            load_bias: 0x5555_5555_4000,
            start: 0x5555_5555_4000,
            end: 0x5555_5556_0000,
            loaded_ns: 1,
            unloaded_ns: 0,
        }),
        Record::Stack(Stack {
            id: StackId(3),
            frames: vec![
                StackFrame { address, module: Some(ModuleId(0)) },
                StackFrame { address: u64::MAX, module: None },
            ],
            is_cut: true,
        }),
        Record::Site(Site {
            kind: SiteKind::Stack,
            parent: Some(SiteId(1)),
            module: Some(ModuleId(0)),
            stack: Some(StackId(3)),
            ..site(7)
        }),
        Record::Site(Site { kind: SiteKind::Other, ..site(8) }),
        Record::Survivors(Survivors {
            site: SiteId(7),
            epochs: vec![Epoch { from_ns: 0, to_ns: 1 << 40, live_bytes: 4096, live_count: 2, allocs: 300 }],
            last_free_ns: 5,
            max_age_at_free_ns: 6,
        }),
        Record::Symbols(ModuleSymbols {
            module: ModuleId(0),
            addresses: vec![AddressSymbols {
                offset: 0x1234,
                frames: vec![
                    SymbolFrame {
                        function: Some("grow_list".into()),
                        file: Some("leaker.c".into()),
                        line: 42,
                        is_inlined: true,
                    },
                    SymbolFrame { function: None, file: None, line: 0, is_inlined: false },
                ],
            }],
        }),
        Record::Losses(Losses { unknown_frees: 70_000, lost_stacks: 1, ..Losses::default() }),
        Record::End(End { reason: EndReason::Killed(-9), at_ns: 1 << 33 }),
    ]
}

/// The sizes of the memory areas; every slice has these sizes.
const MEMORY: [AreaBytes; 4] = [
    AreaBytes {
        mapped_bytes: 8 << 20,
        resident_bytes: 3 << 20,
        proportional_bytes: 2 << 20,
        swapped_bytes: 4096,
    },
    AreaBytes::ZERO,
    AreaBytes::ZERO,
    AreaBytes { mapped_bytes: 1 << 40, resident_bytes: 0, proportional_bytes: 0, swapped_bytes: 0 },
];

/// Writes the golden trace. The period of this trace doubles twice, and the last slice is not on the grid.
fn fill(writer: &mut TraceWriter) -> Result<Slices, Error> {
    let ticks = (0..500).chain((500..1000).step_by(2)).chain((1000..2000).step_by(4)).chain([2001]);
    writer.memory(&MEMORY);
    let model = write(writer, 7, ticks)?;
    records(VERSION).iter().try_for_each(|record| writer.record(record))?;
    Ok(model)
}

fn fresh() -> (TempFile, Slices) {
    let file = TempFile::new("golden");
    let mut writer = TraceWriter::create(&file.0, DEFAULT_CAPACITY_BYTES).expect("a new file");
    let model = fill(&mut writer).expect("there is room");
    writer.finish().expect("there is room");
    (file, model)
}

fn assert_as_written(trace: &Trace, model: &Slices, version: u32) {
    assert!(trace.damage().is_sound(), "{:?}", trace.damage());
    assert!(read(trace) == *model);
    let grid = trace.grid();
    assert_eq!((grid.stride_ticks, grid.first_tick, grid.points), (4, 0, 501));
    let found = trace.records();
    for record in records(version) {
        assert!(found.contains(&record), "{record:?}");
    }
    assert_eq!(found.len(), 7 + 1 + records(version).len());
    assert_eq!(trace.site(SiteId(7)).map(|site| site.kind), Some(SiteKind::Stack));
    assert_eq!(trace.stack(StackId(3)).map(|stack| stack.is_cut), Some(true));
    assert_eq!(trace.module(ModuleId(0)).map(|module| module.path.as_str()), Some("/usr/bin/leaker"));
    assert_eq!(trace.site(SiteId(9)), None);
    assert_eq!(trace.survivors().len() + trace.symbols().len(), 2);
    assert_eq!(trace.start().command, ["leaker", "--fast"]);
    let last = model.last_key_value().expect("there are slices");
    assert!(last.1.1.values().all(|counters| *counters != Counters::ZERO));
}

#[test]
fn every_version_is_read_for_ever() {
    let (_, model) = fresh();
    for version in 1..=VERSION {
        let trace = Trace::open(&golden(&format!("v{version}.edl"))).expect("the golden trace");
        assert_eq!(trace.format_version(), version);
        assert_as_written(&trace, &model, version);
    }
}

#[test]
fn a_trace_of_version_1_is_rewritten_in_the_current_version() {
    let (_, model) = fresh();
    let old = Trace::open(&golden("v1.edl")).expect("the golden trace");
    let file = TempFile::new("rewritten");
    rewrite(&old, &file.0, DEFAULT_CAPACITY_BYTES, Some, []).expect("there is room");
    let new = Trace::open(&file.0).expect("a trace");
    assert_eq!((new.format_version(), new.records()), (VERSION, old.records()));
    assert_as_written(&new, &model, 1);
}

#[test]
fn every_block_begins_with_all_areas_of_memory() {
    let trace = Trace::open(&golden("v4.edl")).expect("the golden trace");
    let expected = vec![(AreaId(0), MEMORY[0]), (AreaId(3), MEMORY[3])];
    let (mut columns, blocks) = (Columns::default(), trace.blocks().len());
    assert!(blocks > 0);
    for block in 0..blocks {
        trace.columns(block, &mut columns).expect("sound");
        assert_eq!(columns.memory(0), expected);
        let later = (1..columns.slices()).all(|slice| columns.memory(slice).is_empty());
        assert!(later, "later slices name what changed, and nothing did");
    }
}

#[test]
fn current_writer_and_reader_agree_with_the_golden_file() {
    let (file, model) = fresh();
    assert_as_written(&Trace::open(&file.0).expect("a trace"), &model, VERSION);
}

/// Run this test after each new format version; the golden traces of old versions stay: `cargo test -p
/// edleak-format --test golden -- --ignored`
#[test]
#[ignore = "writes the golden trace of this version"]
fn write_golden() {
    let (file, _) = fresh();
    std::fs::copy(&file.0, golden(&format!("v{VERSION}.edl"))).expect("the directory is there");
}

/// The records of a mark with two mark slices. The second mark slice is stored in two records.
fn mark_records() -> Vec<Record> {
    let counters = Counters { allocated_bytes: 1 << 40, allocs: 300, freed_bytes: 70_000, frees: 299 };
    let slice = |number, count, goes_on, sites: &[(SiteId, Counters)]| {
        let (mark, sites) = (MarkId(2), sites.to_vec());
        Record::MarkSlice(MarkSlice { number, mark, count, tick: 5, read_ns: 1 << 33, goes_on, sites })
    };
    vec![
        Record::Mark(Mark { id: MarkId(2), name: "request \\xff".into(), is_cut: true, count: 1 << 20 }),
        slice(0, 1, false, &[]),
        slice(1, 64, true, &[(SiteId(1), counters)]),
        slice(2, 64, false, &[(SiteId(3), Counters::ZERO)]),
        Record::MarkLosses(MarkLosses { unnamed: 1, put_off: 300, left_out: 70_000 }),
    ]
}

#[test]
fn marks_are_read_for_ever() {
    let trace = Trace::open(&golden("marks.edl")).expect("the golden trace");
    let found = trace.records();
    let expected = mark_records();
    assert!(trace.damage().is_sound());
    assert_eq!(
        found.iter().filter(|record| expected.contains(record)).cloned().collect::<Vec<_>>(),
        expected
    );
    assert_eq!((trace.marks().len(), trace.mark_slices().len()), (1, 3));
    assert_eq!(trace.mark_losses().left_out, 70_000);
}

/// Run this test with `cargo test -p edleak-format --test golden -- --ignored write_marks`.
#[test]
#[ignore = "writes the golden trace with marks"]
fn write_marks() {
    let file = TempFile::new("marks");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    write(&mut writer, 4, 0..10).expect("there is room");
    mark_records().iter().try_for_each(|record| writer.record(record)).expect("there is room");
    writer.finish().expect("there is room");
    std::fs::copy(&file.0, golden("marks.edl")).expect("the directory is there");
}

fn uncounted_record() -> Record {
    let symbols = vec!["mallocx".into(), "rallocx".into()];
    Record::UncountedFunctions(UncountedFunctions { module: ModuleId(3), symbols })
}

#[test]
fn uncounted_functions_are_read_for_ever() {
    let trace = Trace::open(&golden("uncounted.edl")).expect("the golden trace");
    assert!(trace.damage().is_sound());
    assert!(trace.records().contains(&uncounted_record()));
    assert_eq!(trace.uncounted_functions()[0].symbols, ["mallocx", "rallocx"]);
}

/// Run this test with `cargo test -p edleak-format --test golden -- --ignored write_uncounted`.
#[test]
#[ignore = "writes the golden trace with uncounted functions"]
fn write_uncounted() {
    let file = TempFile::new("uncounted");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    write(&mut writer, 1, 0..2).expect("there is room");
    writer.record(&uncounted_record()).expect("there is room");
    writer.finish().expect("there is room");
    std::fs::copy(&file.0, golden("uncounted.edl")).expect("the directory is there");
}

fn given_back_records() -> [Record; 3] {
    let given = |site, calls, bytes| Record::GivenBack(GivenBack { site, calls, bytes });
    [given(None, 7, 0), given(Some(SiteId(0)), 1, 4096), given(Some(SiteId(1 << 19)), 1204, 1 << 40)]
}

#[test]
fn pages_given_back_are_read_for_ever() {
    let trace = Trace::open(&golden("given_back.edl")).expect("the golden trace");
    assert!(trace.damage().is_sound());
    let found = trace.records();
    assert!(given_back_records().iter().all(|record| found.contains(record)), "{found:?}");
    assert_eq!(trace.given_back().iter().map(|given| given.calls).collect::<Vec<_>>(), [7, 1, 1204]);
}

/// Run this test with `cargo test -p edleak-format --test golden -- --ignored write_given_back`.
#[test]
#[ignore = "writes the golden trace with pages given back"]
fn write_given_back() {
    let file = TempFile::new("given-back");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    write(&mut writer, 1, 0..2).expect("there is room");
    given_back_records().iter().try_for_each(|record| writer.record(record)).expect("there is room");
    writer.finish().expect("there is room");
    std::fs::copy(&file.0, golden("given_back.edl")).expect("the directory is there");
}

/// Small complete files for the fuzz target `reader`.
#[test]
#[ignore = "writes the corpus of the fuzz target"]
fn write_corpus() {
    let corpus: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../fuzz/corpus/reader"].iter().collect();
    for (name, sites, slices, is_finished) in
        [("empty", 0, 0, true), ("one-slice", 1, 1, true), ("sealed", 3, 40, true), ("journal", 3, 20, false)]
    {
        let file = TempFile::new(name);
        let mut writer = TraceWriter::create(&file.0, DEFAULT_CAPACITY_BYTES).expect("a new file");
        write(&mut writer, sites, 0..slices).expect("there is room");
        if is_finished {
            writer.finish().expect("there is room");
        }
        let mut bytes = std::fs::read(&file.0).expect("it is there");
        // Cut off the unused zeros at the end of the file, because a fuzzer does not need them.
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(used.next_multiple_of(64).max(4096));
        std::fs::write(corpus.join(name), bytes).expect("the directory is there");
    }
}
