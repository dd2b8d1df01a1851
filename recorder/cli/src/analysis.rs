//! The parts of edleak-record that use the code of edleak-analyze: finding the leaks of an existing trace,
//! embedding symbols into finished traces, and printing the report.

use edleak_analysis::gate::Policy;
use edleak_analysis::judge::judge_recording;
use edleak_analysis::load::{LoadOptions, load};
use edleak_analysis::site::SiteLabel;
use edleak_analysis::{analyze, rewrite};
use edleak_binary::{Options, Symbolizer};
use edleak_collector::{Error, ErrorKind};
use edleak_format::Trace;
use edleak_model::classify::Model;
use edleak_report::progress::Stage;
use edleak_report::text::{Style, Text};
use edleak_report::{Exporter, Report};
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// The sites that leak in the trace that the user gave with `--watch-from`.
pub(crate) fn leaks_of(path: &Path) -> Result<Vec<u32>, Error> {
    let recording = load(path, LoadOptions::default()).map_err(earlier_trace)?;
    let analysis = judge_recording(path.display().to_string(), &recording, Model::Growth);
    let leaks = analysis.sites.iter().filter(|site| site.is_leak());
    let number = |label: &SiteLabel| if let SiteLabel::Number(id) = label { Some(*id as u32) } else { None };
    Ok(leaks.filter_map(|site| number(&site.label)).collect())
}

/// The error for an existing trace that the user gave and that edleak-record cannot read.
pub(crate) fn earlier_trace(error: edleak_analysis::Error) -> Error {
    let remedy = error.remedy().unwrap_or("name a trace of edleak-record").to_owned();
    Error::new(ErrorKind::EarlierTrace, error.message()).with_remedy(remedy)
}

/// Stores the symbols of all addresses in a trace. The function replaces the trace file completely, or does
/// not change the file at all.
pub(crate) fn embed(path: &Path) -> edleak_analysis::Result<()> {
    let symbolizer = Symbolizer::new(Options::default());
    let trace = Trace::open(path)?;
    let _stage = Stage::begin(format!("embedding the symbols of {}", path.display()));
    rewrite::embed(&trace, path, &symbolizer).map(drop)
}

/// Prints edleak-analyze's report on these traces to stderr, because the target uses stdout.
pub(crate) fn report(paths: &[&Path]) -> edleak_analysis::Result<()> {
    let symbolizer = Symbolizer::new(Options::default());
    let policy = Policy::default();
    let (mut recordings, mut analyses) = (Vec::new(), Vec::new());
    for path in paths {
        let _stage = Stage::begin(format!("analyzing {}", path.display()));
        let (recording, analysis) =
            analyze(path, LoadOptions::default(), Model::Growth, &policy, &symbolizer)?;
        recordings.push(recording);
        analyses.push(analysis);
    }
    let rule_uses = policy.apply(&mut analyses);
    let report = Report { analyses: &analyses, recordings: &recordings, rules: &[], rule_uses, top: None };
    let text = Text { style: Style::of_environment(io::stderr().is_terminal()) };
    // edleak-record writes the report with one call, so that output of the target cannot appear inside the
    // report.
    let mut bytes = Vec::new();
    let unwritten =
        |error: io::Error| edleak_analysis::Error::new(edleak_analysis::ErrorKind::Output, error.to_string());
    text.export(&report, &mut bytes).map_err(unwritten)?;
    // If stderr is closed, the report is lost.
    let _ = io::stderr().write_all(&bytes);
    Ok(())
}
