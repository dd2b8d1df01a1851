//! `edleak-analyze TRACE...`: analyzes recordings and writes the report.

use crate::args::{AnalyzeArgs, ClassArg, Format, ModelArg};
use crate::output::{EXIT_ERROR, complain, refuse_overwriting, say, write_out};
use crate::profile;
use anyhow::{Context, Result, bail};
use edleak_analysis::analysis::Analysis;
use edleak_analysis::analyze;
use edleak_analysis::baseline::Baseline;
use edleak_analysis::gate::{Policy, too_little};
use edleak_analysis::history::{History, HistoryOptions};
use edleak_analysis::load::{Input, LoadOptions};
use edleak_analysis::naming::name_the_rest;
use edleak_analysis::per_mark::PerMarkOptions;
use edleak_analysis::suppressions::Suppressions;
use edleak_binary::Symbolizer;
use edleak_model::classify::Model;
use edleak_model::growth_class::Class;
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
use std::io::{self, IsTerminal};
use std::path::Path;

/// Analyzes the traces and writes one report about all of them.
pub(crate) fn run(args: &AnalyzeArgs) -> Result<u8> {
    if let Some(output) = &args.output {
        let inputs = args.traces.iter().chain(&args.baseline).chain(&args.suppressions);
        inputs.into_iter().try_for_each(|input| refuse_overwriting(input, output))?;
    }
    if args.strict && matches!(args.model, ModelArg::Edleak) {
        bail!("`--model edleak` has no level beyond reasonable doubt (leave out `--strict`)");
    }
    if args.format == Format::Html && args.output.is_none() && io::stdout().is_terminal() {
        bail!("a page cannot be shown on a terminal (give a file, like `-o report.html`)");
    }
    if args.per_mark.is_some() && matches!(args.model, ModelArg::Edleak) {
        bail!("`--model edleak` judges by time (leave out `--per-mark`)");
    }
    if args.title.is_some() && args.format != Format::Html {
        bail!("`--title` is only for a page (add `--format html`, or leave it out)");
    }
    if args.traces.iter().filter(|trace| trace.as_os_str() == "-").count() > 1 {
        bail!("stdin can be given only once (save it to a file, and give that file)");
    }
    args.span.only_for(args.format)?;
    if args.format == Format::Pprof {
        profile::refuse_several(&args.traces)?;
        profile::refuse_terminal(args.output.as_deref())?;
    }
    let symbolizer = args.symbols.symbolizer();
    let model = match args.model {
        ModelArg::Growth => Model::Growth,
        ModelArg::Edleak => Model::LeakFactor,
    };
    let policy = Policy {
        min_class: match args.min_class {
            ClassArg::Constant => Class::Constant,
            ClassArg::Log => Class::Log,
            ClassArg::Linear => Class::Linear,
            ClassArg::Exp => Class::Exp,
        },
        strict: args.strict,
        // A pprof profile contains every site, so treat this format as if the user had given `--all`.
        all: args.all || args.format == Format::Pprof,
        budget_bytes_per_s: args.budget,
        baseline: args.baseline.as_deref().map(|path| read_baseline(path, model, &symbolizer)).transpose()?,
        suppressions: args.suppressions.as_deref().map(Suppressions::read).transpose()?.unwrap_or_default(),
        per_mark: args.per_mark.clone().map(|pattern| PerMarkOptions { pattern, warm_up: args.warm_up }),
    };
    let is_html = args.format == Format::Html;
    let options = LoadOptions { keep_points: is_html || args.format == Format::Series };
    let mut recordings = Vec::new();
    let mut analyses = Vec::new();
    // If a trace cannot be read, go on with the other traces and keep the message.
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
    // If no trace could be read, write a report only in the format HTML. The HTML report lists the traces
    // that could not be read; reports in other formats do not.
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
    // If the report is written to the terminal, print no progress, because the progress would appear inside
    // the report.
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

fn read_baseline(path: &Path, model: Model, symbolizer: &Symbolizer) -> Result<Baseline> {
    let failed = || format!("failed to use baseline `{}`", path.display());
    if let Some(saved) = Baseline::read_json(path) {
        return saved.with_context(failed);
    }
    let policy = Policy { min_class: Class::Constant, ..Policy::default() };
    let (_, analysis) =
        analyze(path, LoadOptions::default(), model, &policy, symbolizer).with_context(failed)?;
    if let Some(why) = too_little(&analysis) {
        // The baseline may be too short to show leaks that already existed. The report calls a leak new if
        // the baseline does not show it, so tell the user that the baseline is undecided.
        say(format_args!("the baseline `{}` is undecided: {why}", path.display()));
    }
    Ok(Baseline::of(&analysis))
}

impl AnalyzeArgs {
    /// Makes the exporter for the format that the user chose. `failures` are messages about traces that could
    /// not be read.
    fn exporter(
        &self,
        recordings: &[Input],
        analyses: &[Analysis],
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
    /// Some formats show the memory of each site over time (its history). For such a format: the
    /// limits for the size of the history. `None`: the format needs no history.
    fn history(self) -> Option<HistoryOptions> {
        match self {
            Self::Html => Some(HistoryOptions { instants: html::INSTANTS, packed_bytes: html::PACKED_BYTES }),
            // JSON needs only the peak of each site, so keep a single instant and no counters.
            Self::Json => Some(HistoryOptions { instants: 1, packed_bytes: 0 }),
            Self::Text
            | Self::Series
            | Self::Folded
            | Self::Junit
            | Self::Sarif
            | Self::Github
            | Self::Pprof => None,
        }
    }
}

/// The root directory of the source files. In a GitHub workflow, the root directory is the workspace;
/// otherwise it is the current directory.
fn source_root() -> String {
    let current = || std::env::current_dir().ok().map(|path| path.display().to_string());
    std::env::var("GITHUB_WORKSPACE").ok().or_else(current).unwrap_or_default()
}
