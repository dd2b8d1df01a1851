//! Tests recordings that are much longer than the capacity: the trace must keep slices of the whole recording
//! at even distances, and the whole catalog.

mod common;

use common::{Random, TempFile, advance_wide, header, non_zero, read, site, start};
use edleak_format::{Counters, Losses, MIN_CAPACITY_BYTES, Record, Trace, TraceWriter};

/// Number of slices for which a capacity has room before the writer drops the first slice.
fn slices_that_fit(capacity: u64, sites: u32) -> u64 {
    let file = TempFile::new(&format!("fit-{capacity}-{sites}"));
    let mut writer = TraceWriter::create(&file.0, capacity).expect("a new file");
    let mut fit = 0;
    let mut random = Random(7);
    let mut counters = vec![Counters::ZERO; sites as usize];
    loop {
        for _ in 0..100 {
            advance_wide(&mut counters, &mut random);
            writer.slice(&header(fit), &counters).expect("there is room");
            fit += 1;
        }
        let trace = Trace::open(&file.0).expect("open while writing");
        if trace.blocks().iter().any(|block| block.stride_ticks > 1) {
            return fit;
        }
    }
}

#[test]
fn a_run_two_hundred_times_longer_than_the_ring_keeps_even_history_since_the_start() {
    const SITES: u32 = 8;
    let fit = slices_that_fit(MIN_CAPACITY_BYTES, SITES);
    let slices = 200 * fit;
    let file = TempFile::new("long-run");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    writer.record(&start()).expect("there is room");
    for id in 0..SITES {
        writer.record(&Record::Site(site(id))).expect("there is room");
    }
    let mut random = Random(7);
    let mut counters = vec![Counters::ZERO; SITES as usize];
    let mut model = std::collections::BTreeMap::new();
    let mut most_bytes = 0;
    for tick in 0..slices {
        advance_wide(&mut counters, &mut random);
        writer.slice(&header(tick), &counters).expect("old slices make room");
        if tick.is_multiple_of(256) {
            model.insert(tick, non_zero(&counters));
            let losses = Losses { unknown_frees: tick, ..Losses::default() };
            writer.record(&Record::Losses(losses)).expect("there is room");
            most_bytes = most_bytes.max(std::fs::metadata(&file.0).expect("it is there").len());
        }
    }
    let last = counters.clone();
    let length = writer.finish().expect("there is room");
    assert!(length <= MIN_CAPACITY_BYTES && most_bytes <= MIN_CAPACITY_BYTES, "{length} {most_bytes}");

    let trace = Trace::open(&file.0).expect("a finished trace");
    assert!(trace.damage().is_sound(), "{:?}", trace.damage());
    let grid = trace.grid();
    assert!(grid.points >= 256, "{fit} slices fit, {grid:?}");
    let read = read(&trace);
    assert!(read.contains_key(&0), "the first slice survives");
    let newest = read.last_key_value().expect("there are slices");
    assert_eq!((*newest.0, &newest.1.1), (slices - 1, &non_zero(&last)));
    for point in 0..grid.points as u64 {
        let tick = grid.first_tick + point * grid.stride_ticks;
        let (found, sites) = &read[&tick];
        assert_eq!(*found, header(tick));
        if let Some(expected) = model.get(&tick) {
            assert_eq!(sites, expected, "tick {tick}");
        }
    }
    // Recent slices are closer together than old slices.
    let recent = read.range(slices - fit / 20..).count() as u64;
    assert_eq!(recent, fit / 20, "the newest slices are all there");
    assert_eq!(trace.sites().len(), SITES as usize);
    assert_eq!(trace.start().pid, 42);
    assert!(trace.losses().unknown_frees > slices - 600);
    println!("{fit} slices fit; {slices} written; {length} bytes, {} slices kept, {grid:?}", read.len());
}

/// Writes blocks of many sizes. When the writer puts a small thinned block into the extent of a larger block,
/// a small free extent remains, so free space becomes fragmented.
#[test]
fn no_mix_of_sites_and_capacity_ends_a_recording() {
    for sites in [20, 100, 400] {
        for capacity in [MIN_CAPACITY_BYTES, 8 * MIN_CAPACITY_BYTES] {
            let file = TempFile::new(&format!("mix-{sites}-{capacity}"));
            let mut writer = TraceWriter::create(&file.0, capacity).expect("a new file");
            let mut random = Random(sites);
            let mut counters = vec![Counters::ZERO; sites as usize];
            // The recording is so long that all slices in the file were thinned several times.
            let slices = 2 * slices_until_thinned(capacity, sites);
            for tick in 0..slices {
                churn(&mut counters, tick, &mut random);
                writer.slice(&header(tick), &counters).expect("old slices make room");
            }
            let length = writer.finish().expect("there is room");
            assert!(length <= capacity, "{length} of {capacity}");
            let trace = Trace::open(&file.0).expect("a finished trace");
            assert!(trace.damage().is_sound(), "{sites} {capacity}: {:?}", trace.damage());
            let read = read(&trace);
            assert!(read.contains_key(&0) && read.contains_key(&(slices - 1)), "{sites} {capacity}");
            assert!(trace.grid().points >= 128, "{sites} {capacity}: {:?}", trace.grid());
        }
    }
}

/// Estimated number of slices for which the capacity has room. A changed site takes two to four bytes.
fn slices_until_thinned(capacity: u64, sites: u64) -> u64 {
    capacity / (sites / 10 * 3)
}

/// Allocates and frees at one tenth of the sites. In each slice, the next tenth of the sites changes.
fn churn(counters: &mut [Counters], tick: u64, random: &mut Random) {
    for counter in counters.iter_mut().skip(tick as usize % 10).step_by(10) {
        let count = random.below(16);
        counter.allocs += count;
        counter.allocated_bytes += count * 64;
        counter.frees = counter.allocs;
        counter.freed_bytes = counter.allocated_bytes;
    }
}
