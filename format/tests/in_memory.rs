//! Tests traces that the writer first keeps in memory and later writes into a file.

mod common;

use common::{TempFile, header, read, site, start};
use edleak_format::{Counters, ErrorKind, MIN_CAPACITY_BYTES, Record, Trace, TraceWriter};

fn counters(allocs: u64) -> [Counters; 2] {
    [Counters { allocs, allocated_bytes: 8 * allocs, ..Counters::ZERO }; 2]
}

fn begun(file: &TempFile) -> TraceWriter {
    let mut writer = TraceWriter::in_memory(&file.0, MIN_CAPACITY_BYTES).expect("a sound capacity");
    writer.record(&start()).expect("memory");
    (0..2).for_each(|id| writer.record(&Record::Site(site(id))).expect("memory"));
    writer.slice(&header(0), &counters(1)).expect("memory");
    writer
}

fn ticks_of(trace: &Trace) -> Vec<u64> {
    read(trace).into_keys().collect()
}

#[test]
fn trace_in_memory_has_a_file_only_at_its_end() {
    let file = TempFile::new("memory-end");
    let mut writer = begun(&file);
    assert!(!writer.has_file() && !file.0.exists());
    writer.slice(&header(1), &counters(2)).expect("memory");
    assert!(!file.0.exists());
    let bytes = writer.finish().expect("there is room");
    assert_eq!(bytes, std::fs::metadata(&file.0).expect("it is written").len());
    let trace = Trace::open(&file.0).expect("a sound trace");
    assert_eq!((ticks_of(&trace), trace.sites().len()), (vec![0, 1], 2));
}

#[test]
fn killed_writer_leaves_all_slices_since_the_trace_has_its_file() {
    let file = TempFile::new("memory-killed");
    let mut writer = begun(&file);
    writer.create_file().expect("the name is free");
    assert!(writer.has_file() && writer.is_in_memory());
    writer.map_file().expect("there is room");
    assert!(!writer.is_in_memory());
    let so_far = Trace::open(&file.0).expect("a sound trace");
    assert_eq!((ticks_of(&so_far), so_far.sites().len()), (vec![0], 2));
    writer.slice(&header(1), &counters(2)).expect("there is room");
    std::mem::forget(writer); // as if the recorder were killed: the trace is never finished
    assert_eq!(ticks_of(&Trace::open(&file.0).expect("a sound trace")), [0, 1]);
}

#[test]
fn trace_that_starts_again_in_memory_forgets_its_slices() {
    let file = TempFile::new("memory-again");
    let mut writer = begun(&file).restart().expect("memory");
    writer.slice(&header(5), &counters(1)).expect("memory");
    assert!(!file.0.exists());
    writer.finish().expect("there is room");
    assert_eq!(ticks_of(&Trace::open(&file.0).expect("a sound trace")), [5]);
}

#[test]
fn file_of_that_name_is_refused_and_the_trace_stays_in_memory() {
    let file = TempFile::new("memory-taken");
    let mut writer = begun(&file);
    std::fs::write(&file.0, "theirs").expect("writable");
    let error = writer.map_file().expect_err("there is a file");
    assert_eq!((error.kind(), writer.has_file()), (ErrorKind::AlreadyExists, false));
    assert_eq!(std::fs::read(&file.0).expect("it is there"), b"theirs");
    std::fs::remove_file(&file.0).expect("it is ours");
    writer.map_file().expect("the name is free");
    writer.finish().expect("there is room");
    assert_eq!(ticks_of(&Trace::open(&file.0).expect("a sound trace")), [0]);
}
