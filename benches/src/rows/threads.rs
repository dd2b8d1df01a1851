//! Measures two programs with several threads, modelled on the benchmarks larson and xmalloc-test. In the
//! program modelled on larson, each thread ends and leaves its blocks to a new thread. In the program
//! modelled on xmalloc-test, threads free blocks that other threads allocated.

use crate::bench::Bench;
use crate::contender::{Contender, PEERS};
use crate::measure::{self, median};
use crate::rows::pairs::reported;
use crate::table::{Row, number, times};
use crate::tools;
use anyhow::{Context, Result};
use std::path::Path;

const ROUNDS: usize = 9;
const THREADS: [u64; 4] = [2, 4, 8, 16];
/// Promised limit: the CPU time with edleak, divided by the CPU time of the untraced run.
const MOST: f64 = 1.15;
/// Three numbers: the blocks of each thread, the pairs that a thread makes before its successor starts, and
/// the generations of threads.
const BLOCKS: u64 = 5_000;
const PAIRS: u64 = 100_000;
const GENERATIONS: u64 = 64;
/// Number of batches of all allocating threads together.
const BATCHES: u64 = 1_600;

/// Measures both programs with 2 to 16 threads, and adds the rows to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let compiled = |name: &str| -> Result<_> {
        let program = bench.dir.join(name);
        let source = tools::source(&format!("{name}.c"));
        tools::compile(&source, &program, &["-O2", "-fno-builtin", "-pthread"])?;
        Ok(program)
    };
    let (successors, handover) = (compiled("successors")?, compiled("handover")?);
    for threads in THREADS {
        let arguments = [threads, BLOCKS, PAIRS, GENERATIONS / threads];
        let measure =
            format!("CPU time of {threads} threads that hand their blocks to successors, × untraced");
        row(bench, &measure, &successors, &arguments)?;
    }
    for threads in THREADS {
        let arguments = [threads, BATCHES / (threads / 2)];
        let measure = format!("CPU time of {threads} threads, every block freed by another, × untraced");
        row(bench, &measure, &handover, &arguments)?;
    }
    Ok(())
}

/// Measures one program under all contenders and adds one row.
fn row(bench: &mut Bench, measure: &str, program: &Path, arguments: &[u64]) -> Result<()> {
    let arguments: Vec<String> = arguments.iter().map(u64::to_string).collect();
    let mut contenders = vec![Contender::Untraced, Contender::Forward, Contender::Edleak];
    let mut slow = Vec::new();
    for peer in PEERS.into_iter().filter(|&peer| bench.starter.has(peer)) {
        match peer.slower() {
            1 => contenders.extend([peer.baseline(), peer]),
            _ if peer == Contender::Heaptrack => slow.push(peer),
            // The work of the two programs cannot be reduced, so gperftools and dhat are left out: one run
            // with gperftools takes more than a minute (×380), and dhat was not measured.
            _ => {}
        }
    }
    let one =
        |contender| reported(bench, contender, program, &arguments)?.context("it was installed a moment ago");
    let figures = measure::rounds(ROUNDS, &contenders, one)?;
    let of = |contender: Contender| {
        let at = contenders.iter().position(|&other| other == contender)?;
        figures.get(at)
    };
    let untraced = of(Contender::Untraced).context("measured")?;
    let edleak = of(Contender::Edleak).context("measured")?;
    let ratio = measure::ratio(edleak, untraced);
    let untraced_ns = median(untraced);
    let mut row = Row::at_most(measure, MOST, ratio, "")
        .beside("untraced", format!("{} ns a pair", number(untraced_ns)))
        .beside("edleak", format!("{:+.1} ns a pair", median(edleak) - untraced_ns));
    for &contender in contenders.iter().filter(|&&other| other != Contender::Edleak) {
        let Some((own, base)) = of(contender).zip(of(contender.baseline())) else { continue };
        if contender == Contender::Forward || contender.baseline() != Contender::Untraced {
            row = row.beside(contender.name(), times(measure::ratio(own, base)));
        }
    }
    for contender in slow {
        // heaptrack is many times slower than the untraced program, so one run gives the ratio exactly
        // enough.
        let own = one(contender)?;
        let base = match of(contender.baseline()) {
            Some(base) => median(base),
            None => one(contender.baseline())?,
        };
        row = row.beside(contender.name(), times(own / base));
    }
    bench.add(row);
    Ok(())
}
