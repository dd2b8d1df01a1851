//! The commands that compare, check and change traces.

use crate::args::{DiffFormat, SymbolArgs};
use crate::output::{EXIT_ERROR, EXIT_WORSE, complain, open_trace, refuse_overwriting, say, write_out};
use anyhow::{Result, bail};
use edleak_analysis::diff::Diff;
use edleak_analysis::gate::Policy;
use edleak_analysis::load::LoadOptions;
use edleak_analysis::verify::Verification;
use edleak_analysis::{analyze, rewrite};
use edleak_model::classify::Model;
use edleak_model::growth_class::Class;
use edleak_report::diff;
use edleak_report::progress::Stage;
use edleak_report::text::Style;
use edleak_text::units;
use std::path::{Path, PathBuf};

/// Compares two recordings and prints how each leak changed.
pub(crate) fn diff(before: &Path, after: &Path, format: DiffFormat, symbols: SymbolArgs) -> Result<u8> {
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

/// Checks traces for damage.
pub(crate) fn verify(paths: &[PathBuf]) -> Result<u8> {
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

/// Embeds symbols into a trace.
pub(crate) fn embed(path: &Path, output: Option<&Path>, symbols: SymbolArgs) -> Result<u8> {
    if output.is_none() && path.as_os_str() == "-" {
        bail!("stdin cannot be changed in place (give a file with `-o`)");
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

/// Replaces the names in a trace by hashes.
pub(crate) fn anonymize(path: &Path, output: &Path, key: Option<&str>) -> Result<u8> {
    refuse_overwriting(path, output)?;
    if key == Some("") {
        // If the key comes from a shell variable, the variable may be empty by mistake. With an empty key,
        // anyone who guesses a name could compute its hash and so confirm the guess.
        bail!("the key is empty (give a secret, or leave `--key` out)");
    }
    rewrite::anonymize(&open_trace(path)?, output, key.unwrap_or_default())?;
    Ok(0)
}

/// Tests the model with a corpus of labelled series, and prints how many verdicts are right.
pub(crate) fn score(corpus: &Path, births: Option<&Path>) -> Result<u8> {
    let score = edleak_analysis::score::run(corpus, births)?;
    write_out(None, |out| write!(out, "{score}"))?;
    Ok(0)
}
