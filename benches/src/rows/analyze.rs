//! Measures the time and memory of edleak-analyze on a trace of 100,000 sites and 3,600 slices. For
//! comparison, also measures the time in which zstd decompresses the same trace.

use crate::bench::Bench;
use crate::measure::{self, median};
use crate::table::{Row, bytes, number};
use anyhow::{Context, Result};
use edleak_format::{
    Counters, End, EndReason, Module, ModuleId, Record, Site, SiteId, SiteKind, SliceHeader, Start,
    TraceWriter,
};
use rayon::prelude::*;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use zstd::zstd_safe;

const SITES: usize = 100_000;
const SLICES: u64 = 3_600;
const CAPACITY: u64 = 4 << 30;
/// The address at which the program of the trace is mapped.
const BASE: u64 = 0x5555_0000_0000;

/// Writes the trace. In each slice, half of the sites make a few allocations. The recorded program frees most
/// of its allocations. One of 1,000 sites leaks.
fn write(path: &Path, sites: usize, slices: u64) -> Result<u64> {
    let mut writer = TraceWriter::create(path, CAPACITY)?;
    writer.record(&Record::Start(Start { tick_ns: 1_000_000_000, period_ticks: 1, ..Start::default() }))?;
    // The sites lie in a module, because the analyzer merges all sites without a module into one site.
    writer.record(&Record::Module(Module {
        id: ModuleId(0),
        path: "/usr/bin/service".into(),
        build_id: Vec::new(),
        load_bias: BASE,
        start: BASE,
        end: BASE + sites as u64 * 16 + 16,
        loaded_ns: 0,
        unloaded_ns: 0,
    }))?;
    for id in 0..sites as u32 {
        writer.record(&Record::Site(Site {
            id: SiteId(id),
            kind: SiteKind::Caller,
            parent: None,
            address: BASE + u64::from(id) * 16,
            module: Some(ModuleId(0)),
            stack: None,
        }))?;
    }
    let mut counters = vec![Counters::ZERO; sites];
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for tick in 0..slices {
        for (site, counter) in counters.iter_mut().enumerate() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state & 1 == 0 {
                continue;
            }
            let count = 1 + (state >> 8) % 4;
            let size = 16 + (site as u64 * 8) % 1024;
            counter.allocs += count;
            counter.allocated_bytes += count * size;
            let live = counter.allocs - counter.frees;
            let freed =
                if site % 1000 == 0 { live.min(count - 1) } else { live - live.min((state >> 16) % 8) };
            counter.frees += freed;
            counter.freed_bytes += freed * size;
        }
        writer.slice(
            &SliceHeader { tick, time_ns: tick * 1_000_000_000, ..SliceHeader::default() },
            &counters,
        )?;
    }
    writer.record(&Record::End(End { reason: EndReason::Exited(0), at_ns: slices * 1_000_000_000 }))?;
    Ok(writer.finish()?)
}

/// The zstd frames of a file. The function finds the start of each frame by the magic number of zstd, and
/// asks zstd for the length of the frame.
fn frames(file: &[u8]) -> Vec<&[u8]> {
    const MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();
    let mut found = Vec::new();
    let mut rest = file;
    while let Some(at) = rest.windows(4).position(|bytes| bytes == MAGIC) {
        rest = &rest[at..];
        match zstd_safe::find_frame_compressed_size(rest) {
            Ok(length) if length > 0 => {
                let (frame, behind) = rest.split_at(length);
                found.push(frame);
                rest = behind;
            }
            _ => rest = &rest[4..],
        }
    }
    found
}

/// Decompresses every frame on all threads, as the analyzer does, and discards the result.
fn decompress(frames: &[&[u8]]) -> Result<u64> {
    frames
        .par_iter()
        .map_init(
            || (zstd::bulk::Decompressor::new().ok(), Vec::new()),
            |(zstd, buffer), frame| {
                let length = zstd_safe::get_frame_content_size(frame).ok().flatten().context("no length")?;
                buffer.clear();
                buffer.reserve(length as usize);
                let zstd = zstd.as_mut().context("cannot set up zstd")?;
                zstd.decompress_to_buffer(frame, buffer).context("not a zstd frame")?;
                Ok(length)
            },
        )
        .sum()
}

/// Measures edleak-analyze on a large trace, and adds the rows to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let path = bench.dir.join("large.edl");
    let started = Instant::now();
    let length = write(&path, SITES, SLICES)?;
    let writing = started.elapsed();
    let file = std::fs::read(&path)?;
    let frames = frames(&file);
    let mut peak = 0;
    let figures = measure::rounds(3, &[true, false], |edleak| {
        if !edleak {
            let start = Instant::now();
            let raw = decompress(&frames)?;
            anyhow::ensure!(raw > length, "these are not the blocks of the trace");
            return Ok(start.elapsed().as_secs_f64());
        }
        // Without --exit-zero, edleak-analyze exits with 1 if it finds leaks. With --exit-zero, an exit code
        // other than 0 means an error.
        let cost = measure::cost(Command::new(&bench.tools.analyze).args(["--exit-zero"]).arg(&path))?;
        peak = cost.peak_bytes.context(measure::HIDDEN)?;
        Ok(cost.wall.as_secs_f64())
    })?;
    let [edleak, alone] = [median(&figures[0]), median(&figures[1])];
    bench.add(
        Row::at_most(
            "edleak-analyze, 100,000 sites × 3,600 slices, half moving: × zstd alone",
            1.5,
            edleak / alone,
            "",
        )
        .beside("edleak-analyze", format!("{} s", number(edleak)))
        .beside("zstd alone, same threads", format!("{} s", number(alone)))
        .beside("file", bytes(length))
        .beside("bytes per change", number(length as f64 / (SITES as f64 / 2.0 * SLICES as f64)))
        .beside("written in", format!("{} s", number(writing.as_secs_f64()))),
    );
    drop(frames);
    drop(file);
    std::fs::remove_file(&path)?;
    // A second run of edleak-analyze reads a trace with 1/4 of the slices. If the two runs have different
    // peak memory, the memory of edleak-analyze depends on the number of slices.
    write(&path, SITES, SLICES / 4)?;
    let quarter = measure::cost(Command::new(&bench.tools.analyze).args(["--exit-zero"]).arg(&path))?
        .peak_bytes
        .context(measure::HIDDEN)?;
    std::fs::remove_file(&path)?;
    bench.add(
        Row::plain("its peak memory", bytes(peak))
            .beside("per site", bytes(peak / SITES as u64))
            .beside("with a quarter of the slices", bytes(quarter)),
    );
    Ok(())
}
