//! `edleak-analyze profile`, and the options for the part of a trace that a profile covers.

use crate::{AnalyzeArgs, Format, SymbolArgs, complain, write_out};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use edleak_analysis::analyze;
use edleak_analysis::findings::Findings;
use edleak_analysis::gate::Policy;
use edleak_analysis::load::{LoadOptions, Recording};
use edleak_analysis::profile::{At, Order, Profile, Span};
use edleak_format::Trace;
use edleak_model::classify::Model;
use edleak_report::pprof::{Pprof, write_pprof};
use edleak_report::profile::ProfileReport;
use edleak_report::text::Style;
use edleak_text::units;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct ProfileArgs {
    /// The trace.
    trace: PathBuf,
    /// The figure that ranks the sites.
    #[arg(long, value_enum, default_value_t = By::Live)]
    by: By,
    #[command(flatten)]
    span: SpanArgs,
    /// The format of the profile.
    #[arg(long, value_enum, default_value_t = ProfileFormat::Text)]
    format: ProfileFormat,
    /// List at most this many sites; text lists 20 and sums up the others, JSON lists all.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Write the profile here.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    symbols: SymbolArgs,
}

/// The part of the record that a profile covers.
#[derive(Args)]
pub(crate) struct SpanArgs {
    /// Profile this instant: `peak`, `end`, or a time since the recording began, like 90s [default: end;
    /// `profile`: peak].
    #[arg(long, value_name = "WHEN", value_parser = parse_at, conflicts_with_all = ["from", "to"])]
    at: Option<At>,
    /// Profile the change from this time on.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<u64>,
    /// ... up to this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
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
enum ProfileFormat {
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
            Err(_) => Err(format!("`{text}` is no instant (write peak, end, or a time such as 90s)")),
        },
    }
}

fn parse_time(text: &str) -> Result<u64, edleak_text::Error> {
    // A time beyond 584 years lies outside every record.
    units::parse_duration(text).map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

impl SpanArgs {
    fn is_given(&self) -> bool {
        self.at.is_some() || self.from.is_some() || self.to.is_some()
    }

    fn span(&self, default: At) -> Span {
        match (self.from, self.to) {
            (None, None) => Span::Instant(self.at.unwrap_or(default)),
            (from_ns, to_ns) => Span::Range { from_ns, to_ns },
        }
    }

    /// Refuses a span for the other formats, because they cover the whole record.
    pub(crate) fn only_for(&self, format: Format) -> Result<()> {
        if self.is_given() && format != Format::Pprof {
            bail!(
                "`--at`, `--from` and `--to` belong to a profile (use `--format pprof`, or `edleak-analyze profile`)"
            );
        }
        Ok(())
    }
}

/// Refuses several traces: a pprof file covers one process.
pub(crate) fn refuse_several(traces: &[PathBuf]) -> Result<()> {
    if traces.len() > 1 {
        bail!("a pprof profile is about one trace (give one, and one output each)");
    }
    Ok(())
}

/// Refuses to write to a terminal: compressed bytes are not readable.
pub(crate) fn refuse_terminal(output: Option<&Path>) -> Result<()> {
    if output.is_none() && io::stdout().is_terminal() {
        bail!("a pprof profile is not for a terminal (give a file with `-o`, like `-o profile.pb.gz`)");
    }
    Ok(())
}

/// Runs `edleak-analyze profile`.
pub(crate) fn run(args: &ProfileArgs) -> Result<u8> {
    if args.format == ProfileFormat::Pprof {
        refuse_terminal(args.output.as_deref())?;
    }
    if let Some(output) = &args.output {
        crate::refuse_overwriting(&args.trace, output)?;
    }
    let symbolizer = args.symbols.symbolizer();
    // Any site may appear in the profile, so the analysis must name all sites.
    let policy = Policy { all: true, ..Policy::default() };
    let (recording, analysis) =
        analyze(&args.trace, LoadOptions::default(), Model::Growth, &policy, &symbolizer)?;
    let trace = trace_of(&recording, &args.trace)?;
    let order = match args.by {
        By::Live => Order::Live,
        By::Allocated => Order::Allocated,
        By::Count => Order::Count,
        By::Churn => Order::Churn,
    };
    // Totals over time are asked for the whole record, not for an instant.
    let default = match args.by {
        By::Live | By::Count => At::Peak,
        By::Allocated | By::Churn => At::End,
    };
    let profile = profile_of(trace, &analysis, args.span.span(default), order, &args.trace)?;
    complain(&symbolizer);
    let report = ProfileReport { analysis: &analysis, profile: &profile, top: args.top };
    let is_terminal = args.output.is_none() && io::stdout().is_terminal();
    write_out(args.output.as_deref(), |out| match args.format {
        ProfileFormat::Text => report.write_text(Style::of_environment(is_terminal), out),
        ProfileFormat::Json => report.write_json(out),
        ProfileFormat::Pprof => write_pprof(&analysis, trace, &profile, out),
    })?;
    Ok(0)
}

/// The exporter of `--format pprof`.
pub(crate) fn pprof(recording: &Recording, analysis: &Findings, args: &AnalyzeArgs) -> Result<Pprof> {
    let input = &args.traces[0];
    let span = args.span.span(At::End);
    let profile = profile_of(trace_of(recording, input)?, analysis, span, Order::Live, input)?;
    Ok(Pprof { profile })
}

fn profile_of(trace: &Trace, analysis: &Findings, span: Span, order: Order, input: &Path) -> Result<Profile> {
    Profile::of(trace, analysis, span, order)
        .with_context(|| format!("failed to profile `{}`", input.display()))
}

fn trace_of<'a>(recording: &'a Recording, input: &Path) -> Result<&'a Trace> {
    match recording {
        Recording::Trace(trace) => Ok(trace),
        Recording::Lines(_) => {
            bail!("`{}` is not a trace (give a file that edleak-record wrote)", input.display())
        }
    }
}
