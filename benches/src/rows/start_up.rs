//! The cost of recording a program that does nothing: start, writing the trace, and forks.

use crate::Bench;
use crate::contender::Contender;
use crate::measure::{self, median};
use crate::table::{Row, number};
use crate::tools;
use anyhow::{Context, Result};

/// The rows.
pub fn rows(bench: &mut Bench) -> Result<()> {
    let mut contenders = vec![Contender::Untraced, Contender::Forward, Contender::Edleak];
    contenders.extend([Contender::Heaptrack, Contender::Dhat].iter().filter(|&&c| bench.starter.has(c)));
    let figures = measure::rounds(21, &contenders, |contender| {
        let mut command = bench.starter.command(contender, "/bin/true").context("installed")?;
        Ok(measure::cost(&mut command)?.wall.as_secs_f64() * 1e3)
    })?;
    let medians: Vec<f64> = figures.iter().map(|values| median(values)).collect();
    let mut row = Row::at_most("ms added to /bin/true, trace written", 10.0, medians[2] - medians[0], " ms");
    row = row.beside("untraced", format!("{} ms", number(medians[0])));
    for (contender, value) in
        contenders.iter().zip(&medians).filter(|(c, _)| !matches!(c, Contender::Untraced | Contender::Edleak))
    {
        row = row.beside(contender.name(), format!("{:+.1} ms", value - medians[0]));
    }
    bench.add(row);
    forks(bench)
}

/// The cost of a child that is forked, allocates and ends: the difference between no and many children.
fn forks(bench: &mut Bench) -> Result<()> {
    const FORKS: u32 = 200;
    let program = bench.dir.join("forks");
    tools::compile(&tools::source("forks.c"), &program, &["-O2"])?;
    let figures = measure::rounds(7, &[Contender::Untraced, Contender::EdleakChildren], |contender| {
        let wall = |forks: u32| {
            let mut command = bench.starter.command(contender, &program).context("installed")?;
            Ok::<f64, anyhow::Error>(measure::cost(command.arg(forks.to_string()))?.wall.as_secs_f64())
        };
        Ok((wall(FORKS)? - wall(0)?) * 1e3 / f64::from(FORKS))
    })?;
    let [untraced, edleak] = [median(&figures[0]), median(&figures[1])];
    bench.add(
        Row::plain("ms added to a fork, --children", format!("{} ms", number(edleak - untraced)))
            .beside("untraced", format!("{} ms", number(untraced))),
    );
    Ok(())
}
