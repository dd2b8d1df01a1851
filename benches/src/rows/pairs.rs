//! Measures the nanoseconds that edleak adds to a malloc+free pair: with one thread, with several threads,
//! and with many live allocations.

use crate::bench::Bench;
use crate::contender::{Contender, PEERS};
use crate::measure::{self, median};
use crate::table::{Row, number};
use crate::tools;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::path::Path;

const ROUNDS: usize = 7;

/// One row: the number of threads, the number of live allocations of all threads together, the number of
/// pairs per thread, and the promise in ns. The number of live allocations does not depend on the number of
/// threads. If the live allocations do not fit into the processor's caches, each pair costs more; a separate
/// row measures this case.
struct Case {
    threads: u64,
    live: u64,
    pairs: u64,
    most: f64,
    peers: bool,
}

const CASES: [Case; 6] = [
    Case { threads: 1, live: 1_000, pairs: 6_000_000, most: 12.0, peers: true },
    Case { threads: 2, live: 1_000, pairs: 3_000_000, most: 12.0, peers: true },
    Case { threads: 8, live: 1_000, pairs: 800_000, most: 12.0, peers: false },
    Case { threads: 16, live: 1_000, pairs: 400_000, most: 12.0, peers: false },
    Case { threads: 1, live: 100_000, pairs: 3_000_000, most: 60.0, peers: true },
    Case { threads: 1, live: 1_000_000, pairs: 1_500_000, most: 60.0, peers: false },
];

/// Runs a helper program, which writes one number to the file in `BENCH_OUT`.
pub(crate) fn reported(
    bench: &Bench,
    contender: Contender,
    program: &Path,
    arguments: &[String],
) -> Result<Option<f64>> {
    let Some(mut command) = bench.starter.command(contender, program) else { return Ok(None) };
    let out = bench.dir.join("figure");
    measure::cost(command.args(arguments).env("BENCH_OUT", &out))?;
    let text = std::fs::read_to_string(&out).context("a helper reported nothing")?;
    std::fs::remove_file(&out)?;
    Ok(Some(text.trim().parse().context("a helper reported no number")?))
}

/// Measures and adds the rows of this group.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let program = bench.dir.join("pairs");
    tools::compile(&tools::source("pairs.c"), &program, &["-O2", "-fno-builtin", "-pthread"])?;
    let mut one_thread = None;
    for Case { threads, live, pairs, most, peers } in CASES {
        let mut contenders = vec![Contender::Untraced, Contender::Forward, Contender::Edleak];
        let mut slow = Vec::new();
        for peer in PEERS.into_iter().filter(|&peer| peers && bench.starter.has(peer)) {
            if peer.slower() == 1 { &mut contenders } else { &mut slow }.push(peer);
            if peer.baseline() != Contender::Untraced {
                contenders.push(peer.baseline());
            }
        }
        let one = |contender: Contender| {
            let arguments =
                [threads, live / threads, (pairs / contender.slower()).max(1000)].map(|n| n.to_string());
            reported(bench, contender, &program, &arguments)?.context("it was installed a moment ago")
        };
        let mut figures: HashMap<&str, Vec<f64>> = HashMap::new();
        let fast = measure::rounds(ROUNDS, &contenders, one)?;
        figures.extend(contenders.iter().map(|contender| contender.name()).zip(fast));
        let slow_figures = measure::rounds(2, &slow, one)?;
        figures.extend(slow.iter().map(|contender| contender.name()).zip(slow_figures));

        // The result is the median of the times with edleak, minus the median of the times without edleak.
        // The runs with and without edleak alternate, so a slow phase of the machine affects both.
        let above = |contender: Contender| {
            let mine = figures.get(contender.name())?;
            Some(median(mine) - median(figures.get(contender.baseline().name())?))
        };
        let added = above(Contender::Edleak).context("edleak was measured")?;
        let measure = match (threads, live) {
            (1, 1_000) => "ns added per pair, 1 thread, 1,000 live of 16–272 bytes".to_owned(),
            (1, live) => format!("ns added per pair, 1 thread, {live} live, random order"),
            (threads, _) => {
                format!("ns added per pair, {threads} threads, 1,000 live, a quarter of the frees elsewhere")
            }
        };
        // Promised limit for several threads: the nanoseconds that edleak adds to a pair with one thread.
        let most = one_thread.filter(|_| threads > 1).unwrap_or(most);
        let mut row = Row::at_most(&measure, most, added, " ns");
        let untraced = median(&figures[Contender::Untraced.name()]);
        row = row.beside("untraced", format!("{} ns", number(untraced)));
        if threads == 1 && live == 1_000 {
            one_thread = Some(added);
        } else if let Some(one_thread) = one_thread.filter(|_| threads > 1) {
            row = row.beside("edleak with 1 thread", format!("+{} ns", number(one_thread)));
        }
        for other in [Contender::Forward].into_iter().chain(PEERS) {
            if let Some(theirs) = above(other) {
                let of = match other.baseline() {
                    Contender::Untraced => String::new(),
                    baseline => format!(" above {}", baseline.name()),
                };
                row = row.beside(other.name(), format!("{theirs:+.1} ns{of}"));
            }
        }
        bench.add(row);
    }
    Ok(())
}
