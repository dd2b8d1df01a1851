//! The cost of a pair of malloc and free in a process that edleak-record did not start. Two cases are
//! measured: a process that was started with edleak's library, which is idle, and a process to which
//! edleak-record attaches.

use crate::bench::Bench;
use crate::contender::Contender;
use crate::measure::{self, median};
use crate::rows::pairs;
use crate::steps;
use crate::table::{Row, number};
use crate::tools;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const ROUNDS: usize = 7;
/// Number of pairs whose instructions are counted.
const PAIRS: u64 = 500;
/// How many times the instructions of all `PAIRS` pairs are counted; the smallest count is used.
const COUNTS: usize = 3;

/// A process to which edleak-record has attached.
struct Attached {
    recorder: Child,
}

impl Attached {
    /// Attaches to a process, and returns as soon as the process calls edleak's library.
    fn attach(bench: &Bench, pid: u32) -> Result<Attached> {
        let mut command = bench.starter.attach(pid);
        let mut recorder =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let messages = BufReader::new(recorder.stderr.take().context("piped above")?);
        let mut told = String::new();
        for line in messages.lines() {
            let line = line?;
            if line.contains("recording process") {
                return Ok(Attached { recorder });
            }
            told.push_str(&line);
        }
        let _ = recorder.wait();
        anyhow::bail!("edleak-record did not attach: {told}")
    }

    /// Waits until edleak-record ends; the recorded process has already ended.
    fn finish(mut self) -> Result<()> {
        ensure!(self.recorder.wait()?.success(), "a recording failed");
        Ok(())
    }
}

/// Nanoseconds per pair of `pairs.c` in an attached process.
fn pair_ns(bench: &Bench, program: &Path, arguments: &[String]) -> Result<f64> {
    let out = bench.dir.join("figure");
    let mut command = Command::new(program);
    command.args(arguments).env("BENCH_OUT", &out).env("BENCH_WAIT", "1").stdin(Stdio::piped());
    let mut child = command.spawn().context("cannot start `pairs`")?;
    let attached = Attached::attach(bench, child.id());
    // The program begins to measure when its input ends.
    drop(child.stdin.take());
    let status = child.wait()?;
    attached?.finish()?;
    ensure!(status.success(), "`pairs` failed: {status}");
    let text = std::fs::read_to_string(&out).context("a helper reported nothing")?;
    text.trim().parse().context("a helper reported no number")
}

/// Number of instructions that a pair of malloc and free executes in an attached process, minus the number
/// that it executes without edleak. `program` is compiled from `pair.cpp`.
pub(crate) fn added_instructions(bench: &Bench, program: &Path) -> Result<f64> {
    let per_pair = |is_attached: bool| -> Result<f64> {
        let mut command = Command::new(program);
        command.args(["steps", &PAIRS.to_string()]).stdin(Stdio::piped());
        let mut child = command.spawn().context("cannot start `pair`")?;
        let attached = is_attached.then(|| Attached::attach(bench, child.id())).transpose();
        let input = child.stdin.take();
        let steps = match &attached {
            Ok(_) => steps::between_breakpoints(&child, || drop(input)),
            Err(_) => Ok(0),
        };
        if steps.is_err() || attached.is_err() {
            let _ = child.kill();
        }
        let status = child.wait()?;
        attached?.map_or(Ok(()), Attached::finish)?;
        let steps = steps?;
        ensure!(status.success(), "`pair` failed: {status}");
        Ok(steps as f64 / PAIRS as f64)
    };
    // On a busy machine, some of the counted instructions may not belong to a pair, but to other work such as
    // a system call. So the smallest of several counts of instructions is used as the cost of a pair.
    let mut attached = f64::INFINITY;
    for _ in 0..COUNTS {
        attached = attached.min(per_pair(true)?);
    }
    Ok(attached - per_pair(false)?)
}

/// Measures a pair of malloc and free while the library is idle and in an attached process, and adds two
/// rows.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let program = bench.dir.join("pairs");
    tools::compile(&tools::source("pairs.c"), &program, &["-O2", "-fno-builtin", "-pthread"])?;
    let arguments = [1, 1_000, 6_000_000].map(|n: u64| n.to_string());
    let started = [Contender::Untraced, Contender::EdleakIdle, Contender::Edleak];
    // In the list of contenders, `None` stands for the process to which edleak-record attaches.
    let contenders: Vec<Option<Contender>> = started.into_iter().map(Some).chain([None]).collect();
    let figures = measure::rounds(ROUNDS, &contenders, |contender| match contender {
        Some(contender) => {
            pairs::reported(bench, contender, &program, &arguments)?.context("edleak is installed")
        }
        None => pair_ns(bench, &program, &arguments),
    })?;
    let [untraced, idle, preloaded, attached] = [0, 1, 2, 3].map(|index| median(&figures[index]));
    let beside = |row: Row| row.beside("untraced", format!("{} ns", number(untraced)));
    let waits = "ns added per pair while edleak waits, 1 thread, 1,000 live";
    bench.add(beside(Row::at_most(waits, 1.0, idle - untraced, " ns")));
    let records = "ns added per pair in an attached process, 1 thread, 1,000 live";
    let row = beside(Row::at_most(records, 12.0, attached - untraced, " ns"));
    bench.add(row.beside("edleak (preloaded)", format!("{:+.1} ns", preloaded - untraced)));
    Ok(())
}
