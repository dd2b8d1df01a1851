//! Measures the system time and the page faults of a program whose heap grows. edleak's side table grows
//! with the heap, so edleak adds page faults.

use crate::bench::Bench;
use crate::contender::{Contender, PEERS};
use crate::measure::{self, median};
use crate::rows::pairs::reported;
use crate::table::{Row, number, times};
use crate::tools;
use anyhow::{Context, Result};

const ROUNDS: usize = 11;
/// About 180 MiB of blocks of 48 bytes.
const BLOCKS: u64 = 3_000_000;
/// Promised limit: the system time or page faults with edleak, divided by those of the untraced run.
const MOST: f64 = 1.05;

/// Measures system time and page faults, and adds a row for each.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let program = bench.dir.join("grow");
    tools::compile(&tools::source("grow.c"), &program, &["-O2", "-fno-builtin"])?;
    let mut contenders = vec![Contender::Untraced, Contender::Forward, Contender::Edleak];
    for peer in PEERS.into_iter().filter(|&peer| peer.slower() == 1 && bench.starter.has(peer)) {
        contenders.extend([peer.baseline(), peer]);
    }
    let measures = [
        ("system", " ms", "system time of a heap that grows by blocks of 48 bytes, × untraced"),
        ("faults", "", "page faults of the same, × untraced"),
    ];
    for (kind, unit, measure) in measures {
        let one = |contender| {
            let arguments = [BLOCKS.to_string(), kind.to_owned()];
            reported(bench, contender, &program, &arguments)?.context("it was installed a moment ago")
        };
        let figures = measure::rounds(ROUNDS, &contenders, one)?;
        let of = |contender: Contender| {
            let at = contenders.iter().position(|&other| other == contender)?;
            figures.get(at)
        };
        let untraced = of(Contender::Untraced).context("measured")?;
        let edleak = of(Contender::Edleak).context("measured")?;
        let mut row = Row::at_most(measure, MOST, measure::ratio(edleak, untraced), "")
            .beside("untraced", format!("{}{unit}", number(median(untraced))))
            .beside("edleak", format!("{}{unit}", number(median(edleak))));
        for &contender in &contenders[1..] {
            if matches!(contender, Contender::Edleak | Contender::Jemalloc | Contender::Tcmalloc) {
                continue;
            }
            let Some((own, base)) = of(contender).zip(of(contender.baseline())) else { continue };
            row = row.beside(contender.name(), times(measure::ratio(own, base)));
        }
        bench.add(row);
    }
    Ok(())
}
