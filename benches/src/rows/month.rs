//! Writes the slices of a recording of one month as fast as possible. During the month, the file must not
//! become larger than its limit, and the writer must not need more and more memory.

use crate::bench::Bench;
use crate::table::{Row, bytes, number};
use anyhow::{Context, Result};
use edleak_format::{Counters, Record, SliceHeader, Start, Trace, TraceWriter};
use std::time::Instant;

const SITES: usize = 400;
const CAPACITY: u64 = 16 << 20;
const SLICES: u64 = 30 * 24 * 3600;

fn resident_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Writes the slices of a month to a trace, and adds two rows: the size of the file, and the writer's memory.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let path = bench.dir.join("month.edl");
    let mut writer = TraceWriter::create(&path, CAPACITY)?;
    writer.record(&Record::Start(Start { tick_ns: 1_000_000_000, period_ticks: 1, ..Start::default() }))?;
    let mut counters = vec![Counters::ZERO; SITES];
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let (mut early, mut largest) = (0, 0);
    let start = Instant::now();
    for tick in 0..SLICES {
        // In each second, 1/10 of the sites change; in the second after that, the next 1/10 of the sites.
        // One site leaks.
        for counter in counters.iter_mut().skip(1 + tick as usize % 10).step_by(10) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let count = state >> 60;
            counter.allocs += count;
            counter.allocated_bytes += count * 64;
            counter.frees = counter.allocs - 3;
            counter.freed_bytes = counter.allocated_bytes - 192;
        }
        counters[0].allocs += 1;
        counters[0].allocated_bytes += 100;
        let header = SliceHeader { tick, time_ns: tick * 1_000_000_000, ..SliceHeader::default() };
        writer.slice(&header, &counters)?;
        // After five days, the file is full, and the writer has allocated all memory that it needs to drop
        // old slices.
        if tick == SLICES / 3 {
            early = resident_bytes()?;
        }
        if tick % (SLICES / 30) == 0 {
            largest = largest.max(std::fs::metadata(&path)?.len());
        }
    }
    let late = resident_bytes()?;
    let length = writer.finish()?;
    let elapsed = start.elapsed();
    let trace = Trace::open(&path)?;
    let kept: u64 = trace.blocks().iter().map(|block| u64::from(block.slices)).sum();
    let first = trace.blocks().first().context("the trace holds slices")?.first_tick;
    anyhow::ensure!(first == 0, "the beginning of the recording is lost");
    std::fs::remove_file(&path)?;
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    bench.add(
        Row::at_most(
            "a month at 1 s (2,592,000 slices, 400 sites) in 16 MiB: file",
            mib(CAPACITY),
            mib(largest.max(length)),
            " MiB",
        )
        .beside("finished", bytes(length))
        .beside("slices kept, from the first on", kept.to_string())
        .beside("µs per slice written", number(elapsed.as_secs_f64() * 1e6 / SLICES as f64)),
    );
    bench.add(Row::at_most(
        "the writer's memory after the month, over that after ten days",
        1.1,
        late as f64 / early as f64,
        "",
    ));
    Ok(())
}
