//! Checks that edleak has not become slower: compares the number of instructions that edleak adds to a
//! malloc+free pair with the number in `budget.txt`. The count of instructions is exact; a tolerance is
//! necessary only because compilers differ.

use crate::bench::Bench;
use crate::rows::instructions::{self, KINDS};
use anyhow::{Context, Result, bail};
use edleak_tests::tools::repository;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Tolerance of the check, in instructions: a malloc+free pair may cost this many more than its budget.
const TOLERANCE: f64 = 2.0;

fn file() -> PathBuf {
    repository().join("benches/budget.txt")
}

/// Parses the text of `budget.txt`. Each line names a kind of malloc+free pair (such as `calloc`), and gives
/// the number of instructions that edleak may add to one pair of this kind. `#` begins a comment.
fn parse(text: &str) -> Result<Vec<(&str, f64)>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let (kind, count) = line.split_once(' ').unwrap_or((line, ""));
            let count = count.trim().parse().with_context(|| {
                format!("budget.txt:{}: no count in `{line}` (write `malloc 90`)", number + 1)
            })?;
            Ok((kind, count))
        })
        .collect()
}

/// Compares the measured instructions of every kind of pair with the budget of this kind. With `update`,
/// writes the measured instructions to `budget.txt` as the new budget.
pub(crate) fn check(bench: &Bench, update: bool) -> Result<ExitCode> {
    let program = instructions::program(bench)?;
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let budget = parse(&text)?;
    let mut recorded = String::from(
        "# Instructions that edleak adds per pair (callgrind, release build).\n\
         # `edleak-bench budget` fails if a value grows by more than 2; `edleak-bench budget --update` \
         records new values.\n\
         # `attached` is counted step by step (benches/src/steps.rs).\n",
    );
    let mut is_over = false;
    for (kind, measure) in KINDS {
        let Some(added) = instructions::added(bench, &program, kind)? else {
            bail!("valgrind is not installed (the budget is counted by its callgrind: install valgrind)");
        };
        let _ = writeln!(recorded, "{kind} {added:.0}");
        let Some(&(_, most)) = budget.iter().find(|(name, _)| *name == kind) else {
            if !update {
                bail!("budget.txt has no line for `{kind}` (run `edleak-bench budget --update`)");
            }
            continue;
        };
        let over = added > most + TOLERANCE;
        is_over |= over;
        println!("{} {measure}: {added:.1} (budget {most})", if over { "OVER" } else { "ok  " });
    }
    if update {
        std::fs::write(file(), &recorded).context("cannot write budget.txt")?;
        print!("{recorded}");
        return Ok(ExitCode::SUCCESS);
    }
    if is_over {
        eprintln!(
            "the hot path became slower (make it as cheap as it was, or say why it may not be and record the \
             new cost with `edleak-bench budget --update`)"
        );
    }
    Ok(ExitCode::from(u8::from(is_over)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_without_a_count_is_an_error_with_its_line() {
        assert_eq!(parse("# x\nmalloc 90\n\nnew 80\n").expect("sound"), [("malloc", 90.0), ("new", 80.0)]);
        let error = parse("malloc 90\nnew\n").expect_err("no count").to_string();
        assert!(error.contains("budget.txt:2"), "{error}");
    }

    #[test]
    fn the_recorded_budget_is_sound_and_names_every_kind() {
        let text = std::fs::read_to_string(file()).expect("budget.txt is part of the repository");
        let budget = parse(&text).expect("sound");
        for (kind, _) in KINDS {
            assert!(budget.iter().any(|(name, _)| *name == kind), "{kind}");
        }
    }
}
