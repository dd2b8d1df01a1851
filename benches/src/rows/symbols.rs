//! Measures how fast edleak-analyze finds the functions and lines of addresses in a large program with DWARF.
//! For 10,000 addresses, the time of edleak-analyze is compared with the time of llvm-symbolizer and
//! addr2line. For a usual trace with 300 sites, the time of edleak-analyze is compared with the time of
//! heaptrack_print.

use crate::bench::Bench;
use crate::contender::Contender;
use crate::measure::{self, median};
use crate::table::{Row, number};
use crate::tools::{self, Run};
use anyhow::{Context, Result};
use edleak_format::{
    Counters, End, EndReason, Module, ModuleId, Record, Site, SiteId, SiteKind, SliceHeader, Start,
    TraceWriter,
};
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const ADDRESSES: usize = 10_000;
/// Number of sites and number of slices of a usual trace, such as a recording of a medium-sized program
/// over ten minutes.
const USUAL_SITES: usize = 300;
const USUAL_SLICES: u64 = 600;
/// In the usual trace, one site in a hundred leaks: each site whose index is a multiple of `USUAL_LEAK`.
const USUAL_LEAK: usize = 100;
/// Promised limit for the time until edleak-analyze has printed its report on the usual trace, in
/// milliseconds.
const USUAL_MOST_MS: f64 = 60.0;

/// Builds a large program with full DWARF: a debug build of edleak-analyze.
fn build() -> Result<PathBuf> {
    tools::cargo(&["build", "-p", "edleak-analyze"]).env("CARGO_PROFILE_DEV_DEBUG", "full").run()?;
    Ok(tools::target_dir()?.join("debug/edleak-analyze"))
}

/// Addresses inside the functions of the program. The addresses are spread evenly over all functions of the
/// program, and the list is in random order.
fn addresses(program: &Path) -> Result<Vec<u64>> {
    let listed = Command::new("nm").args(["-S", "--defined-only"]).arg(program).read()?;
    let functions: Vec<(u64, u64)> = listed
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let start = u64::from_str_radix(words.next()?, 16).ok()?;
            let size = u64::from_str_radix(words.next()?, 16).ok()?;
            let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
            (is_code && size > 8).then_some((start, size))
        })
        .collect();
    anyhow::ensure!(functions.len() > 1000, "`{}` has only {} functions", program.display(), functions.len());
    Ok((0..ADDRESSES)
        .map(|i| {
            let (start, size) = functions[i * 7919 % functions.len()];
            start + 1 + (i as u64 * 31) % (size - 1)
        })
        .collect())
}

/// The build ID of the program, from the output of readelf.
fn build_id(program: &Path) -> Result<Vec<u8>> {
    let notes = Command::new("readelf").arg("-n").arg(program).read()?;
    let Some(text) = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")) else {
        return Ok(Vec::new());
    };
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).context("a build ID is hexadecimal"))
        .collect()
}

/// A trace with one site at each address. Every site whose index is a multiple of `leaking` leaks. At all
/// other sites, the number of live blocks rises and falls.
fn write(path: &Path, program: &Path, addresses: &[u64], slices: u64, leaking: usize) -> Result<()> {
    let mut writer = TraceWriter::create(path, 64 << 20)?;
    writer.record(&Record::Start(Start { tick_ns: 1_000_000_000, period_ticks: 1, ..Start::default() }))?;
    writer.record(&Record::Module(Module {
        id: ModuleId(0),
        path: program.to_string_lossy().into_owned(),
        build_id: build_id(program)?,
        load_bias: 0,
        start: 0,
        end: 1 << 40,
        loaded_ns: 0,
        unloaded_ns: 0,
    }))?;
    for (id, &address) in addresses.iter().enumerate() {
        writer.record(&Record::Site(Site {
            id: SiteId(id as u32),
            kind: SiteKind::Caller,
            parent: None,
            address: address + 1,
            module: Some(ModuleId(0)),
            stack: None,
        }))?;
    }
    for tick in 0..slices {
        let counters = |site: usize| {
            let (allocs, frees) = match site % leaking {
                0 => (tick, 0),
                _ => (10 * tick + 10, 10 * tick + (tick * (site as u64 + 3)) % 10),
            };
            Counters { allocated_bytes: allocs * 64, allocs, freed_bytes: frees * 64, frees }
        };
        let header = SliceHeader { tick, time_ns: tick * 1_000_000_000, ..SliceHeader::default() };
        writer.slice(&header, &(0..addresses.len()).map(counters).collect::<Vec<_>>())?;
    }
    writer.record(&Record::End(End { reason: EndReason::Exited(0), at_ns: slices * 1_000_000_000 }))?;
    writer.finish()?;
    Ok(())
}

/// Measures the lookup of addresses and the report on a usual trace, and adds the rows to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let program = build()?;
    let addresses = addresses(&program)?;
    let trace = bench.dir.join("symbols.edl");
    write(&trace, &program, &addresses, 20, 1)?;
    let list = bench.dir.join("addresses");
    let text = addresses.iter().fold(String::new(), |mut text, address| {
        let _ = writeln!(text, "0x{address:x}");
        text
    });
    std::fs::write(&list, text)?;

    let timed = |command: &mut Command| -> Result<f64> {
        let start = Instant::now();
        let status =
            command.stdin(File::open(&list)?).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "{status}");
        Ok(start.elapsed().as_secs_f64())
    };
    let mut who = vec!["edleak-analyze"];
    who.extend(["llvm-symbolizer", "addr2line"].iter().filter(|name| tools::installed(name).is_some()));
    let figures = measure::rounds(3, &who, |name| match name {
        "llvm-symbolizer" => timed(Command::new(name).arg("--inlining").arg("--obj").arg(&program)),
        "addr2line" => timed(Command::new(name).args(["-f", "-i", "-C", "-e"]).arg(&program)),
        // The measured time is the time of the whole run of edleak-analyze: it opens the trace, judges
        // every site, and prints 10,000 sites.
        _ => timed(
            Command::new(&bench.tools.analyze).args(["--all", "--exit-zero", "--format", "json"]).arg(&trace),
        ),
    })?;
    let medians: Vec<f64> = figures.iter().map(|values| median(values)).collect();
    let size = std::fs::metadata(&program)?.len() >> 20;
    let measure = format!("10,000 addresses of a program of {size} MiB with DWARF, whole run");
    let best_peer = medians[1..].iter().copied().fold(f64::INFINITY, f64::min);
    let mut row = match best_peer.is_finite() {
        true => Row::at_most(&measure, best_peer, medians[0], " s"),
        false => Row::plain(&measure, format!("{} s", number(medians[0]))),
    };
    for (name, seconds) in who.iter().zip(&medians).skip(1) {
        row = row.beside(name, format!("{} s", number(*seconds)));
    }
    bench.add(row);
    usual(bench, &program, &addresses[..USUAL_SITES], size)
}

/// Measures the time that edleak-analyze needs for the usual trace, from its start until it has printed the
/// report.
fn usual(bench: &mut Bench, program: &Path, addresses: &[u64], size: u64) -> Result<()> {
    let trace = bench.dir.join("usual.edl");
    write(&trace, program, addresses, USUAL_SLICES, USUAL_LEAK)?;
    let recorded = heaptrack_of(bench, program, &trace)?;
    let mut who = vec!["edleak-analyze"];
    who.extend(recorded.as_ref().map(|_| "heaptrack_print"));
    let figures = measure::rounds(9, &who, |name| {
        let cost = match (name, &recorded) {
            ("heaptrack_print", Some(data)) => measure::cost(Command::new(name).arg(data))?,
            _ => measure::cost(Command::new(&bench.tools.analyze).arg("--exit-zero").arg(&trace))?,
        };
        Ok(cost.wall.as_secs_f64() * 1e3)
    })?;
    let measure =
        format!("report of a usual trace (300 sites, 600 slices), symbols of {size} MiB with DWARF");
    let mut row = Row::at_most(&measure, USUAL_MOST_MS, median(&figures[0]), " ms");
    for (name, values) in who.iter().zip(&figures).skip(1) {
        row = row.beside(name, format!("{} ms, a run of the same program", number(median(values))));
    }
    bench.add(row);
    Ok(())
}

/// Records edleak-analyze with heaptrack, while edleak-analyze reads `trace`.
fn heaptrack_of(bench: &Bench, program: &Path, trace: &Path) -> Result<Option<PathBuf>> {
    if tools::installed("heaptrack_print").is_none() {
        return Ok(None);
    }
    let Some(mut command) = bench.starter.command(Contender::Heaptrack, program) else { return Ok(None) };
    measure::cost(command.arg("--exit-zero").arg(trace))?;
    // heaptrack adds the file extension of its compression format.
    let files = std::fs::read_dir(bench.dir.path())?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_data = |file: &PathBuf| file.file_stem().is_some_and(|stem| stem == "heaptrack");
    Ok(files.into_iter().find(is_data))
}
