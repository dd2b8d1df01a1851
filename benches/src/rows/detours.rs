//! The cost of detours, which are jumps that edleak writes into an allocator's functions. A program that
//! contains jemalloc needs detours. A program that uses jemalloc as a shared library needs no detours,
//! because the loader finds the functions of edleak's library first. The row compares the cost of edleak in
//! both programs.
//!
//! The row gives times and not instructions: callgrind runs the program inside a valgrind process, and in a
//! valgrind process the collector does not find jemalloc.

use crate::Bench;
use crate::contender::Contender;
use crate::measure::{self, median};
use crate::rows::pairs;
use crate::table::{Row, number};
use crate::tools;
use anyhow::{Context, Result};
use std::path::PathBuf;

const ROUNDS: usize = 7;
/// Promised limit: edleak's cost of a malloc+free pair through a detour, minus edleak's cost of a pair
/// through an exported function, in nanoseconds.
const MOST_MORE_NS: f64 = 3.0;

/// The linker flags for jemalloc inside the program and for jemalloc as a shared library.
const LINKED: [&str; 2] = ["-l:libjemalloc.a", "-ljemalloc"];

fn programs(bench: &Bench, source: &str) -> Result<[PathBuf; 2]> {
    let build = |name: &str, library: &str| {
        let program = bench.dir.join(format!("{source}-{name}"));
        let flags = ["-O2", "-fno-builtin", "-pthread", library, "-lstdc++", "-ldl", "-lm"];
        tools::compile(&tools::source(source), &program, &flags).map(|()| program)
    };
    Ok([build("inside", LINKED[0])?, build("shared", LINKED[1])?])
}

/// Measures both programs (jemalloc inside, jemalloc as a shared library), and adds one row to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let Ok([inside, shared]) = programs(bench, "pairs.c") else {
        bench.add(Row::plain("detours", "libjemalloc-dev is absent".to_owned()));
        return Ok(());
    };
    let contenders = [Contender::Untraced, Contender::Edleak];
    let added = |program: &PathBuf| -> Result<f64> {
        let figures = measure::rounds(ROUNDS, &contenders, |contender| {
            let arguments = [1, 1_000, 3_000_000].map(|n: u64| n.to_string());
            pairs::reported(bench, contender, program, &arguments)?.context("edleak is here")
        })?;
        Ok(median(&figures[1]) - median(&figures[0]))
    };
    let (detoured, preloaded) = (added(&inside)?, added(&shared)?);
    let measure = "ns that a pair costs more with jemalloc inside the program than with it as a library";
    let row = Row::at_most(measure, MOST_MORE_NS, detoured - preloaded, " ns");
    bench.add(
        row.beside("inside", format!("+{} ns", number(detoured)))
            .beside("library", format!("+{} ns", number(preloaded))),
    );
    Ok(())
}
