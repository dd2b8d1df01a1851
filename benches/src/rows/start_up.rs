//! Measures the time that edleak adds to a program that does almost nothing: to its start, to the writing
//! of the trace, and to each fork.

use crate::bench::Bench;
use crate::contender::Contender;
use crate::measure::{self, median};
use crate::table::{Row, number};
use crate::tools;
use anyhow::{Context, Result};
use std::ffi::OsStr;

/// Measures the start of `/bin/true` and the cost of child processes, and adds the rows to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let mut contenders = vec![Contender::Untraced, Contender::Forward, Contender::Edleak];
    contenders.extend([Contender::Heaptrack, Contender::Dhat].iter().filter(|&&c| bench.starter.has(c)));
    let figures = measure::rounds(21, &contenders, |contender| {
        let mut command = bench.starter.command(contender, "/bin/true").context("installed")?;
        Ok(measure::cost(&mut command)?.wall.as_secs_f64() * 1e3)
    })?;
    let medians: Vec<f64> = figures.iter().map(|values| median(values)).collect();
    let mut row = Row::at_most("ms added to /bin/true, trace written", 3.0, medians[2] - medians[0], " ms");
    row = row.beside("untraced", format!("{} ms", number(medians[0])));
    for (contender, value) in
        contenders.iter().zip(&medians).filter(|(c, _)| !matches!(c, Contender::Untraced | Contender::Edleak))
    {
        row = row.beside(contender.name(), format!("{:+.1} ms", value - medians[0]));
    }
    bench.add(row);
    forks(bench)?;
    shell(bench)
}

/// Measures the cost of two kinds of children of a shell: a child that immediately ends, and a child that
/// executes a program. A shell has more sites and a larger heap than the program `forks.c`, and a shell
/// forks before it allocates.
fn shell(bench: &mut Bench) -> Result<()> {
    for (what, one, most) in [
        ("ms added to a fork of bash, `(:)`, --children", "(:)", 0.4),
        ("ms added to a fork and exec of bash, `/bin/true`, --children", "/bin/true", 2.0),
    ] {
        let [untraced, edleak] = child_costs(bench, "bash", 300, |children| {
            vec!["-c".to_owned(), format!("for ((i = 0; i < {children}; i++)); do {one}; done")]
        })?;
        let row = Row::at_most(what, most, edleak - untraced, " ms");
        bench.add(row.beside("untraced", format!("{} ms", number(untraced))));
    }
    Ok(())
}

/// The cost of a child that is forked, allocates once and ends.
fn forks(bench: &mut Bench) -> Result<()> {
    let program = bench.dir.join("forks");
    tools::compile(&tools::source("forks.c"), &program, &["-O2"])?;
    let [untraced, edleak] = child_costs(bench, &program, 200, |forks| vec![forks.to_string()])?;
    bench.add(
        Row::at_most("ms added to a fork, --children", 0.4, edleak - untraced, " ms")
            .beside("untraced", format!("{} ms", number(untraced))),
    );
    Ok(())
}

/// Milliseconds per child, in the untraced program and in a program of which edleak-record records every
/// child. The cost of a child is the time of a run with many children minus the time of a run without
/// children, divided by the number of children.
fn child_costs(
    bench: &Bench,
    program: impl AsRef<OsStr> + Copy,
    children: u32,
    arguments: impl Fn(u32) -> Vec<String>,
) -> Result<[f64; 2]> {
    let figures = measure::rounds(7, &[Contender::Untraced, Contender::EdleakChildren], |contender| {
        let wall = |children: u32| {
            let mut command = bench.starter.command(contender, program).context("installed")?;
            Ok::<f64, anyhow::Error>(measure::cost(command.args(arguments(children)))?.wall.as_secs_f64())
        };
        Ok((wall(children)? - wall(0)?) * 1e3 / f64::from(children))
    })?;
    Ok([median(&figures[0]), median(&figures[1])])
}
