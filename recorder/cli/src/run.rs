//! One run of edleak-record: this file turns the arguments into a recording, and prints the result at the
//! end.

use crate::analysis;
use crate::args::Args;
use crate::embedded::LIBRARY;
use crate::metrics::Metrics;
use edleak_analysis::site::INJECTED_NAME;
use edleak_collector::attach::Settings;
use edleak_collector::detour::Prefixes;
use edleak_collector::follow::Outcome;
use edleak_collector::recording::Summary;
use edleak_collector::rules::code_options::CodeOptions;
use edleak_collector::rules::wrappers::WrapperSet;
use edleak_collector::start::attach::record_process;
use edleak_collector::start::run::{Failed, Recorded, RunOptions, record, start_idle};
use edleak_collector::sys::own_child::Ended;
use edleak_collector::sys::say::say;
use edleak_collector::sys::shell;
use edleak_collector::watch::request::WatchSet;
use edleak_collector::{Error, ErrorKind};
use edleak_format::Losses;
use edleak_session::ENV_ONLY;
use edleak_text::units;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Records the program of `args`.
pub(crate) fn run(args: &Args) -> ExitCode {
    match recorded(args) {
        Ok(code) => code,
        Err(Failed { exit_code, error }) => {
            say(error);
            ExitCode::from(exit_code)
        }
    }
}

fn recorded(args: &Args) -> Result<ExitCode, Failed> {
    if args.idle {
        check_program_word(args)?;
        return Err(start_idle(&args.program, Some(LIBRARY)).into());
    }
    let options = options(args)?;
    let metrics = args.metrics.clone().map(|file| Metrics::create(file, args.metrics_top));
    let mut metrics = metrics.transpose()?;
    let started = || {
        if let Some(metrics) = &mut metrics {
            metrics.start();
        }
    };
    let recorded = match args.pid {
        Some(pid) => record_process(pid, &options, started)?,
        None => record(&options, started)?,
    };
    if let Some(metrics) = metrics {
        let traces = in_place(&recorded.outcome.summaries);
        metrics.finish(&traces.map(|summary| summary.path.as_path()).collect::<Vec<_>>());
    }
    finish(args, recorded)
}

/// Refuses a command line if the first argument after the options is not a program.
fn check_program_word(args: &Args) -> Result<(), Error> {
    let [program, ..] = args.program.as_slice() else {
        return Err(Error::new(ErrorKind::Value, "no program").with_remedy("name one"));
    };
    if is_misspelt_option(program) {
        let remedy = format!("see --help; a program of that name is given as `-- {}`", shell::word(program));
        let program = program.display();
        return Err(Error::new(ErrorKind::Value, format!("unknown option `{program}`")).with_remedy(remedy));
    }
    Ok(())
}

/// Turns the arguments into the options of the run.
fn options(args: &Args) -> Result<RunOptions, Error> {
    /// The default of `--attach-timeout`.
    const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
    let unusable = |message: &str, remedy: &str| Error::new(ErrorKind::Value, message).with_remedy(remedy);
    if let Some(option) = args.without_pid() {
        let remedy = format!("give --pid PID, or leave {option} out");
        return Err(unusable(&format!("{option} has no effect without --pid"), &remedy));
    }
    if args.pid.is_none() {
        check_program_word(args)?;
    }
    if args.output == Path::new("-") {
        let message = "a trace cannot be written to standard output";
        return Err(unusable(message, "name a file; one called `-` is `./-`"));
    }
    Ok(RunOptions {
        program: args.program.clone(),
        output: args.output.clone(),
        period: args.period,
        duration: args.duration,
        then_terminate: args.then_terminate,
        children: args.children,
        only: only(args)?,
        capacity_bytes: args.size,
        code: code_options(args)?,
        auto_watch: (!args.no_watch).then_some(args.watch_budget),
        inject_bytes_per_s: args.inject_leak,
        domains: args.domains,
        attach: Settings {
            timeout: args.attach_timeout.unwrap_or(ATTACH_TIMEOUT),
            die_at: args.die_at.clone(),
        },
        attach_copy: args.copy_into.clone(),
        quiet: args.quiet,
        embedded: Some(LIBRARY),
    })
}

/// The patterns of `--only`; if the user did not give `--only`, the patterns of EDLEAK_ONLY.
fn only(args: &Args) -> Result<Vec<String>, Error> {
    let mut patterns = args.only.clone();
    if patterns.is_empty() {
        let text = std::env::var(ENV_ONLY).unwrap_or_default();
        patterns = text.split(':').filter(|pattern| !pattern.is_empty()).map(str::to_owned).collect();
    }
    match patterns.iter().find(|pattern| pattern.is_empty() || pattern.contains(':')) {
        Some(pattern) => {
            let message = format!("`{pattern}` is no pattern for --only");
            Err(Error::new(ErrorKind::Value, message).with_remedy("repeat --only for each pattern"))
        }
        None => Ok(patterns),
    }
}

/// Ends the run after the recording: embeds symbols into the traces, and prints the summary lines and the
/// report.
fn finish(args: &Args, recorded: Recorded) -> Result<ExitCode, Failed> {
    let Recorded { mut outcome, unused_wrappers, blind } = recorded;
    // If `blind` is set, the trace contains nothing about the program. Print only the failure message then,
    // because a summary line would suggest that the recording succeeded.
    if blind.is_some() {
        outcome.summaries.pop();
    }
    if args.embed_symbols {
        embed_symbols(&mut outcome.summaries);
    }
    report(args, &outcome, &unused_wrappers);
    let traces: Vec<&Path> = in_place(&outcome.summaries).map(|summary| summary.path.as_path()).collect();
    if args.report
        && !traces.is_empty()
        && let Err(error) = analysis::report(&traces)
    {
        say(format_args!("no report: {error}"));
    }
    match blind {
        Some(failed) => Err(failed),
        None => Ok(outcome.ended.map_or(ExitCode::SUCCESS, |ended: Ended| ended.exit_code())),
    }
}

/// Whether the argument in the place of the program is a misspelt option: it begins with `-`, and no earlier
/// argument is `--`.
fn is_misspelt_option(program: &OsStr) -> bool {
    let is_option = program.as_encoded_bytes().starts_with(b"-");
    is_option && !std::env::args_os().take_while(|word| word != program).any(|word| word == "--")
}

/// The traces that are still at their paths, because no other process has moved or deleted them.
fn in_place(summaries: &[Summary]) -> impl Iterator<Item = &Summary> {
    summaries.iter().filter(|summary| !summary.is_moved)
}

fn embed_symbols(summaries: &mut [Summary]) {
    for summary in summaries.iter_mut().filter(|summary| !summary.is_moved) {
        match analysis::embed(&summary.path) {
            Ok(()) => {
                summary.bytes = std::fs::metadata(&summary.path).map_or(summary.bytes, |file| file.len())
            }
            Err(error) => say(format_args!("no symbols embedded: {error}")),
        }
    }
}

/// The wrappers and watches that the command line specifies.
fn code_options(args: &Args) -> Result<CodeOptions, Error> {
    let mut wrappers = if args.no_wrappers { WrapperSet::none() } else { WrapperSet::builtin() };
    for pattern in &args.wrapper {
        wrappers.add(pattern)?;
    }
    let mut allocators = Prefixes::default();
    for prefix in &args.allocator {
        allocators.add(prefix)?;
    }
    let mut watch = WatchSet::new();
    for spec in &args.watch {
        watch.add(spec)?;
    }
    for trace in &args.watch_from {
        watch.add_sites_of(trace, &analysis::leaks_of(trace)?)?;
    }
    Ok(CodeOptions { wrappers, allocators, walk_stacks: !watch.is_empty(), watch })
}

fn report(args: &Args, outcome: &Outcome, unused_wrappers: &[String]) {
    if args.quiet {
        return;
    }
    for summary in &outcome.summaries {
        say(sentence(summary));
    }
    say_unmatched(&outcome.summaries);
    // Report the patterns of `--wrapper` that match no function. But if edleak recorded no program, report
    // nothing, because edleak did not search any module for the patterns.
    let unused: Vec<_> = unused_wrappers.iter().map(|pattern| format!("`{pattern}`")).collect();
    if !unused.is_empty() && !outcome.summaries.is_empty() {
        say(format_args!(
            "no function of any module matches --wrapper {} (names are as in edleak-analyze's stacks)",
            unused.join(", ")
        ));
    }
}

/// Reports watch requests that match nothing in any of the recorded programs. The traces do not contain the
/// watch requests.
fn say_unmatched(summaries: &[Summary]) {
    let [first, rest @ ..] = summaries else { return };
    let is_nowhere = |spec: &&String| rest.iter().all(|other| other.unmatched_watches.contains(spec));
    let nowhere: Vec<_> =
        first.unmatched_watches.iter().filter(is_nowhere).map(|spec| format!("`{spec}`")).collect();
    let (shown, more) = nowhere.split_at(nowhere.len().min(3));
    if !shown.is_empty() {
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        say(format_args!(
            "nothing to watch at {}{more}: no module contains it (an inlined function has no address: watch \
             its caller; offsets of an older build no longer apply: record again, or name the function)",
            shown.join(", ")
        ));
    }
}

/// The summary line of a trace.
fn sentence(summary: &Summary) -> String {
    let Summary {
        path,
        bytes,
        slices,
        sites,
        duration,
        losses,
        injected_bytes_per_s,
        is_replaced,
        is_moved,
        children,
        attached,
        ..
    } = summary;
    let path = shell::path(path);
    // An attached process also frees allocations from before the recording, so do not report these frees as
    // losses.
    let losses = Losses { unknown_frees: if *attached { 0 } else { losses.unknown_frees }, ..*losses };
    let next = if *is_moved {
        format!("{path} is not this trace: the trace was moved or deleted during the recording")
    } else {
        format!("next: edleak-analyze {path}")
    };
    let mut line = format!(
        "{} of {} in {}; {} is {}{}; {next}",
        units::plural(*slices, "slice", "slices"),
        units::plural(*sites as u64, "site", "sites"),
        units::duration(duration.as_secs_f64()),
        if *is_moved { "the trace" } else { &path },
        units::bytes(*bytes as f64),
        missed(&losses),
    );
    if *sites == 0 {
        line.push_str(" (no allocation was seen)");
    }
    if *attached {
        line.push_str(" (the process ran before: allocations from before are unknown)");
    }
    if children.unrequested > 0 {
        line.push_str(" (its child processes were not recorded; --children records them)");
    }
    if *is_replaced {
        line.push_str(
            " (then the process executed a program that is not recorded: record that program itself; it must \
             inherit LD_PRELOAD and EDLEAK_SESSION, and be linked dynamically)",
        );
    }
    if let Some(rate) = injected_bytes_per_s {
        line.push_str(&format!(" (--inject-leak added {INJECTED_NAME} of {})", units::rate(*rate)));
    }
    line
}

fn missed(losses: &Losses) -> String {
    let parts = [
        (losses.unknown_frees, "unknown free", "unknown frees"),
        (losses.lost_module_events, "lost module event", "lost module events"),
        (losses.other_site_allocs, "allocation beyond the site table", "allocations beyond the site table"),
        (losses.untracked_allocs, "untracked allocation", "untracked allocations"),
        (losses.missed_slices, "lost slice", "lost slices"),
        (losses.lost_stacks, "lost stack", "lost stacks"),
        (losses.unrecorded_images, "unrecorded program", "unrecorded programs"),
    ];
    let seen = parts.iter().filter(|(count, ..)| *count > 0);
    seen.map(|(count, one, many)| format!(", {}", units::plural(*count, one, many))).collect()
}
