//! edleak-bench measures every figure that README.md and docs/ publish about edleak. For comparison,
//! edleak-bench measures each figure also without any tool and with other tools.
//!
//! `cargo run --release -p edleak-benches` measures everything and prints one table. With `-- budget`,
//! edleak-bench only compares the number of instructions of the hot path with `budget.txt`. CI runs `--
//! budget`, which takes a few seconds.

mod bench;
mod budget;
mod contender;
mod measure;
mod rows;
mod steps;
mod table;
mod tools;

use anyhow::Result;
use bench::Bench;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures edleak beside the untraced program, a forward-only preload, and the peers that are installed.
#[derive(Parser)]
#[command(name = "edleak-bench")]
struct Args {
    /// Measure only the rows of these groups (see --list).
    #[arg(long, value_name = "GROUP")]
    only: Vec<String>,
    /// List the groups of rows.
    #[arg(long)]
    list: bool,
    /// Also write the table as Markdown to FILE.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Compare the instructions of the hot path with benches/budget.txt; exit 1 if it has become slower.
    Budget {
        /// Record the present cost as the new budget.
        #[arg(long)]
        update: bool,
    },
}

type Group = (&'static str, fn(&mut Bench) -> Result<()>);

const GROUPS: &[Group] = &[
    ("instructions", rows::instructions::rows),
    ("pairs", rows::pairs::rows),
    ("attached", rows::attached::rows),
    ("threads", rows::threads::rows),
    ("growth", rows::growth::rows),
    ("detours", rows::detours::rows),
    ("mappings", rows::mappings::rows),
    ("start-up", rows::start_up::rows),
    // The first groups measure the peak memory of child processes. The kernel shows the peak memory of a
    // child only if it is higher than the peak memory of edleak-bench itself. So the groups that measure peak
    // memory run first, before the remaining groups make edleak-bench large.
    ("programs", rows::programs::rows),
    ("collector", rows::collector::rows),
    ("stacks", rows::stacks::rows),
    ("month", rows::month::rows),
    ("symbols", rows::symbols::rows),
    ("analyze", rows::analyze::rows),
];

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.list {
        GROUPS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = args.only.iter().find(|only| GROUPS.iter().all(|(name, _)| name != only)) {
        anyhow::bail!("there is no group `{unknown}` (--list shows which there are)");
    }
    let mut bench = Bench::new()?;
    if let Some(Task::Budget { update }) = args.command {
        return budget::check(&bench, update);
    }
    let header = header(&bench.starter);
    header.iter().for_each(|line| println!("{line}"));
    let mut is_whole = true;
    for (name, rows) in GROUPS {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        if let Err(error) = rows(&mut bench) {
            // If one group fails, continue, because the figures of the other groups are still useful.
            eprintln!("{name}: {error:#}");
            is_whole = false;
        }
    }
    if let Some(file) = args.markdown {
        std::fs::write(file, table::markdown(&header, &bench.rows))?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The text above the table: the machine, the date, the command, and the tools that are not installed.
fn header(starter: &contender::Starter) -> Vec<String> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|x| x.1);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: u64 =
        read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
    let system = read("/etc/os-release");
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    let absent = starter.absent();
    vec![
        format!(
            "Machine: {}, {cores} cores, {} GiB, {}",
            model.unwrap_or("x86-64"),
            memory >> 20,
            system.trim_matches('"')
        ),
        format!("Date: {}", date()),
        "Command: `cargo run --release -p edleak-benches`; medians of alternating rounds".to_owned(),
        if absent.is_empty() {
            "Every peer was there".to_owned()
        } else {
            format!("Absent on this machine: {}", absent.join(", "))
        },
    ]
}

/// Today's date, from the program `date`.
fn date() -> String {
    use tools::Run;
    std::process::Command::new("date")
        .arg("+%Y-%m-%d")
        .read()
        .map_or_else(|_| "unknown".to_owned(), |date| date.trim().to_owned())
}
