//! What recording adds to a program that does nothing: starting, and writing a trace.

use crate::Bench;
use crate::contender::Contender;
use crate::measure::{self, median};
use crate::table::{Row, number};
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
    Ok(())
}
