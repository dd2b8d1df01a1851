//! Measures the collector while it records a program with 5,000 active sites: the share of a processor core
//! that the collector uses, and the size of the trace.

use crate::bench::Bench;
use crate::contender::Contender;
use crate::measure;
use crate::table::{Row, bytes, number};
use crate::tools;
use anyhow::{Context, Result, bail};
use edleak_format::{Counters, SiteId, SliceHeader, SliceVisitor, Trace};
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SITES: usize = 5_000;

/// A C program with 5,000 call sites: `sites SECONDS BURST`. Every 20 ms, each site is active with a certain
/// probability, which differs from site to site (1 to 1/8). An active site frees its allocation and makes a
/// new one, BURST times. If BURST is larger, the program makes more allocations, but the number of active
/// sites stays the same. One of sixteen sites keeps some allocations for ever. Two of three sites allocate a
/// fixed size, like `new` of one type; all remaining sites allocate random sizes, like strings and buffers.
fn generate(bench: &Bench) -> Result<PathBuf> {
    let mut text = String::from(
        "#define _GNU_SOURCE\n#include <stdint.h>\n#include <stdlib.h>\n#include <time.h>\n\
         static void *volatile held[5000];\nstatic uint64_t state = 88172645463325252u;\n\
         static uint64_t next(void) { state ^= state << 13; state ^= state >> 7; \
         return state ^= state << 17; }\n\
         #define SITE(n) if (next() % (1 + n % 8) == 0) for (long i = 0; i < burst; i++) { \\\n\
         if (n % 16 || next() % 4) free(held[n]); \
         held[n] = malloc(16 + (n % 3 ? n % 512 : next() % (64 + n % 512))); }\n",
    );
    // One function contains a hundred sites, because compilers are slow on larger functions.
    for function in 0..SITES / 100 {
        let _ = write!(text, "static __attribute__((noinline)) void f{function}(long burst) {{");
        for site in 0..100 {
            let _ = write!(text, " SITE({})", function * 100 + site);
        }
        text.push_str(" }\n");
    }
    text.push_str(
        "int main(int argc, char **argv) {\n if (argc != 3) return 2;\n\
         for (long turn = 0, turns = atol(argv[1]) * 50; turn < turns; turn++) {\n",
    );
    for function in 0..SITES / 100 {
        let _ = write!(text, "f{function}(atol(argv[2]));");
    }
    text.push_str("\n struct timespec rest = {0, 20000000}; nanosleep(&rest, 0);\n }\n return 0;\n}\n");
    let source = bench.dir.join("sites.c");
    std::fs::write(&source, text)?;
    let program = bench.dir.join("sites");
    tools::compile(&source, &program, &["-O1", "-fno-builtin"])?;
    Ok(program)
}

/// CPU time that all threads of a process have used so far.
fn cpu_of(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).context("schedstat")?;
    }
    Ok(Duration::from_nanos(total))
}

/// Counts the slices and the changed sites of a trace.
#[derive(Default)]
struct Changes {
    slices: u64,
    changed: u64,
}

impl SliceVisitor for Changes {
    fn slice(&mut self, _: &SliceHeader, changed: &[(SiteId, Counters)]) {
        self.slices += 1;
        self.changed += changed.len() as u64;
    }
}

/// The number of slices, of changed sites and of allocations in a trace.
fn contents(path: &Path) -> Result<(u64, u64)> {
    let trace = Trace::open(path)?;
    let mut changes = Changes::default();
    for block in 0..trace.blocks().len() {
        trace.replay_block(block, &mut changes)?;
    }
    if changes.slices == 0 || changes.changed == 0 {
        bail!("`{}` holds no changes", path.display());
    }
    Ok((changes.slices, changes.changed))
}

/// Measures the collector, and adds the rows to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let program = generate(bench)?;
    share_of_a_core(bench, &program)?;
    time_of_a_slice(bench)?;
    size_of_a_change(bench, &program)
}

fn share_of_a_core(bench: &mut Bench, program: &Path) -> Result<()> {
    // The limit for the collector's share of a core applies to a period of 1 s; with `--period auto`, the
    // period would be shorter. In the first second, edleak-record compiles the rules of the modules, so the
    // processor time of the first second does not count.
    let mut child = Command::new(&bench.tools.record)
        .args(["-q", "--period", "1s", "-o"])
        .arg(bench.starter.trace())
        .arg(program)
        .args(["13", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_secs(2));
    let (start, before) = (Instant::now(), cpu_of(child.id()));
    std::thread::sleep(Duration::from_secs(10));
    let (elapsed, after) = (start.elapsed(), cpu_of(child.id()));
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "the recording failed: {status}");
    let share = (after? - before?).as_secs_f64() / elapsed.as_secs_f64() * 100.0;
    bench.add(Row::at_most("collector CPU, 5,000 active sites, 1 s period", 1.0, share, " % of a core"));
    Ok(())
}

/// CPU time that the collector needs for one slice if the program has 1,000 threads. Each thread has
/// allocated at all 5,000 sites, and the counters of all sites change in each slice.
fn time_of_a_slice(bench: &mut Bench) -> Result<()> {
    const PERIOD: Duration = Duration::from_millis(20);
    const SLICES: u32 = 150;
    let mut child = Command::new(&bench.tools.record)
        .args(["-q", "--period", "20ms", "-o"])
        .arg(bench.starter.trace())
        .arg(edleak_tests::programs::programs().binary("memory"))
        .args(["threads", "6"])
        .stdout(Stdio::piped())
        .spawn()?;
    // The measured program prints a line when each of its 1,000 threads has allocated at all sites.
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped above")?).read_line(&mut line)?;
    std::thread::sleep(Duration::from_secs(1));
    let before = cpu_of(child.id())?;
    std::thread::sleep(PERIOD * SLICES);
    let per_slice = (cpu_of(child.id())? - before) / SLICES;
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "the recording failed: {status}");
    let label = "a slice of 5,000 sites, touched by 1,000 threads each";
    bench.add(Row::at_most(label, 20.0, per_slice.as_secs_f64() * 1e3, " ms of CPU"));
    Ok(())
}

fn size_of_a_change(bench: &mut Bench, program: &Path) -> Result<()> {
    let mut sizes = [(0, 0, 0); 2];
    for (size, burst) in sizes.iter_mut().zip(["1", "10"]) {
        measure::cost(
            Command::new(&bench.tools.record)
                .args(["-q", "--period", "100ms", "-o"])
                .arg(bench.starter.trace())
                .arg(program)
                .args(["12", burst]),
        )?;
        let (slices, changed) = contents(&bench.starter.trace())?;
        *size = (std::fs::metadata(bench.starter.trace())?.len(), slices, changed);
    }
    let [(length, slices, changed), (more_length, _, more_changed)] = sizes;
    let per_change = length as f64 / changed as f64;
    bench.add(
        Row::at_most("bytes of trace per changed site and slice, everything counted", 2.0, per_change, " B")
            .beside("the file", bytes(length))
            .beside("slices", slices.to_string())
            .beside("changes", changed.to_string()),
    );
    bench.add(
        Row::plain(
            "the same with ten times the allocations",
            format!("{} B", number(more_length as f64 / more_changed as f64)),
        )
        .beside("the file", bytes(more_length)),
    );
    if bench.starter.has(Contender::Heaptrack) {
        let mut command = bench.starter.command(Contender::Heaptrack, program).context("installed")?;
        let row = Row::plain("trace per minute of this program", bytes(length_per_minute(sizes[0].0, 12)));
        let theirs = match measure::cost(command.args(["2", "1"])) {
            Ok(_) => bytes(length_per_minute(take_heaptracks_file(bench)?, 2)),
            // The program heaptrack_interpret of heaptrack 1.4 runs out of memory, because this program has
            // 5,000 call sites in functions of a hundred sites each.
            Err(error) => error.to_string(),
        };
        bench.add(row.beside("heaptrack", theirs));
    }
    Ok(())
}

/// Removes heaptrack's file and returns the length of the file.
fn take_heaptracks_file(bench: &Bench) -> Result<u64> {
    let written = std::fs::read_dir(bench.dir.path())?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with("heaptrack"))
        .context("heaptrack wrote nothing")?;
    let length = written.metadata()?.len();
    std::fs::remove_file(written.path())?;
    Ok(length)
}

fn length_per_minute(length: u64, seconds: u64) -> u64 {
    length * 60 / seconds
}
