//! Instructions that edleak adds per pair, counted by callgrind. callgrind's counts of instructions are exact
//! and repeatable, and do not depend on other load on the machine.
//!
//! The instructions of a pair are computed from two runs that differ only in the number of pairs, so the
//! instructions of the start-up do not count. The cost of edleak is the number of instructions of a pair
//! with edleak, minus the number of instructions of a pair in the untraced program.

use crate::bench::Bench;
use crate::contender::Contender;
use crate::rows::attached;
use crate::table::Row;
use crate::tools;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Stdio;

/// The kinds of pairs in `pair.cpp`, and their names in the table.
pub(crate) const KINDS: [(&str, &str); 8] = [
    ("malloc", "instructions added per malloc+free"),
    ("calloc", "instructions added per calloc+free"),
    ("realloc", "instructions added per realloc in place"),
    ("new", "instructions added per new+delete"),
    ("array", "instructions added per new[]+delete[]"),
    ("wrapped", "instructions added per malloc+free behind three wrappers"),
    (IDLE, "instructions added per malloc+free while edleak waits"),
    (ATTACHED, "instructions added per malloc+free in an attached process"),
];
/// The name of the row for malloc and free in a process whose library is idle.
const IDLE: &str = "idle";
/// The name of the row for malloc and free in a process that was started without the library. edleak-bench
/// counts the instructions of this process by single steps, without callgrind.
const ATTACHED: &str = "attached";
/// The number of pairs in the shorter of the two counted runs. A run of 2,000 pairs is long enough to contain
/// every call that is slower the first time.
const FEW: u64 = 2_000;
const MANY: u64 = 12_000;

/// Instructions per pair under one contender. `None`: the contender or valgrind is not installed.
pub(crate) fn per_pair(
    bench: &Bench,
    contender: Contender,
    program: &Path,
    kind: &str,
) -> Result<Option<f64>> {
    if tools::installed("valgrind").is_none() {
        return Ok(None);
    }
    let mut counts = [0.0; 2];
    for (count, pairs) in counts.iter_mut().zip([FEW, MANY]) {
        let Some(mut command) = bench.starter.command(contender, "valgrind") else { return Ok(None) };
        let out = bench.dir.join("callgrind.out");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
        command.arg(program).arg(kind).arg(pairs.to_string());
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "callgrind failed on `{kind}`: {status}");
        let text = std::fs::read_to_string(&out).context("callgrind wrote nothing")?;
        *count = text
            .lines()
            .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
            .context("callgrind's output has no totals")?;
        std::fs::remove_file(&out)?;
    }
    Ok(Some((counts[1] - counts[0]) / (MANY - FEW) as f64))
}

/// Compiles `pair.cpp`.
pub(crate) fn program(bench: &Bench) -> Result<std::path::PathBuf> {
    let program = bench.dir.join("pair");
    tools::compile(&tools::source("pair.cpp"), &program, &["-O1", "-fno-builtin"])?;
    Ok(program)
}

/// Instructions that edleak adds to one kind of pair. `None`: valgrind is not installed.
pub(crate) fn added(bench: &Bench, program: &Path, kind: &str) -> Result<Option<f64>> {
    let (kind, contender) = match kind {
        ATTACHED => return attached::added_instructions(bench, program).map(Some),
        IDLE => ("malloc", Contender::EdleakIdle),
        kind => (kind, Contender::Edleak),
    };
    let untraced = per_pair(bench, Contender::Untraced, program, kind)?;
    let traced = per_pair(bench, contender, program, kind)?;
    Ok(untraced.zip(traced).map(|(untraced, traced)| traced - untraced))
}

/// Measures the instructions of each kind of pair, and adds the rows to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let program = program(bench)?;
    for (kind, measure) in KINDS {
        let Some(added) = added(bench, &program, kind)? else {
            bench.add(Row::plain(measure, "valgrind is absent".to_owned()));
            continue;
        };
        let mut row = match kind {
            IDLE => {
                bench.add(Row::at_most(measure, 15.0, added, ""));
                continue;
            }
            ATTACHED => {
                bench.add(Row::plain(measure, format!("{added:.0}")));
                continue;
            }
            "malloc" => Row::at_most(measure, 90.0, added, ""),
            _ => Row::plain(measure, format!("{added:.0}")),
        };
        let untraced = per_pair(bench, Contender::Untraced, &program, kind)?;
        for contender in [Contender::Forward, Contender::Jemalloc, Contender::JemallocProfiling] {
            let Some(theirs) = per_pair(bench, contender, &program, kind)? else { continue };
            let baseline = match contender.baseline() {
                Contender::Untraced => untraced,
                other => per_pair(bench, other, &program, kind)?,
            };
            if let Some(baseline) = baseline.filter(|_| contender != Contender::Jemalloc) {
                row = row.beside(contender.name(), format!("+{:.0}", theirs - baseline));
            }
        }
        if let Some(untraced) = untraced {
            row = row.beside("untraced", format!("{untraced:.0}"));
        }
        bench.add(row);
    }
    Ok(())
}
