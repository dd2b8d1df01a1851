//! Measures the nanoseconds that edleak adds to a call of mmap or munmap, in a program that calls mmap and
//! munmap in a loop, as a JIT compiler does.

use crate::bench::Bench;
use crate::contender::Contender;
use crate::measure::{self, median};
use crate::rows::pairs::reported;
use crate::table::{Row, number};
use crate::tools;
use anyhow::{Context, Result};

const ROUNDS: usize = 7;
const PAIRS: u64 = 100_000;
/// The cost that edleak may add to a call of mmap or munmap, in nanoseconds.
const MOST_NS: f64 = 1000.0;

/// Measures a loop of mmap and munmap, and adds one row to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let program = bench.dir.join("mappings");
    tools::compile(&tools::source("mappings.c"), &program, &["-O2"])?;
    let contenders = [Contender::Untraced, Contender::Edleak];
    let one = |contender: Contender| {
        reported(bench, contender, &program, &[PAIRS.to_string()])?.context("both are always there")
    };
    let figures = measure::rounds(ROUNDS, &contenders, one)?;
    let [untraced, edleak] = figures.as_slice() else { anyhow::bail!("two contenders have two series") };
    let (untraced, edleak) = (median(untraced), median(edleak));
    let added = (edleak - untraced) / 2.0;
    let row = Row::at_most("ns added per call, mmap and munmap of 64 KiB", MOST_NS, added, " ns");
    bench.add(row.beside("untraced", format!("{} ns a pair", number(untraced))));
    Ok(())
}
