//! The command lines of edleak-analyze and of its commands.

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use edleak_analysis::profile::{At, Span};
use edleak_binary::{Options, Symbolizer};
use edleak_text::units;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  edleak-analyze trace.edl                     the leaks, their rates and stacks
  edleak-analyze --all trace.edl               every site, leaking or not
  edleak-analyze --format json trace.edl       the same for a program
  edleak-analyze --baseline main.edl new.edl   only leaks that are new or faster
  edleak-analyze --budget 10KB/min trace.edl   tolerate a slow leak
  edleak-analyze --format sarif -o edleak.sarif trace.edl
  edleak-analyze --format html -o report.html trace.edl   a page to look at
  edleak-analyze --per-mark request trace.edl  what each request leaves behind
  edleak-analyze diff before.edl after.edl     the differences
  edleak-analyze embed trace.edl               store the symbols in the trace

Exit codes: 0 no leak, 1 leaks listed, 2 undecided (too little data, or
undecided sites hold a good part of the memory), 3 error.
For a trace with the name of a command, give its directory: ./diff";

/// Reads a recording of edleak-record and reports which sites leak, how fast, and by which stack.
///
/// A TRACE is a file of edleak-record, edLeak's own JSON slices, or series lines (--format series). Its
/// content decides which of them it is. `-` is stdin.
#[derive(Parser)]
#[command(name = "edleak-analyze", version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, max_term_width = 80)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) analyze: AnalyzeArgs,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Compare two recordings: which leaks are new, gone or faster (exits 1 if any is new or faster, 2 if
    /// undecided).
    Diff {
        /// The earlier recording.
        before: PathBuf,
        /// The later recording.
        after: PathBuf,
        /// The format of the comparison.
        #[arg(long, value_enum, default_value_t = DiffFormat::Text)]
        format: DiffFormat,
        #[command(flatten)]
        symbols: SymbolArgs,
    },
    /// Show the sites that held memory at an instant, that allocate most or free at once, or the memory that
    /// a range of time left behind.
    Profile(ProfileArgs),
    /// Check a trace for damage (exits 1 if a part is damaged).
    Verify {
        /// The traces.
        #[arg(value_name = "TRACE", required = true)]
        traces: Vec<PathBuf>,
    },
    /// Put functions, files and lines into a trace, so that it no longer needs the binaries.
    Embed {
        /// The trace.
        trace: PathBuf,
        /// Write here instead of changing the trace.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        symbols: SymbolArgs,
    },
    /// Replace names and paths in a trace by stable hashes.
    Anonymize {
        /// The trace.
        trace: PathBuf,
        /// Write the anonymous trace here.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// A secret. Without it, anyone who guesses a name can confirm it.
        #[arg(long)]
        key: Option<String>,
    },
    /// Score the model on a labelled corpus.
    Score {
        /// Labelled series lines.
        corpus: PathBuf,
        /// The births of the survivors, by the same ids.
        births: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct AnalyzeArgs {
    /// Recordings to analyze; all go into one report.
    #[arg(value_name = "TRACE", required = true)]
    pub(crate) traces: Vec<PathBuf>,
    /// List, and fail on, leaks of this class and above. `exp` passes steady leaks. `log` also shows sites
    /// that grew without being a leak, `constant` every site (these fail nothing).
    #[arg(long, value_enum, default_value_t = ClassArg::Linear, value_name = "CLASS")]
    pub(crate) min_class: ClassArg,
    /// List, and fail on, only leaks beyond reasonable doubt; suspects pass.
    #[arg(long)]
    pub(crate) strict: bool,
    /// The model that judges: `growth` is edleak's own, `edleak` the formula of 2014.
    #[arg(long, value_enum, default_value_t = ModelArg::Growth)]
    pub(crate) model: ModelArg,
    /// The format of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// List every site.
    #[arg(long)]
    pub(crate) all: bool,
    /// Exit 0 also if leaks are found; errors still exit 3.
    #[arg(long)]
    pub(crate) exit_zero: bool,
    /// Tolerate leaks whose rates add up to no more than this, like 10KB/min.
    #[arg(long, value_name = "RATE", value_parser = units::parse_rate)]
    pub(crate) budget: Option<f64>,
    /// Report only leaks that are new or faster than in this recording, or in this saved JSON report.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Accept leaks that match a rule (`leak:pattern`, as for LeakSanitizer, with an optional
    /// `budget=10KB/min`).
    #[arg(long, value_name = "FILE")]
    pub(crate) suppressions: Option<PathBuf>,
    /// List at most this many entries of each recording: leaks first, then other sites.
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// Judge by the iterations between marks of this name (`*` and `?`), not by time. The report gives the
    /// memory that each iteration leaves behind.
    ///
    /// The program sets marks with `edleak_mark("NAME")` of edleak.h, or `edleak-record mark NAME` sets them.
    /// A verdict needs at least eight iterations.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["budget", "baseline", "at", "from", "to"])]
    pub(crate) per_mark: Option<String>,
    /// Do not judge the first N iterations, because caches fill in them [default: a third of all].
    #[arg(long, value_name = "N", requires = "per_mark")]
    pub(crate) warm_up: Option<u64>,
    /// Write the report here.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Title of the page (`--format html`); the program's name unless given.
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    #[command(flatten)]
    pub(crate) span: SpanArgs,
    #[command(flatten)]
    pub(crate) symbols: SymbolArgs,
}

#[derive(Args)]
pub(crate) struct SymbolArgs {
    /// Another directory with debug files; may be given more than once.
    #[arg(long, value_name = "DIR")]
    pub(crate) debug_dir: Vec<PathBuf>,
    /// Ask the servers of DEBUGINFOD_URLS for debug files.
    #[arg(long)]
    pub(crate) debuginfod: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ClassArg {
    Constant,
    Log,
    Linear,
    Exp,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ModelArg {
    Growth,
    Edleak,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a person.
    Text,
    /// For a program; a stable contract.
    Json,
    /// Every point of every site, one JSON object a line.
    Series,
    /// Stacks weighted by leaked bytes, for flame graphs.
    Folded,
    /// JUnit XML, for CI systems.
    Junit,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// Annotations in a GitHub workflow.
    Github,
    /// A gzipped profile for `go tool pprof`: of an instant with `--at`, of a range with `--from` and `--to`.
    Pprof,
    /// A page for the browser: one file, needs no server and no network; give `-o`.
    Html,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum DiffFormat {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

impl SymbolArgs {
    pub(crate) fn symbolizer(&self) -> Symbolizer {
        Symbolizer::new(Options { debug_dirs: self.debug_dir.clone(), debuginfod: self.debuginfod })
    }
}

#[derive(Args)]
pub(crate) struct ProfileArgs {
    /// The trace.
    pub(crate) trace: PathBuf,
    /// The figure that ranks the sites.
    #[arg(long, value_enum, default_value_t = By::Live)]
    pub(crate) by: By,
    #[command(flatten)]
    pub(crate) span: SpanArgs,
    /// The format of the profile.
    #[arg(long, value_enum, default_value_t = ProfileFormat::Text)]
    pub(crate) format: ProfileFormat,
    /// List at most this many sites; text lists 20 and sums up the others, JSON lists all.
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// Write the profile here.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) symbols: SymbolArgs,
}

/// The part of the record that a profile covers.
#[derive(Args)]
pub(crate) struct SpanArgs {
    /// Profile this instant: `peak`, `end`, or a time since the recording began, like 90s [default: end;
    /// `profile`: peak].
    #[arg(long, value_name = "WHEN", value_parser = parse_at, conflicts_with_all = ["from", "to"])]
    pub(crate) at: Option<At>,
    /// Profile the change from this time on.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) from: Option<u64>,
    /// ... up to this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) to: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum By {
    /// Live bytes; for a range, their growth.
    Live,
    /// Bytes allocated.
    Allocated,
    /// Live allocations; for a range, their growth.
    Count,
    /// Allocations that were freed before the next slice.
    Churn,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileFormat {
    /// For a person.
    Text,
    /// For a program.
    Json,
    /// For `go tool pprof`.
    Pprof,
}

fn parse_at(text: &str) -> Result<At, String> {
    match text {
        "peak" => Ok(At::Peak),
        "end" => Ok(At::End),
        time => match parse_time(time) {
            Ok(time_ns) => Ok(At::Time(time_ns)),
            Err(_) => Err(format!("`{text}` is not an instant (write peak, end, or a time such as 90s)")),
        },
    }
}

fn parse_time(text: &str) -> Result<u64, edleak_text::Error> {
    // In nanoseconds, a time of more than 584 years does not fit into 64 bits. No recording takes 584 years,
    // so the greatest number stands for all longer times.
    units::parse_duration(text).map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

impl SpanArgs {
    fn is_given(&self) -> bool {
        self.at.is_some() || self.from.is_some() || self.to.is_some()
    }

    pub(crate) fn span(&self, default: At) -> Span {
        match (self.from, self.to) {
            (None, None) => Span::Instant(self.at.unwrap_or(default)),
            (from_ns, to_ns) => Span::Range { from_ns, to_ns },
        }
    }

    /// Refuses `--at`, `--from` and `--to` for all formats except pprof, because only a pprof profile can
    /// cover a part of the record.
    pub(crate) fn only_for(&self, format: Format) -> Result<()> {
        if self.is_given() && format != Format::Pprof {
            bail!(
                "`--at`, `--from` and `--to` belong to a profile (use `--format pprof`, or `edleak-analyze \
                 profile`)"
            );
        }
        Ok(())
    }
}
