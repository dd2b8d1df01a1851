//! Tests that a reader gets every slice and record that was written, for numbers at every size boundary.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Slices, TempFile, header, non_zero, read, site, start, write};
use edleak_format::{
    Counters, DEFAULT_CAPACITY_BYTES, End, EndReason, ErrorKind, Losses, MIN_CAPACITY_BYTES, Record,
    SliceHeader, Start, Trace, TraceWriter, rewrite,
};
use proptest::prelude::*;

#[test]
fn every_slice_is_read_back_before_and_after_finish() {
    for (sites, slices) in [(0, 0), (0, 1), (1, 1), (1, 2), (1, 5000), (40, 700), (3000, 20)] {
        let file = TempFile::new(&format!("round-{sites}-{slices}"));
        let mut writer = TraceWriter::create(&file.0, DEFAULT_CAPACITY_BYTES).expect("a new file");
        let model = write(&mut writer, sites, 0..slices).expect("there is room");
        writer.sync().expect("there is room");
        let trace = Trace::open(&file.0).expect("open while writing");
        assert!(trace.damage().is_sound(), "{:?}", trace.damage());
        assert!(read(&trace) == model, "{sites} sites, {slices} slices, not finished");
        assert_eq!(trace.sites().len(), sites as usize);

        let length = writer.finish().expect("there is room");
        assert_eq!(length, std::fs::metadata(&file.0).expect("it is there").len());
        let trace = Trace::open(&file.0).expect("a finished trace");
        assert!(trace.damage().is_sound(), "{:?}", trace.damage());
        assert!(read(&trace) == model, "{sites} sites, {slices} slices");
        assert_eq!(trace.sites().len(), sites as usize);
        assert_eq!(trace.start().pid, 42);
        assert_eq!(trace.grid().points, slices as usize);
        assert_eq!(trace.blocks().iter().map(|block| u64::from(block.slices)).sum::<u64>(), slices);
    }
}

/// Slices are two ticks apart, and the last slice is at an odd tick. From only five slices, a reader cannot
/// compute this distance. Without the period in `Start`, a reader would assume a distance of one tick, and
/// would count a missing slice between each two slices.
#[test]
fn few_slices_keep_the_period_of_the_recorder() {
    let ticks = [0, 2, 4, 6, 8, 10, 12, 14, 16];
    for count in 1..ticks.len() {
        let file = TempFile::new(&format!("few-{count}"));
        let mut writer = TraceWriter::create(&file.0, DEFAULT_CAPACITY_BYTES).expect("a new file");
        writer.record(&Record::Start(Start { period_ticks: 2, ..Start::default() })).expect("there is room");
        let last = ticks[count - 1] + 1;
        for tick in ticks[..count].iter().copied().chain([last]) {
            writer.slice(&header(tick), &[Counters::ZERO]).expect("there is room");
        }
        writer.finish().expect("there is room");
        let grid = Trace::open(&file.0).expect("a finished trace").grid();
        assert_eq!((grid.stride_ticks, grid.points), (2, count), "{count} slices and a final one");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A hostile target may write anything into its counters.
    #[test]
    fn any_counters_at_any_ticks_survive(
        slices in prop::collection::vec(
            (1u64..5, any::<[u64; 3]>(), prop::collection::vec(any::<[u64; 4]>(), 0..30)), 1..40)
    ) {
        let file = TempFile::new("any");
        let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
        let mut model = Slices::new();
        let mut tick = 0;
        let mut counters: Vec<Counters> = Vec::new();
        for (gap, [time_ns, rss_anon_bytes, swap_bytes], changes) in slices {
            tick += gap;
            for (index, [allocated_bytes, allocs, freed_bytes, frees]) in changes.into_iter().enumerate() {
                let now = Counters { allocated_bytes, allocs, freed_bytes, frees };
                if index < counters.len() { counters[index] = now } else { counters.push(now) }
            }
            let header = SliceHeader { tick, time_ns, rss_anon_bytes, swap_bytes };
            writer.slice(&header, &counters).expect("there is room");
            model.insert(tick, (header, non_zero(&counters)));
        }
        let bytes = std::fs::read(&file.0).expect("it is there");
        prop_assert!(read(&Trace::from_bytes(bytes).expect("not finished")) == model);
        writer.finish().expect("there is room");
        let trace = Trace::open(&file.0).expect("a finished trace");
        prop_assert!(trace.damage().is_sound());
        prop_assert!(read(&trace) == model);
    }
}

#[test]
fn a_writer_refuses_what_breaks_its_rules_and_goes_on() {
    let file = TempFile::new("rules");
    let error = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES - 1).err().expect("too small");
    assert_eq!(error.kind(), ErrorKind::CapacityTooSmall);
    assert!(error.to_string().ends_with("(use --size 256K or more)"), "{error}");

    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    let some = [Counters { allocs: 1, ..Counters::ZERO }; 3];
    writer.slice(&header(5), &some).expect("there is room");
    let refused = [
        writer.slice(&header(5), &some),
        writer.slice(&header(4), &some),
        writer.slice(&SliceHeader { tick: u64::MAX, ..header(6) }, &some),
        writer.slice(&header(6), &some[..2]),
        writer.slice(&header(6), &vec![Counters::ZERO; (1 << 20) + 1]),
        writer.record(&Record::Site(site(1 << 20))),
    ];
    for error in refused.map(|result| result.expect_err("it breaks a rule")) {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    writer.slice(&header(6), &some).expect("nothing is broken");
    writer.finish().expect("there is room");
    assert_eq!(read(&Trace::open(&file.0).expect("a trace")).len(), 2);

    let error = Trace::open(&file.0.with_extension("none")).err().expect("no such file");
    assert!(error.to_string().starts_with("failed to open trace `"), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert!(Trace::open(&std::env::temp_dir()).is_err());
}

#[test]
fn too_many_sites_for_the_capacity_is_an_error_and_keeps_the_trace() {
    let file = TempFile::new("too-many");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    writer.slice(&header(0), &[Counters { allocs: 1, ..Counters::ZERO }]).expect("there is room");
    let wide =
        Counters { allocated_bytes: u64::MAX / 3, allocs: 1 << 60, freed_bytes: 1 << 59, frees: 1 << 58 };
    let error = writer.slice(&header(1), &vec![wide; 10_000]).expect_err("400 KB of counters in 256 KiB");
    assert_eq!(error.kind(), ErrorKind::CapacityTooSmall);
    assert!(error.to_string().ends_with("(use a larger --size)"), "{error}");
    writer.finish().expect("there is room");
    assert_eq!(read(&Trace::open(&file.0).expect("a trace")).len(), 1);
}

#[test]
fn catalog_over_a_third_of_the_capacity_is_an_error_and_replaced_records_do_not_count() {
    let file = TempFile::new("catalog");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    let module = |id: u32, number: u64| {
        // Make names that compress little.
        let words = (0..8).map(|word| (number * 8 + word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Record::Module(edleak_format::Module {
            id: edleak_format::ModuleId(id),
            path: words.map(|word| format!("/{word:x}")).collect(),
            build_id: Vec::new(),
            load_bias: 0,
            start: 0,
            end: 0,
            loaded_ns: number,
            unloaded_ns: 0,
        })
    };
    for number in 0..20_000 {
        writer.record(&module(number as u32 % 50, number)).expect("the same fifty modules");
        if number % 100 == 0 {
            writer
                .slice(&header(number), &[Counters { allocs: number, ..Counters::ZERO }])
                .expect("there is room");
        }
    }
    let error = (0..20_000)
        .find_map(|number| {
            writer.record(&module(number as u32, number)).err().or_else(|| writer.sync().err())
        })
        .expect("3 MB of names in 256 KiB");
    assert_eq!(error.kind(), ErrorKind::CatalogTooLarge, "{error}");
    assert!(error.to_string().ends_with("(use a larger --size)"), "{error}");
    drop(writer);
    let trace = Trace::open(&file.0).expect("a trace");
    assert!(trace.modules().len() > 500, "{}", trace.modules().len());
    assert!(trace.damage().is_sound(), "{:?}", trace.damage());
    assert_eq!(read(&trace).len(), 200);
}

#[test]
fn a_trace_is_read_while_it_is_written() {
    let file = TempFile::new("live");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    writer.record(&start()).expect("there is room");
    writer.sync().expect("there is room");
    let is_over = AtomicBool::new(false);
    let counters = |tick: u64| {
        let allocs = 1 + tick;
        [Counters { allocated_bytes: allocs * 24, allocs, freed_bytes: tick * 24, frees: tick }; 12]
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut rounds, mut most) = (0, 0);
            while !is_over.load(Ordering::Acquire) || rounds == 0 {
                let trace = Trace::open(&file.0).expect("the first page is there from the beginning");
                assert_eq!(trace.start().pid, 42);
                for (index, _) in trace.blocks().iter().enumerate() {
                    let mut collect = common::Collect::default();
                    trace.replay_block(index, &mut collect).expect("it was read into memory");
                    for (tick, (_, sites)) in collect.slices {
                        assert_eq!(sites, non_zero(&counters(tick)), "tick {tick}");
                        most = most.max(tick);
                    }
                }
                rounds += 1;
            }
            (rounds, most)
        });
        for tick in 0..60_000 {
            writer.slice(&header(tick), &counters(tick)).expect("old slices make room");
        }
        writer.record(&Record::End(End { reason: EndReason::Stopped, at_ns: 1 })).expect("there is room");
        is_over.store(true, Ordering::Release);
        let (rounds, most) = reader.join().expect("the reader found only what was written");
        assert!(rounds > 0 && most > 0, "{rounds} rounds, up to tick {most}");
    });
    writer.finish().expect("there is room");
}

#[test]
fn a_rewritten_trace_has_the_same_slices_and_another_catalog() {
    let file = TempFile::new("rewrite");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    let model = write(&mut writer, 20, 0..3000).expect("there is room");
    let rewritten_is_the_same = || {
        let copy = TempFile::new("rewrite-copy");
        let trace = Trace::open(&file.0).expect("a trace");
        let map = |record| match record {
            Record::Site(site) if site.id.0 == 7 => None,
            Record::Site(site) => Some(Record::Site(edleak_format::Site { address: 1, ..site })),
            other => Some(other),
        };
        let extra = [Record::Losses(Losses { missed_slices: 77, ..Losses::default() })];
        let length = rewrite(&trace, &copy.0, MIN_CAPACITY_BYTES, map, extra).expect("there is room");
        assert_eq!(length, std::fs::metadata(&copy.0).expect("it is there").len());
        let rewritten = Trace::open(&copy.0).expect("a trace");
        assert!(rewritten.damage().is_sound(), "{:?}", rewritten.damage());
        assert!(read(&rewritten) == model);
        assert_eq!(rewritten.sites().len(), 19);
        assert!(rewritten.sites().iter().all(|site| site.address == 1));
        assert_eq!(rewritten.losses().missed_slices, 77);
        assert_eq!(rewritten.start(), trace.start());
        assert_eq!(rewritten.end(), trace.end());
        assert_eq!(rewritten.grid(), trace.grid());
    };
    rewritten_is_the_same(); // the newest slices are in the journal
    writer.record(&Record::End(End { reason: EndReason::Gone, at_ns: 0 })).expect("there is room");
    writer.finish().expect("there is room");
    rewritten_is_the_same();
}
