//! edleak-analyze: arguments and exit codes (0 no leak, 1 leaks, 2 undecided, 3 error). The program is
//! `bin/edleak-analyze.rs`.

mod profile;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use edleak_analysis::baseline::Baseline;
use edleak_analysis::diff::Diff;
use edleak_analysis::findings::Findings;
use edleak_analysis::gate::{Policy, too_little};
use edleak_analysis::history::{History, HistoryOptions};
use edleak_analysis::load::{self, LoadOptions, Recording};
use edleak_analysis::naming::name_the_rest;
use edleak_analysis::suppressions::Suppressions;
use edleak_analysis::verify::Verification;
use edleak_analysis::{analyze, rewrite};
use edleak_binary::{Options, Symbolizer};
use edleak_format::{Trace, place};
use edleak_model::classify::Model;
use edleak_model::regression::Class;
use edleak_report::diff;
use edleak_report::folded::Folded;
use edleak_report::github::Github;
use edleak_report::html::{self, Html};
use edleak_report::json::Json;
use edleak_report::junit::Junit;
use edleak_report::progress::Stage;
use edleak_report::sarif::Sarif;
use edleak_report::series::SeriesLines;
use edleak_report::text::{Style, Text};
use edleak_report::{Exporter, Report};
use edleak_text::units;
use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXIT_WORSE: u8 = 1;
const EXIT_ERROR: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  edleak-analyze trace.edl                     who leaks, how fast, where
  edleak-analyze --all trace.edl               every site, leaking or not
  edleak-analyze --format json trace.edl       the same for a program
  edleak-analyze --baseline main.edl new.edl   only what is new or faster
  edleak-analyze --budget 10KB/min trace.edl   tolerate a slow leak
  edleak-analyze --format sarif -o edleak.sarif trace.edl
  edleak-analyze --format html -o report.html trace.edl   a page to look at
  edleak-analyze diff before.edl after.edl     what changed
  edleak-analyze embed trace.edl               make it need no binaries

Exit codes: 0 no leak, 1 leaks listed, 2 undecided (too little data, or sites
that cannot be told yet hold a good part of the memory), 3 error.
A trace called like a command is given with its directory: ./diff";

/// Reads a recording of edleak-record and reports which sites leak, how fast, and by which stack.
///
/// A TRACE is a file of edleak-record, edLeak's own JSON slices, or series lines (--format series). Its
/// content decides which of them it is. `-` is stdin.
#[derive(Parser)]
#[command(name = "edleak-analyze", version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    analyze: AnalyzeArgs,
}

#[derive(Subcommand)]
enum Command {
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
    Profile(profile::ProfileArgs),
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
struct AnalyzeArgs {
    /// Recordings to analyze; all go into one report.
    #[arg(value_name = "TRACE", required = true)]
    traces: Vec<PathBuf>,
    /// List, and fail on, leaks of this class and above. `exp` passes steady leaks. `log` also shows sites
    /// that grew without being a leak, `constant` every site (these fail nothing).
    #[arg(long, value_enum, default_value_t = ClassArg::Linear, value_name = "CLASS")]
    min_class: ClassArg,
    /// List, and fail on, only leaks beyond reasonable doubt; suspects pass.
    #[arg(long)]
    strict: bool,
    /// The model that judges: `growth` is edleak's own, `edleak` the formula of 2014.
    #[arg(long, value_enum, default_value_t = ModelArg::Growth)]
    model: ModelArg,
    /// The format of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// List every site.
    #[arg(long)]
    all: bool,
    /// Exit 0 also if leaks are found; errors still exit 3.
    #[arg(long)]
    exit_zero: bool,
    /// Tolerate leaks whose rates add up to no more than this, like 10KB/min.
    #[arg(long, value_name = "RATE", value_parser = units::parse_rate)]
    budget: Option<f64>,
    /// Report only leaks that are new or faster than in this recording, or in this saved JSON report.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Accept leaks that match a rule (`leak:pattern`, as for LeakSanitizer, with an optional
    /// `budget=10KB/min`).
    #[arg(long, value_name = "FILE")]
    suppressions: Option<PathBuf>,
    /// List at most this many sites of each recording.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Write the report here.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Title of the page (`--format html`); the program's name unless given.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    #[command(flatten)]
    span: profile::SpanArgs,
    #[command(flatten)]
    symbols: SymbolArgs,
}

#[derive(Args)]
struct SymbolArgs {
    /// Another directory with debug files; may be given more than once.
    #[arg(long, value_name = "DIR")]
    debug_dir: Vec<PathBuf>,
    /// Ask the servers of DEBUGINFOD_URLS for debug files.
    #[arg(long)]
    debuginfod: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ClassArg {
    Constant,
    Log,
    Linear,
    Exp,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModelArg {
    Growth,
    Edleak,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
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
enum DiffFormat {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs edleak-analyze with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` also arrive here and are no errors. If stderr is closed, nobody can
            // read the message.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_ERROR) } else { ExitCode::SUCCESS };
        }
    };
    let code = match cli.command {
        None => run_analyze(&cli.analyze),
        Some(Command::Diff { before, after, format, symbols }) => run_diff(&before, &after, format, symbols),
        Some(Command::Profile(args)) => profile::run(&args),
        Some(Command::Verify { traces }) => run_verify(&traces),
        Some(Command::Embed { trace, output, symbols }) => run_embed(&trace, output.as_deref(), symbols),
        Some(Command::Anonymize { trace, output, key }) => run_anonymize(&trace, &output, key.as_deref()),
        Some(Command::Score { corpus, births }) => run_score(&corpus, births.as_deref()),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        // The reader of the output has seen enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::from(EXIT_ERROR)
        }
    }
}

/// Prints one line, even if a name in it has line breaks. If stderr is closed, nobody can read the message.
fn say(message: impl Display) {
    let message = message.to_string().replace(['\n', '\r'], " ");
    let _ = writeln!(io::stderr(), "edleak-analyze: {message}");
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn run_analyze(args: &AnalyzeArgs) -> Result<u8> {
    if let Some(output) = &args.output {
        let inputs = args.traces.iter().chain(&args.baseline).chain(&args.suppressions);
        inputs.into_iter().try_for_each(|input| refuse_overwriting(input, output))?;
    }
    if args.strict && matches!(args.model, ModelArg::Edleak) {
        bail!("`--model edleak` has nothing beyond reasonable doubt (leave out `--strict`)");
    }
    if args.format == Format::Html && args.output.is_none() && io::stdout().is_terminal() {
        bail!("a page is nothing for a terminal (say where to write it, like `-o report.html`)");
    }
    if args.title.is_some() && args.format != Format::Html {
        bail!("only a page has a title (add `--format html`, or leave out `--title`)");
    }
    if args.traces.iter().filter(|trace| trace.as_os_str() == "-").count() > 1 {
        bail!("stdin can be read once (save it to a file, and name that)");
    }
    args.span.only_for(args.format)?;
    if args.format == Format::Pprof {
        profile::refuse_several(&args.traces)?;
        profile::refuse_terminal(args.output.as_deref())?;
    }
    let symbolizer = args.symbols.symbolizer();
    let model = match args.model {
        ModelArg::Growth => Model::Growth,
        ModelArg::Edleak => Model::Edleak,
    };
    let policy = Policy {
        min_class: match args.min_class {
            ClassArg::Constant => Class::Constant,
            ClassArg::Log => Class::Log,
            ClassArg::Linear => Class::Linear,
            ClassArg::Exp => Class::Exp,
        },
        strict: args.strict,
        // A profile names every site.
        all: args.all || args.format == Format::Pprof,
        budget_bytes_per_s: args.budget,
        baseline: args.baseline.as_deref().map(|path| read_baseline(path, model, &symbolizer)).transpose()?,
        suppressions: args.suppressions.as_deref().map(read_suppressions).transpose()?.unwrap_or_default(),
    };
    let is_html = args.format == Format::Html;
    let options = LoadOptions { keep_points: is_html || args.format == Format::Series };
    let mut recordings = Vec::new();
    let mut analyses = Vec::new();
    // A trace that cannot be read does not keep the other traces from being reported.
    let mut failures = Vec::new();
    for path in &args.traces {
        let stage = Stage::begin(format!("analyzing {}", path.display()));
        match analyze(path, options, model, &policy, &symbolizer) {
            Ok((recording, mut analysis)) => {
                let history = args.format.history();
                let _stage = match history {
                    Some(_) => next(stage, format!("reading every site of {}", path.display())),
                    None => stage,
                };
                if is_html {
                    name_the_rest(&mut analysis, &recording, &symbolizer);
                }
                if let Some(options) = history {
                    analysis.history = Some(Box::new(History::of(&recording, &analysis.sites, options)));
                }
                recordings.push(recording);
                analyses.push(analysis);
            }
            Err(error) => {
                drop(stage);
                say(&error);
                failures.push(error.to_string());
            }
        }
    }
    let has_failed = !failures.is_empty();
    // A page lists the traces that could not be read. The other formats have no place for them.
    if analyses.is_empty() && !is_html {
        return Ok(EXIT_ERROR);
    }
    let rule_uses = policy.apply(&mut analyses);
    let report = Report {
        analyses: &analyses,
        recordings: &recordings,
        rules: &policy.suppressions.rules,
        rule_uses,
        top: args.top,
    };
    complain(&symbolizer);
    let is_terminal = args.output.is_none() && io::stdout().is_terminal();
    let exporter = args.exporter(&recordings, &analyses, is_terminal, failures)?;
    // If the report goes to the terminal, the report itself is the progress.
    let is_shown = args.output.is_some() || !io::stdout().is_terminal();
    let _stage = is_shown.then(|| Stage::begin("writing the report"));
    write_out(args.output.as_deref(), |out| exporter.export(&report, out))?;
    Ok(match (has_failed, args.exit_zero) {
        (true, _) => EXIT_ERROR,
        (false, true) => 0,
        (false, false) => report.outcome().exit_code(),
    })
}

/// Ends a stage and begins the next one.
fn next(before: Stage, name: String) -> Stage {
    drop(before);
    Stage::begin(name)
}

fn run_diff(before: &Path, after: &Path, format: DiffFormat, symbols: SymbolArgs) -> Result<u8> {
    let symbolizer = symbols.symbolizer();
    let policy = Policy { min_class: Class::Constant, ..Policy::default() };
    let judge = |path: &Path| {
        let _stage = Stage::begin(format!("analyzing {}", path.display()));
        analyze(path, LoadOptions::default(), Model::Growth, &policy, &symbolizer)
    };
    let ((_, before), (_, after)) = (judge(before)?, judge(after)?);
    complain(&symbolizer);
    let diff = Diff::of(&before, &after);
    write_out(None, |out| match format {
        DiffFormat::Text => diff::write_text(&diff, Style::of_environment(false), out),
        DiffFormat::Json => diff::write_json(&diff, out),
    })?;
    Ok(diff.outcome().exit_code())
}

fn run_verify(paths: &[PathBuf]) -> Result<u8> {
    let mut code = 0;
    for path in paths {
        let trace = match open_trace(path) {
            Ok(trace) => trace,
            Err(error) => {
                say(format_args!("{error:#}"));
                code = EXIT_ERROR;
                continue;
            }
        };
        let verification = Verification::of(&trace);
        write_out(None, |out| verification.write(&path.display().to_string(), out))?;
        if !verification.is_sound() {
            code = code.max(EXIT_WORSE);
        }
    }
    Ok(code)
}

fn run_embed(path: &Path, output: Option<&Path>, symbols: SymbolArgs) -> Result<u8> {
    if output.is_none() && path.as_os_str() == "-" {
        bail!("stdin cannot be changed in place (say where to write with `-o`)");
    }
    let trace = open_trace(path)?;
    let symbolizer = symbols.symbolizer();
    let stage = Stage::begin(format!("embedding the symbols of {}", path.display()));
    let resolution = rewrite::embed(&trace, output.unwrap_or(path), &symbolizer)?;
    drop(stage);
    complain(&symbolizer);
    write_out(None, |out| {
        let all = units::plural(resolution.resolved.len() as u64, "address", "addresses");
        writeln!(out, "embedded the symbols of {all}, {} unresolved", resolution.unresolved())?;
        let open =
            resolution.outcomes.iter().filter(|outcome| outcome.unresolved > 0 && outcome.needs_attention());
        open.into_iter().try_for_each(|outcome| writeln!(out, "note: {outcome}"))
    })?;
    Ok(0)
}

fn run_anonymize(path: &Path, output: &Path, key: Option<&str>) -> Result<u8> {
    refuse_overwriting(path, output)?;
    if key == Some("") {
        // An empty variable must not pass for a secret.
        bail!("the key is empty (give a secret, or leave `--key` out)");
    }
    rewrite::anonymize(&open_trace(path)?, output, key.unwrap_or_default())?;
    Ok(0)
}

/// Refuses to overwrite an input: it is a mistake, and the recording would be lost.
fn refuse_overwriting(input: &Path, output: &Path) -> Result<()> {
    // Compared by inode: a second name of the same file, or the file behind stdin, is the same recording.
    let identity = |file: Metadata| (file.dev(), file.ino());
    let file = |path: &Path| std::fs::metadata(path).map(identity).ok();
    let stdin = || {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
        stdin.is_file().then(|| identity(stdin))
    };
    let input_file = if input.as_os_str() == "-" { stdin() } else { file(input) };
    if input_file.is_some_and(|input| file(output) == Some(input)) {
        bail!("`{}` would be overwritten by its own output (give another file with `-o`)", input.display());
    }
    Ok(())
}

fn run_score(corpus: &Path, births: Option<&Path>) -> Result<u8> {
    let score = edleak_analysis::score::run(corpus, births)?;
    write_out(None, |out| write!(out, "{score}"))?;
    Ok(0)
}

fn open_trace(path: &Path) -> Result<Trace> {
    match load::load(path, LoadOptions::default())? {
        Recording::Trace(trace) => Ok(*trace),
        Recording::Lines(_) => {
            bail!("`{}` is not a trace (give a file that edleak-record wrote)", path.display())
        }
    }
}

fn read_baseline(path: &Path, model: Model, symbolizer: &Symbolizer) -> Result<Baseline> {
    let failed = || format!("failed to use baseline `{}`", path.display());
    if let Some(saved) = Baseline::read_json(path) {
        return saved.with_context(failed);
    }
    let policy = Policy { min_class: Class::Constant, ..Policy::default() };
    let (_, analysis) =
        analyze(path, LoadOptions::default(), model, &policy, symbolizer).with_context(failed)?;
    if let Some(why) = too_little(&analysis) {
        // Leaks that the baseline does not know are reported as new.
        say(format_args!("the baseline `{}` is undecided: {why}", path.display()));
    }
    Ok(Baseline::of(&analysis))
}

/// Reports symbols that were asked for and could not be had.
fn complain(symbolizer: &Symbolizer) {
    if let Some(complaint) = symbolizer.complaint() {
        say(complaint);
    }
}

fn read_suppressions(path: &Path) -> Result<Suppressions> {
    Ok(Suppressions::read(path)?)
}

/// Runs `write` on the file at `path`, or on stdout.
fn write_out(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let Some(path) = path else {
        let mut out = BufWriter::new(io::stdout().lock());
        return write(&mut out).and_then(|()| out.flush()).context("failed to write the report");
    };
    let failed = || format!("failed to write the report to `{}` (give another file with -o)", path.display());
    // Truncate the file only under its lock: a recording may begin at any time, and would lose its first
    // slices.
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).with_context(failed)?;
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        if !place::lock(&file) {
            bail!("`{}` is still being recorded (give another file with `-o`)", path.display());
        }
        file.set_len(0).with_context(failed)?;
    }
    let mut out = BufWriter::new(file);
    write(&mut out).and_then(|()| out.flush()).with_context(failed)
}

impl SymbolArgs {
    fn symbolizer(&self) -> Symbolizer {
        Symbolizer::new(Options { debug_dirs: self.debug_dir.clone(), debuginfod: self.debuginfod })
    }
}

impl AnalyzeArgs {
    /// `failures` are messages about traces that could not be read.
    fn exporter(
        &self,
        recordings: &[Recording],
        analyses: &[Findings],
        is_terminal: bool,
        failures: Vec<String>,
    ) -> Result<Box<dyn Exporter>> {
        use Format as F;
        Ok(match self.format {
            F::Text => Box::new(Text { style: Style::of_environment(is_terminal) }),
            F::Json => Box::new(Json),
            F::Series => Box::new(SeriesLines),
            F::Folded => Box::new(Folded),
            F::Junit => Box::new(Junit),
            F::Sarif => Box::new(Sarif { root: source_root() }),
            F::Github => Box::new(Github { root: source_root() }),
            F::Pprof => Box::new(profile::pprof(&recordings[0], &analyses[0], self)?),
            F::Html => Box::new(Html { title: self.title.clone(), failures }),
        })
    }
}

impl Format {
    /// The part of every site's history that the format prints.
    fn history(self) -> Option<HistoryOptions> {
        match self {
            Self::Html => Some(HistoryOptions { instants: html::INSTANTS, packed_bytes: html::PACKED_BYTES }),
            // Only the peaks.
            Self::Json => Some(HistoryOptions { instants: 1, packed_bytes: 0 }),
            _ => None,
        }
    }
}

/// The root of the sources: the workspace in a GitHub workflow, otherwise the current directory.
fn source_root() -> String {
    let current = || std::env::current_dir().ok().map(|path| path.display().to_string());
    std::env::var("GITHUB_WORKSPACE").ok().or_else(current).unwrap_or_default()
}
