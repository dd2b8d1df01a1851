//! One run of edleak-record: checks, starts, follows, reports.

use crate::after;
use crate::args::Args;
use crate::check;
use crate::follow::{Follower, Outcome, Plan, Root};
use crate::guide::{Guide, Wishes};
use crate::launch;
use crate::limits;
use crate::offer::Offer;
use crate::output;
use crate::process;
use crate::recording::{Options, Summary};
use crate::say::say;
use crate::signals::{self, Ended, Signal, Signals};
use crate::watch::WatchSet;
use crate::wrappers::WrapperSet;
use edleak_analysis::analysis::INJECTED_NAME;
use edleak_format::{Losses, MIN_CAPACITY_BYTES};
use edleak_text::units;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// edleak-record itself failed.
const FAILED: u8 = 125;
/// How long a target that was sent SIGTERM may take to end.
const TERMINATION: Duration = Duration::from_secs(10);

/// Records the program of `args`.
pub fn run(args: &Args) -> ExitCode {
    match record(args) {
        Ok(code) => code,
        Err((code, message)) => {
            say(message);
            ExitCode::from(code)
        }
    }
}

fn record(args: &Args) -> Result<ExitCode, (u8, String)> {
    let failed = |message: String| (FAILED, message);
    let [program, ..] = args.program.as_slice() else { return Err(failed("no program (name one)".into())) };
    if is_misspelt_option(program) {
        let program = program.display();
        return Err(failed(format!(
            "unknown option `{program}` (see --help; a program of that name is given as `-- {program}`)"
        )));
    }
    if args.output == Path::new("-") {
        return Err(failed(
            "a trace cannot be written to standard output (name a file; one called `-` is `./-`)".into(),
        ));
    }
    let checked = check::check_program(program, std::env::var_os("PATH").as_deref())
        .map_err(|refusal| (refusal.exit_code(), refusal.to_string()))?;
    if args.size < MIN_CAPACITY_BYTES {
        let least = MIN_CAPACITY_BYTES >> 10;
        let asked = if args.size.is_multiple_of(1024) {
            format!("{}k", args.size >> 10)
        } else {
            args.size.to_string()
        };
        return Err(failed(format!("--size {asked} is too small (use at least {least}k)")));
    }
    let wishes = Arc::new(wishes(args).map_err(failed)?);
    let preload = launch::find_preload().map_err(failed)?;
    // From here on: a thread that was started before would take the signals meant for the loop, and a file that may not grow is an error
    // and not our death.
    let mut signals = Signals::block().map_err(|error| {
        failed(limits::explain("signals cannot be passed on to the target", &error, "see `ulimit -a`"))
    })?;
    let output = output::followed(&args.output);
    // The trace is made now, so that what stands in its way is known before anything is started, and nobody else takes it.
    let (writer, reserved) =
        output::reserve(&output, args.size).map_err(|refusal| failed(refusal.to_string()))?;
    let stopped = |what: &str, error: &std::io::Error| {
        reserved.give_back();
        failed(limits::explain(what, error, "see `ulimit -a`"))
    };
    let guide = Guide::new(Arc::clone(&wishes));
    guide.prepare(own_libc().into_iter().chain([checked.image.clone()]).collect());
    let plan = Plan {
        options: Options {
            command: args.program.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            period: args.period,
            capacity_bytes: args.size,
            auto_watch: args.auto_watch,
            inject_bytes_per_s: args.inject_leak,
        },
        output: output.clone(),
        duration: args.duration,
        children: args.children,
        guide,
    };
    let offer = Offer::create(args.children)
        .map_err(|error| stopped("no memory to share with the target", &error))?;
    let held = launch::hold(&checked.path, &args.program, &preload, &offer.path(), &signals)
        .map_err(|error| stopped("no process for the target", &error))?;
    let pid = held.pid();
    offer.set_root(pid);
    if let Err(error) = held.release() {
        reserved.give_back();
        return Err((126, format!("failed to start `{}`: {error}", checked.path.display())));
    }
    reserved.settle();
    if !args.quiet {
        say(format_args!("recording {} (pid {pid}) into {}", shown(&args.program), args.output.display()));
        if let Some(own) = &checked.own_malloc {
            say(format_args!(
                "it brings an allocator of its own: allocations through `{}` are not seen (build it without)",
                own.symbol
            ));
        }
    }
    let mut outcome = Follower::new(&plan, offer, Root::Child(pid), Some(writer)).run(&mut signals);
    if args.then_terminate && outcome.ended.is_none() && !terminate(pid, &mut signals) {
        say(format_args!(
            "the program (pid {pid}) was sent SIGTERM and runs on (end it with `kill -9 {pid}`)"
        ));
    }
    signals.release();
    if args.embed_symbols {
        embed_symbols(&mut outcome.summaries);
    }
    report(args, &outcome, &wishes);
    if outcome.summaries.is_empty() && outcome.failures.is_empty() {
        reserved.give_back();
        return Err(blind(&checked, outcome.ended));
    }
    if args.report {
        let traces: Vec<&Path> = outcome.summaries.iter().map(|summary| summary.path.as_path()).collect();
        if let Err(message) = after::report(&traces) {
            say(format_args!("no report: {message}"));
        }
    }
    if outcome.summaries.last().is_some_and(|summary| saw_nothing_of(&checked, summary)) {
        return Err(blind(&checked, outcome.ended));
    }
    Ok(outcome.ended.map_or(ExitCode::SUCCESS, Ended::exit_code))
}

/// Whether the word in the program's place was meant for us: it begins like an option and was not set apart by `--`.
fn is_misspelt_option(program: &OsStr) -> bool {
    let is_option = program.as_encoded_bytes().starts_with(b"-");
    is_option && !std::env::args_os().take_while(|word| word != program).any(|word| word == "--")
}

/// Whether next to nothing was counted for the program itself, because it has an allocator of its own: what libc
/// allocates for it (buffers of files) is all that went through `malloc`.
fn saw_nothing_of(checked: &check::Program, summary: &Summary) -> bool {
    const NOISE_ALLOCS: u64 = 16;
    const NOISE_BYTES: u64 = 64 << 10;
    let Some((image, counted)) = &summary.image else { return false };
    checked.own_malloc.is_some()
        && std::fs::canonicalize(&checked.image).is_ok_and(|path| path == *image)
        && counted.allocs <= NOISE_ALLOCS
        && counted.allocated_bytes <= NOISE_BYTES
}

fn embed_symbols(summaries: &mut [Summary]) {
    for summary in summaries {
        match after::embed(&summary.path) {
            Ok(()) => {
                summary.bytes = std::fs::metadata(&summary.path).map_or(summary.bytes, |file| file.len())
            }
            Err(message) => say(format_args!("no symbols embedded: {message}")),
        }
    }
}

/// What the command line asks for: wrappers and watches.
fn wishes(args: &Args) -> Result<Wishes, String> {
    let mut wrappers = if args.no_wrappers { WrapperSet::none() } else { WrapperSet::builtin() };
    for pattern in &args.wrapper {
        wrappers.add(pattern).map_err(|error| error.to_string())?;
    }
    let mut watch = WatchSet::new();
    for spec in &args.watch {
        watch.add(spec)?;
    }
    for trace in &args.watch_from {
        watch.add_leaks_of(trace)?;
    }
    Ok(Wishes { wrappers, walks: args.auto_watch || !watch.is_empty(), watch })
}

/// Our own libc: most likely the target's, too.
fn own_libc() -> Option<PathBuf> {
    let maps = process::read_maps(std::process::id());
    maps.into_iter().map(|mapping| PathBuf::from(mapping.path)).find(|path| path.ends_with("libc.so.6"))
}

/// Nothing was seen: the one outcome that must never look like a clean run.
fn blind(checked: &check::Program, ended: Option<Ended>) -> (u8, String) {
    let code = match ended {
        Some(Ended::Exited(status)) if status != 0 => status as u8,
        Some(Ended::Killed(signal)) => 128u8.wrapping_add(signal as u8),
        _ => FAILED,
    };
    let why = match &checked.own_malloc {
        Some(own) => format!(
            "it brings its own `{}` (build it without, or with the allocator as a shared library)",
            own.symbol
        ),
        None => {
            "the preload was never loaded, or found no session (a program that ends before main, drops its \
                 environment, or lives in another PID namespace; start edleak-record inside)"
                .into()
        }
    };
    (code, format!("nothing was recorded of `{}`: {why}", checked.path.display()))
}

/// Asks the target to end. Tells whether it did, before its time was over or somebody wanted to wait no longer.
fn terminate(pid: u32, signals: &mut Signals) -> bool {
    signals::send(pid, libc::SIGTERM);
    let limit = Instant::now() + TERMINATION;
    while signals::has_ended(pid).is_none() {
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() || signals.take().into_iter().any(Signal::asks_for_an_end) {
            return false;
        }
        signals::wait_readable(&[signals.fd()], left);
    }
    true
}

fn report(args: &Args, outcome: &Outcome, wishes: &Wishes) {
    if args.quiet {
        return;
    }
    for summary in &outcome.summaries {
        say(sentence(summary));
    }
    say_unmatched(&outcome.summaries);
    // With nothing recorded, nothing was searched for them.
    let unused: Vec<_> = wishes.wrappers.unused().map(|pattern| format!("`{pattern}`")).collect();
    if !unused.is_empty() && !outcome.summaries.is_empty() {
        say(format_args!(
            "no function of any module matches --wrapper {} (names are as in edleak-analyze's stacks)",
            unused.join(", ")
        ));
    }
}

/// Requests to watch something that none of the recorded programs has: said, because the trace would not.
fn say_unmatched(summaries: &[Summary]) {
    let [first, rest @ ..] = summaries else { return };
    let is_nowhere = |spec: &&String| rest.iter().all(|other| other.unmatched_watches.contains(spec));
    let nowhere: Vec<_> =
        first.unmatched_watches.iter().filter(is_nowhere).map(|spec| format!("`{spec}`")).collect();
    let (shown, more) = nowhere.split_at(nowhere.len().min(3));
    if !shown.is_empty() {
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        say(format_args!(
            "nothing to watch at {}{more}: no module has it (an inlined function has no address of its own: \
             watch its caller; a site of an older build is another one now)",
            shown.join(", ")
        ));
    }
}

/// The one line at the end.
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
        children,
        ..
    } = summary;
    let path = shell_word(path);
    let mut line = format!(
        "{} of {} in {:.1} s; {path} is {}{}; next: edleak-analyze {path}",
        units::plural(*slices, "slice", "slices"),
        units::plural(*sites as u64, "site", "sites"),
        duration.as_secs_f64(),
        size(*bytes),
        missed(losses),
    );
    if *sites == 0 {
        line.push_str(" (no allocation was seen)");
    }
    if children.unasked > 0 {
        line.push_str(" (its child processes were not recorded; --children would)");
    }
    if *is_replaced {
        line.push_str(
            " (then the process became a program that is not recorded: record that one itself; it has to inherit LD_PRELOAD and \
             EDLEAK_SESSION, and to be linked dynamically)",
        );
    }
    if let Some(rate) = injected_bytes_per_s {
        line.push_str(&format!(" ({INJECTED_NAME} of {} was added, as asked for)", units::rate(*rate)));
    }
    line
}

fn missed(losses: &Losses) -> String {
    let parts = [
        (losses.unknown_frees, "unknown free", "unknown frees"),
        (losses.uncounted_calls, "uncounted call", "uncounted calls"),
        (losses.other_site_allocs, "allocation beyond the site table", "allocations beyond the site table"),
        (losses.untracked_allocs, "untracked allocation", "untracked allocations"),
        (losses.missed_slices, "slice missed", "slices missed"),
        (losses.lost_stacks, "lost stack", "lost stacks"),
        (losses.unrecorded_images, "image not recorded", "images not recorded"),
    ];
    let seen = parts.iter().filter(|(count, ..)| *count > 0);
    seen.map(|(count, one, many)| format!(", {}", units::plural(*count, one, many))).collect()
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// A path as a shell reads it back, on one line.
fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "_-./+,:=@%".contains(c);
    let dot = if text.starts_with('-') { "./" } else { "" };
    if text.contains(char::is_control) {
        return format!(
            "$'{dot}{}'",
            text.replace('\\', "\\\\").replace('\'', "\\'").chars().map(escaped).collect::<String>()
        );
    }
    if text.chars().all(is_plain) {
        return format!("{dot}{text}");
    }
    format!("'{dot}{}'", text.replace('\'', r"'\''"))
}

/// A control character as it is written between `$'` and `'`.
fn escaped(c: char) -> String {
    if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }
}

/// A command line, short enough for a line.
fn shown(command: &[OsString]) -> String {
    const MOST: usize = 40;
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let line = words.join(" ").replace(char::is_control, "?");
    match line.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        let names =
            ["trace.edl", "/tmp/a b/t.edl", "it's", "$HOME;ls", "a\nb\\c'd", "-x", "- x", "é\u{1b}[m"];
        for name in names {
            let word = shell_word(Path::new(name));
            assert!(!word.contains(char::is_control), "{word:?}");
            let script = format!("printf %s {word}");
            let echoed =
                std::process::Command::new("bash").env("LC_ALL", "C.UTF-8").args(["-c", &script]).output();
            let echoed = echoed.expect("bash is there").stdout;
            let echoed = String::from_utf8_lossy(&echoed);
            assert_eq!(echoed.strip_prefix("./").unwrap_or(&echoed), name, "{word}");
        }
        assert_eq!(shell_word(Path::new("trace.edl")), "trace.edl");
    }
}
