//! Tests docs/trace-format.md with a second reader in another language, which was written only from this
//! document. For each trace, the second reader must print the series that this crate reads.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use common::{Random, TempFile, advance_wide, header, read, start, write};
use edleak_format::{Counters, DEFAULT_CAPACITY_BYTES, MIN_CAPACITY_BYTES, Trace, TraceWriter};

/// The series of a trace, in the form in which the second reader must print the series.
fn expected(trace: &Trace) -> String {
    let grid = trace.grid();
    let slices = read(trace);
    let mut series: BTreeMap<u32, (usize, Vec<Counters>)> = BTreeMap::new();
    for point in 0..grid.points {
        let tick = grid.first_tick + point as u64 * grid.stride_ticks;
        let (_, (_, sites)) =
            slices.range(..=tick).next_back().expect("the grid begins after the first slice");
        for id in sites.keys() {
            series.entry(*id).or_insert((point, Vec::new()));
        }
        for (id, (_, values)) in &mut series {
            values.push(sites.get(id).copied().unwrap_or_default());
        }
    }
    let period_s = grid.stride_ticks as f64 * trace.start().tick_ns as f64 / 1e9;
    let mut out = String::new();
    for (id, (first, values)) in &series {
        let column = |value: fn(&Counters) -> u64| values.iter().map(value).collect::<Vec<u64>>();
        writeln!(
            out,
            "{{\"id\": {id}, \"period_s\": {period_s:?}, \"first_slice\": {first}, \"live_bytes\": {:?}, \
             \"live_count\": {:?}, \"allocs\": {:?}, \"frees\": {:?}}}",
            column(Counters::live_bytes),
            column(Counters::live_count),
            column(|counters| counters.allocs),
            column(|counters| counters.frees),
        )
        .expect("a string takes everything");
    }
    out
}

/// The output of the second reader. `None`: this machine lacks python3 or zstd.
fn printed(path: &Path) -> Option<String> {
    for tool in ["python3", "zstd"] {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("no `{tool}` here: the other reader is not tried");
            return None;
        }
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/read_trace.py");
    let output = Command::new("python3").arg(script).arg(path).output().expect("it was found above");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("it prints ASCII"))
}

fn compare(path: &Path) {
    let trace = Trace::open(path).expect("a trace");
    if let Some(printed) = printed(path) {
        assert!(!printed.is_empty());
        assert!(printed == expected(&trace), "the series differ: {}", path.display());
    }
}

#[test]
fn the_python_reader_sees_the_same_series() {
    let file = TempFile::new("python");
    let mut writer = TraceWriter::create(&file.0, DEFAULT_CAPACITY_BYTES).expect("a new file");
    // The period doubles, and the last slice is not on the grid.
    let ticks = (0..300).chain((300..600).step_by(2)).chain((600..1200).step_by(4)).chain([1201]);
    write(&mut writer, 9, ticks).expect("there is room");
    compare(&file.0);
    writer.finish().expect("there is room");
    compare(&file.0);
}

#[test]
fn the_python_reader_sees_the_same_series_after_thinning_and_damage() {
    let file = TempFile::new("python-thinned");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    writer.record(&start()).expect("there is room");
    let mut random = Random(9);
    let mut counters = vec![Counters::ZERO; 3];
    for tick in 0..8000 {
        if tick == 4000 {
            counters.push(Counters::ZERO);
        }
        advance_wide(&mut counters, &mut random);
        writer.slice(&header(tick), &counters).expect("old slices make room");
    }
    compare(&file.0);
    writer.finish().expect("there is room");
    assert!(Trace::open(&file.0).expect("a trace").stride_ticks() > 1);
    compare(&file.0);

    let mut bytes = std::fs::read(&file.0).expect("it is there");
    for at in (5000..bytes.len()).step_by(70_001) {
        bytes[at] ^= 0x10;
    }
    std::fs::write(&file.0, bytes).expect("it can be written");
    assert!(!Trace::open(&file.0).expect("a trace").damage().is_sound());
    compare(&file.0);
}
