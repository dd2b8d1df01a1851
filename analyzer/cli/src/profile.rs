//! Runs the command `edleak-analyze profile`, and makes the exporter for the report format pprof.

use crate::args::{AnalyzeArgs, By, ProfileArgs, ProfileFormat};
use crate::output::{complain, refuse_overwriting, write_out};
use anyhow::{Context, Result, bail};
use edleak_analysis::analysis::Analysis;
use edleak_analysis::analyze;
use edleak_analysis::gate::Policy;
use edleak_analysis::load::{Input, LoadOptions};
use edleak_analysis::profile::{At, Order, Profile, Span};
use edleak_format::Trace;
use edleak_model::classify::Model;
use edleak_report::pprof::{Pprof, write_pprof};
use edleak_report::profile::ProfileReport;
use edleak_report::text::Style;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

/// Fails if there are several traces, because a pprof file can describe only one process.
pub(crate) fn refuse_several(traces: &[PathBuf]) -> Result<()> {
    if traces.len() > 1 {
        bail!("a pprof profile covers one trace (run edleak-analyze once for each trace)");
    }
    Ok(())
}

/// Fails if the output is a terminal, because the output is compressed and nobody could read it there.
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
        refuse_overwriting(&args.trace, output)?;
    }
    let symbolizer = args.symbols.symbolizer();
    // Any site may appear in the profile, so the analysis must resolve the symbols of all sites.
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
    // If the user gives no time, live memory is shown at the peak. Allocated and freed memory are counted
    // from the start of the record. So if the user asks for allocations or churn and gives no time, the
    // profile covers the whole record.
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

/// Makes the exporter for `--format pprof`.
pub(crate) fn pprof(recording: &Input, analysis: &Analysis, args: &AnalyzeArgs) -> Result<Pprof> {
    let input = &args.traces[0];
    let span = args.span.span(At::End);
    let profile = profile_of(trace_of(recording, input)?, analysis, span, Order::Live, input)?;
    Ok(Pprof { profile })
}

fn profile_of(trace: &Trace, analysis: &Analysis, span: Span, order: Order, input: &Path) -> Result<Profile> {
    Profile::of(trace, analysis, span, order)
        .with_context(|| format!("failed to profile `{}`", input.display()))
}

fn trace_of<'a>(recording: &'a Input, input: &Path) -> Result<&'a Trace> {
    match recording {
        Input::Trace(trace) => Ok(trace),
        Input::Lines(_) => {
            bail!("`{}` is not a trace (give a file that edleak-record wrote)", input.display())
        }
    }
}
