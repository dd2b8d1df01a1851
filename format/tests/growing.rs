//! Tests the reader of a growing trace: the reader must pass on every slice once, and must read only new
//! data.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Random, Slices, TempFile, advance, advance_wide, header, non_zero, site, start};
use edleak_format::{
    Counters, End, EndReason, GrowingTrace, Losses, MIN_CAPACITY_BYTES, Record, SiteId, SliceHeader,
    SliceVisitor, Trace, TraceWriter, Update,
};

/// Collects slices. Checks that each slice comes once, in order, and with exactly the sites that changed.
#[derive(Default)]
struct Follow {
    slices: Slices,
    table: std::collections::BTreeMap<u32, Counters>,
}

impl SliceVisitor for Follow {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        assert!(changed.is_sorted_by_key(|(id, _)| *id));
        for (SiteId(id), counters) in changed {
            assert_ne!(self.table.insert(*id, *counters).unwrap_or_default(), *counters, "only what changed");
        }
        let last = self.slices.last_key_value().map(|(tick, _)| *tick);
        assert!(last.is_none_or(|last| last < header.tick), "tick {} after {last:?}", header.tick);
        let table = self.table.iter().filter(|(_, counters)| **counters != Counters::ZERO);
        self.slices.insert(header.tick, (*header, table.map(|(id, counters)| (*id, *counters)).collect()));
    }
}

/// Writes slices, and refreshes the reader after at most `most_between` slices. Returns the slices that were
/// written and the slices that the reader passed.
fn followed(
    name: &str,
    slices: u64,
    most_between: u64,
    mut next: impl FnMut(&mut [Counters], &mut Random),
) -> (Slices, Slices) {
    let file = TempFile::new(name);
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    let mut growing = GrowingTrace::open(&file.0).expect("its first page is there");
    let (mut random, mut counters) = (Random(3), vec![Counters::ZERO; 40]);
    let (mut model, mut follow) = (Slices::new(), Follow::default());
    writer.record(&start()).expect("there is room");
    let mut until_look = 1;
    for tick in 0..slices {
        if tick % 50 == 0 {
            writer.record(&Record::Site(site((tick / 50) as u32 % 40))).expect("there is room");
        }
        next(&mut counters, &mut random);
        writer.slice(&header(tick), &counters).expect("old slices make room");
        model.insert(tick, (header(tick), non_zero(&counters)));
        until_look -= 1;
        if until_look == 0 {
            until_look = 1 + random.below(most_between);
            let update = growing.refresh(&mut follow).expect("it can be read");
            assert_eq!((update.is_new_recording, update.torn_blocks), (false, 0), "tick {tick}");
            assert_eq!(non_zero(growing.counters()), non_zero(&counters), "tick {tick}");
        }
    }
    writer.record(&Record::End(End { reason: EndReason::Stopped, at_ns: 1 })).expect("there is room");
    writer.finish().expect("there is room");
    growing.refresh(&mut follow).expect("it can be read");
    assert_eq!(growing.end().map(|end| end.reason), Some(EndReason::Stopped));
    assert_eq!(growing.start().map(|start| start.pid), Some(42));
    let trace = Trace::open(&file.0).expect("a finished trace");
    // Do not compare a `Losses` record in which all numbers are 0: an opened trace returns such a record even
    // if the file has none.
    let is_written = |record: &&Record| **record != Record::Losses(Losses::default());
    let records = trace.records();
    assert!(growing.records().eq(records.iter().filter(is_written)), "the catalog is that of the trace");
    (model, follow.slices)
}

#[test]
fn every_slice_is_seen_once_while_blocks_are_closed_thinned_and_moved() {
    let (written, seen) = followed("growing", 20_000, 60, advance);
    assert!(written == seen, "{} of {}", seen.len(), written.len());
}

#[test]
fn a_follower_that_looks_rarely_sees_a_subset_with_the_right_counters() {
    let (written, seen) = followed("rarely", 3_000, 1_500, advance_wide);
    assert!(seen.len() > 100, "{}", seen.len());
    assert!(seen.iter().all(|(tick, slice)| written[tick] == *slice));
}

#[test]
fn a_refresh_reads_what_is_new_and_not_the_whole_file() {
    let file = TempFile::new("bytes");
    let mut writer = TraceWriter::create(&file.0, 8 << 20).expect("a new file");
    let (mut random, mut counters) = (Random(3), vec![Counters::ZERO; 500]);
    let mut growing = GrowingTrace::open(&file.0).expect("its first page is there");
    let mut follow = Follower(0);
    let mut worst = 0;
    for tick in 0..600 {
        advance_wide(&mut counters, &mut random);
        writer.slice(&header(tick), &counters).expect("there is room");
        let before = growing.bytes_read();
        let update = growing.refresh(&mut follow).expect("it can be read");
        assert_eq!(update.slices, 1);
        worst = worst.max(growing.bytes_read() - before);
    }
    let length = std::fs::metadata(&file.0).expect("it is there").len();
    assert!(length > 4 << 20, "{length}");
    // A refresh may read one slice, one step of the journal, or the block that was made from the journal.
    assert!(worst < length / 8, "{worst} of {length}");
    let before = growing.bytes_read();
    assert_eq!(growing.refresh(&mut follow).expect("it can be read"), Update::default());
    assert!(growing.bytes_read() - before < 100_000, "{}", growing.bytes_read() - before);
    assert_eq!(follow.0, 600);
}

/// Counts slices.
struct Follower(u64);

impl SliceVisitor for Follower {
    fn slice(&mut self, _: &SliceHeader, _: &[(SiteId, Counters)]) {
        self.0 += 1;
    }
}

#[test]
fn skipped_history_leaves_the_newest_block_with_all_counters() {
    let file = TempFile::new("skip");
    let mut writer = TraceWriter::create(&file.0, 4 << 20).expect("a new file");
    let (mut random, mut counters) = (Random(3), vec![Counters::ZERO; 100]);
    for tick in 0..2_000 {
        advance(&mut counters, &mut random);
        writer.slice(&header(tick), &counters).expect("there is room");
    }
    let mut growing = GrowingTrace::open(&file.0).expect("its first page is there");
    growing.skip_history();
    let mut follow = Follow::default();
    let update = growing.refresh(&mut follow).expect("it can be read");
    assert!((1..1_000).contains(&update.slices), "{update:?}");
    assert_eq!(update.torn_blocks, 0);
    assert_eq!(growing.counters(), &counters[..]);
    assert_eq!(follow.slices.last_key_value().map(|(tick, _)| *tick), Some(1_999));
}

#[test]
fn recording_that_starts_again_is_reported_and_read_from_its_start() {
    let file = TempFile::new("anew");
    let one = [Counters { allocs: 1, ..Counters::ZERO }];
    let two = [Counters { allocs: 2, ..Counters::ZERO }];
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    writer.slice(&header(7), &one).expect("there is room");
    let mut growing = GrowingTrace::open(&file.0).expect("its first page is there");
    growing.refresh(&mut Follow::default()).expect("it can be read");
    assert_eq!(growing.counters(), one);
    // Start a new recording in the same file.
    let mut writer = writer.restart().expect("there is room");
    writer.slice(&header(0), &two).expect("there is room");
    let mut follow = Follow::default();
    let update = growing.refresh(&mut follow).expect("it can be read");
    assert_eq!((update.is_new_recording, update.slices), (true, 1));
    assert_eq!((follow.slices.len(), growing.counters()), (1, &two[..]));
    // Start a new recording in another file with the same name.
    let old = TempFile::new("anew-old");
    std::fs::rename(&file.0, &old.0).expect("it is there");
    writer.slice(&header(1), &one).expect("there is room");
    assert_eq!(growing.refresh(&mut Follow::default()).expect("the file is open").slices, 1);
    let mut next = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("the name is free");
    next.slice(&header(0), &two).expect("there is room");
    let update = growing.refresh(&mut Follow::default()).expect("it can be read");
    assert_eq!((update.is_new_recording, update.slices), (true, 1));
    assert_eq!(growing.counters(), two);
}

#[test]
fn a_trace_is_followed_while_another_thread_writes_it() {
    let file = TempFile::new("threads");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    let counters = |tick: u64| {
        let allocs = 1 + tick;
        [Counters { allocated_bytes: allocs * 24, allocs, freed_bytes: tick * 24, frees: tick }; 12]
    };
    let is_over = AtomicBool::new(false);
    let mut growing = GrowingTrace::open(&file.0).expect("its first page is there");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut follow = Follow::default();
            let mut is_last = false;
            while !is_last {
                is_last = is_over.load(Ordering::Acquire);
                growing.refresh(&mut follow).expect("it can be read");
            }
            follow.slices
        });
        for tick in 0..60_000 {
            writer.slice(&header(tick), &counters(tick)).expect("old slices make room");
        }
        is_over.store(true, Ordering::Release);
        let seen = reader.join().expect("the reader found only what was written");
        assert!(seen.iter().all(|(tick, (_, sites))| *sites == non_zero(&counters(*tick))));
        assert_eq!(seen.last_key_value().map(|(tick, _)| *tick), Some(59_999));
    });
    writer.finish().expect("there is room");
}

#[test]
fn the_newest_record_of_a_key_wins_in_a_trace_that_was_cut_short() {
    let file = TempFile::new("newest");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    let losses = |missed_slices| Record::Losses(Losses { missed_slices, ..Losses::default() });
    writer.slice(&header(0), &[Counters::ZERO; 1]).expect("there is room");
    // The writer puts these 4,000 records into a block of their own.
    writer.record(&losses(1)).expect("there is room");
    (0..4_000).try_for_each(|id| writer.record(&Record::Site(site(id)))).expect("there is room");
    writer.slice(&header(1), &[Counters::ZERO; 1]).expect("there is room");
    writer.record(&losses(2)).expect("there is room");
    writer.slice(&header(2), &[Counters::ZERO; 1]).expect("there is room");
    drop(writer);
    assert_eq!(Trace::open(&file.0).expect("a trace").losses().missed_slices, 2);
    let mut growing = GrowingTrace::open(&file.0).expect("a trace");
    growing.refresh(&mut Follow::default()).expect("it can be read");
    assert_eq!(growing.losses().missed_slices, 2);
}
