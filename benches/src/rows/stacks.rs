//! Measures the nanoseconds that the library needs to walk one frame of a watched stack, computed from two
//! depths of recursion. For comparison, also measures libunwind and framehop.

use super::framehop::Framehop;
use super::pairs::reported;
use crate::bench::Bench;
use crate::contender::Contender;
use crate::measure::{self, median};
use crate::table::Row;
use crate::tools;
use anyhow::{Context, Result};

const SHALLOW: u64 = 10;
const DEEP: u64 = 110;
const COUNT: u64 = 100_000;
const FRAMEHOP: &str = "framehop";

/// Measures the walk of stacks by edleak, libunwind and framehop, and adds the row to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let program = bench.dir.join("frames");
    // The program is compiled without frame pointers, so that each step of a walk needs an unwind rule.
    let flags = ["-O2", "-fno-builtin", "-fomit-frame-pointer"];
    let with_libunwind: Vec<&str> = flags.iter().copied().chain(["-DHAVE_LIBUNWIND", "-lunwind"]).collect();
    let source = tools::source("frames.c");
    let has_libunwind = tools::compile(&source, &program, &with_libunwind).is_ok();
    if !has_libunwind {
        tools::compile(&source, &program, &flags)?;
    }
    let mut cases = vec![
        (Contender::Untraced, "malloc"),
        (Contender::EdleakWatchAll, "malloc"),
        (Contender::Untraced, FRAMEHOP),
    ];
    if has_libunwind {
        cases.push((Contender::Untraced, "unwind"));
    }
    let framehop = Framehop::of_this_program()?;
    let figures = measure::rounds(5, &cases, |(contender, what)| {
        if what == FRAMEHOP {
            let at = |depth| framehop.ns_per_walk(depth as usize, COUNT);
            return Ok((at(DEEP) - at(SHALLOW)) / (DEEP - SHALLOW) as f64);
        }
        let at = |depth: u64| {
            let arguments = [depth.to_string(), COUNT.to_string(), what.to_owned()];
            reported(bench, contender, &program, &arguments)?.context("it needs nothing installed")
        };
        Ok((at(DEEP)? - at(SHALLOW)?) / (DEEP - SHALLOW) as f64)
    })?;
    let per_frame: Vec<f64> = figures.iter().map(|values| median(values)).collect();
    let mut row = Row::at_most("ns per frame of a watched stack", 4.0, per_frame[1] - per_frame[0], " ns");
    row = row.beside("framehop", format!("{:.1} ns", per_frame[2]));
    row = match per_frame.get(3) {
        Some(theirs) => row.beside("libunwind's unw_backtrace", format!("{theirs:.1} ns")),
        None => row.beside("libunwind", "absent (install libunwind-dev)".to_owned()),
    };
    bench.add(row);
    Ok(())
}
