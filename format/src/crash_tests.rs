//! Tests that no acknowledged data is lost if the writer is killed at any instant, even in the middle of a
//! write. The file must have every slice and record that the writer acknowledged before it was killed.

use std::sync::{Arc, Mutex};

use crate::common::{Random, Slices, TempFile, advance_wide, header, non_zero, read, site, start};
use crate::hostile_tests::peak_bytes_of;
use crate::{Counters, End, EndReason, MIN_CAPACITY_BYTES, Record, Trace, TraceWriter};

/// The slices and records that the writer has acknowledged so far.
#[derive(Default)]
struct Promised {
    slices: Slices,
    /// Number of sites whose records the writer has acknowledged.
    sites: usize,
    writes: u64,
    checks: u64,
}

impl Promised {
    /// Checks the bytes that the file holds at one instant. Every slice in the file must be a slice that was
    /// written. The first and the newest slice must be in the file. Before the first thinning, all slices
    /// must be in the file.
    fn check(&mut self, file: &[u8], writing: Option<u64>) {
        self.checks += 1;
        let trace = Trace::from_bytes(file.to_vec()).expect("the first page was written before");
        let found = read(&trace);
        for (tick, slice) in &found {
            match self.slices.get(tick) {
                Some(expected) => assert_eq!(slice, expected, "tick {tick}, write {}", self.writes),
                None => assert_eq!(Some(*tick), writing, "a slice nobody wrote, write {}", self.writes),
            }
        }
        assert!(trace.sites().len() >= self.sites, "write {}: {:?}", self.writes, trace.damage());
        let (Some((first, _)), Some((newest, _))) =
            (self.slices.first_key_value(), self.slices.last_key_value())
        else {
            return;
        };
        assert!(found.contains_key(first) && found.contains_key(newest), "write {}", self.writes);
        assert_eq!(trace.damage().lost_slices, 0, "write {}", self.writes);
        if trace.stride_ticks() == 1 {
            let missing = self.slices.keys().find(|tick| !found.contains_key(tick));
            assert_eq!(missing, None, "write {}", self.writes);
        }
        let grid = trace.grid();
        for point in 0..grid.points as u64 {
            let tick = grid.first_tick + point * grid.stride_ticks;
            assert!(found.contains_key(&tick), "{tick} of {grid:?}, write {}", self.writes);
        }
    }
}

/// Writes `slices` slices. After every `nth` write, checks the bytes that the file would have if the writer
/// were killed during this write.
fn run(name: &str, slices: u64, nth: u64) -> (u64, Trace) {
    const SITES: usize = 8;
    let file = TempFile::new(name);
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    let promised = Arc::new(Mutex::new((Promised::default(), None)));
    let seen = Arc::clone(&promised);
    writer.ring.after_write = Some(Box::new(move |bytes| {
        let (promised, writing) = &mut *seen.lock().expect("checked by one thread");
        promised.writes += 1;
        if promised.writes.is_multiple_of(nth) {
            promised.check(bytes, *writing);
        }
    }));
    let mut random = Random(11);
    let mut counters = Vec::new();
    writer.record(&start()).expect("there is room");
    for tick in 0..slices {
        // New sites appear while the recording goes on.
        if counters.len() < SITES && tick.is_multiple_of(3) {
            writer.record(&Record::Site(site(counters.len() as u32))).expect("there is room");
            counters.push(Counters::ZERO);
        }
        advance_wide(&mut counters, &mut random);
        promised.lock().expect("one thread").1 = Some(tick);
        writer.slice(&header(tick), &counters).expect("old slices make room");
        let mut promised = promised.lock().expect("one thread");
        promised.0.slices.insert(tick, (header(tick), non_zero(&counters)));
        promised.0.sites = counters.len();
    }
    writer.record(&Record::End(End { reason: EndReason::Exited(0), at_ns: slices })).expect("there is room");
    writer.finish().expect("there is room");
    let promised = promised.lock().expect("one thread");
    assert!(promised.0.checks > 100, "{} checks", promised.0.checks);
    (promised.0.checks, Trace::open(&file.0).expect("a finished trace"))
}

#[test]
fn killed_at_any_write_of_a_short_recording() {
    let (_, trace) = run("crash-short", 60, 1);
    assert!(trace.damage().is_sound());
    assert_eq!(trace.grid().points, 60);
}

#[test]
fn killed_at_any_write_while_blocks_are_sealed_merged_and_moved() {
    // The recording is so long that the writer thins the slices three times. The number of writes between two
    // checks is a prime number, so the checks test every kind of write.
    let (checks, trace) = run("crash-long", 5_000, 37);
    assert!(trace.damage().is_sound(), "{:?}", trace.damage());
    assert!(trace.stride_ticks() > 1, "{checks} checks, {:?}", trace.grid());
}

#[test]
fn the_memory_of_a_writer_does_not_grow_with_the_recording() {
    let file = TempFile::new("memory");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    let mut random = Random(11);
    let mut counters = [Counters::ZERO; 8];
    let mut tick = 0;
    let mut write = |slices: u64| {
        peak_bytes_of(|| {
            for _ in 0..slices {
                advance_wide(&mut counters, &mut random);
                writer.slice(&header(tick), &counters).expect("old slices make room");
                tick += 1;
            }
        })
    };
    // The first recording fills the capacity, so the writer merges blocks and drops slices. The second
    // recording writes ten times as many slices and must not need more memory than the first recording.
    let first = write(4_000);
    let later = write(40_000);
    assert!(later <= first, "{later} bytes at the peak after {first}");
    assert!(first < 3 << 20, "{first} bytes at the peak");
}
