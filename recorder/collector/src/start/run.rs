//! One run: checks the program, starts it and follows it.

use crate::attach::Settings;
use crate::detour::Prefixes;
use crate::error::{Error, ErrorKind};
use crate::follow::session_stock::{LONG_RULES_TIMEOUT, RULES_TIMEOUT, SessionStock};
use crate::follow::{Follower, Outcome, Root, RunSettings};
use crate::recording::period::Period;
use crate::recording::{Domains, Options, Summary};
use crate::rules::code_options::CodeOptions;
use crate::rules::publisher::Publisher;
use crate::start::check;
use crate::start::launch;
use crate::start::library::{self, Embedded};
use crate::start::output;
use crate::sys::limits;
use crate::sys::maps;
use crate::sys::own_child::{Ended, OwnChild};
use crate::sys::say::say;
use crate::sys::signals::{self, Signal, Signals, Watch};
use edleak_text::units;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for a target to end after edleak-record has sent SIGTERM.
const TERMINATION: Duration = Duration::from_secs(10);

/// The settings of a recording.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The program and its arguments.
    pub program: Vec<OsString>,
    /// The path of the trace.
    pub output: PathBuf,
    /// The interval between slices.
    pub period: Period,
    /// The recording ends after this time; the program runs on.
    pub duration: Option<Duration>,
    /// After `duration`, edleak-record sends the program SIGTERM and waits for its end.
    pub then_terminate: bool,
    /// Whether to record child processes, too.
    pub children: bool,
    /// Patterns of the files of the programs to record ([`edleak_session::only`]), anywhere in the process
    /// tree; empty: record the program itself.
    pub only: Vec<String>,
    /// The maximum size of the trace.
    pub capacity_bytes: u64,
    /// Functions to step over, and sites to watch.
    pub code: CodeOptions,
    /// Watch sites that look like leaks, for at most this share of the target's processor time.
    pub auto_watch: Option<f64>,
    /// The rate of an artificial leak that the collector adds to the counters, in bytes per second.
    pub inject_bytes_per_s: Option<f64>,
    /// The domains of memory to record.
    pub domains: Domains,
    /// How to attach to a process without the library.
    pub attach: Settings,
    /// The directory, in the files of such a process, into which the library may be copied.
    pub attach_copy: Option<PathBuf>,
    /// Whether to print only errors.
    pub quiet: bool,
    /// The copy of the preload library inside this program, if it has one.
    pub embedded: Option<Embedded>,
}

/// The result of a run.
#[derive(Debug)]
pub struct Recorded {
    /// The traces, and how the program ended.
    pub outcome: Outcome,
    /// Patterns of wrappers that matched no function of any module.
    pub unused_wrappers: Vec<String>,
    /// The failure, if edleak counted almost nothing of the program.
    pub blind: Option<Failed>,
}

/// The reason why there is no recording, or an empty one.
#[derive(PartialEq, Eq, Debug)]
pub struct Failed {
    /// The exit code of edleak-record; if the program failed, too, this is the program's exit code.
    pub exit_code: u8,
    /// The error with its reason and its remedy.
    pub error: Error,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { exit_code: error.exit_code(), error }
    }
}

/// Executes a program in place of this process. The program's library counts nothing until a user records the
/// program by its process ID. Returns only the reason why the program could not start.
pub fn start_idle(program: &[OsString], embedded: Option<Embedded>) -> Error {
    let start = || {
        let [name, ..] = program else {
            return Err(Error::new(ErrorKind::Value, "no program").with_remedy("name one"));
        };
        let checked = check::check_program(name, std::env::var_os("PATH").as_deref())?;
        let preload = library::find(embedded)?.0;
        let signals = Signals::block()
            .map_err(|error| Error::system("signals cannot be set up", &error, "see `ulimit -a`"))?;
        let error = launch::execute_idle(&checked.path, program, &preload, &signals);
        let message = format!("failed to start `{}`: {error}", checked.path.display());
        Ok(Error::new(ErrorKind::Start, message))
    };
    start().unwrap_or_else(|error| error)
}

/// Records a program until the program ends or the duration is over. Calls `started` as soon as the program
/// runs.
///
/// # Errors
/// edleak cannot record the program, or it recorded nothing of it.
pub fn record(options: &RunOptions, started: impl FnOnce()) -> Result<Recorded, Failed> {
    let [program, ..] = options.program.as_slice() else {
        return Err(Error::new(ErrorKind::Value, "no program").with_remedy("name one").into());
    };
    let checked = check::check_program(program, std::env::var_os("PATH").as_deref())?;
    if let Some(error) = limits::too_little_data() {
        return Err(error.context(format_args!("cannot record `{}`", checked.path.display())).into());
    }
    // The program that matches may be anywhere in the process tree.
    let follows_children = options.children || !options.only.is_empty();
    if follows_children && let Some(why) = Watch::unavailable() {
        return Err(why.context("child processes cannot be followed").into());
    }
    let code_options = Arc::new(options.code.clone());
    let preload = library::find(options.embedded)?.0;
    // edleak-record blocks signals from here on, because a thread created earlier would receive the signals
    // meant for the main loop. When a file reaches its size limit, the write then returns an error, and no
    // fatal signal comes.
    let mut signals = Signals::block().map_err(|error| {
        Error::system("signals cannot be passed on to the target", &error, "see `ulimit -a`")
    })?;
    let output = output::followed(&options.output)?;
    // Create the trace now: problems with its file show before the program starts, and no other process takes
    // its name.
    let (writer, reserved) = output::reserve(&output, options.capacity_bytes)?;
    let stopped = |what: &str, error: &std::io::Error| {
        reserved.give_back();
        Error::system(what, error, "see `ulimit -a`")
    };
    let publisher = Publisher::new(Arc::clone(&code_options));
    publisher.prepare(own_libc().into_iter().chain([checked.image.clone()]).collect());
    let plan = RunSettings {
        options: Options {
            command: options.program.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            period: options.period,
            capacity_bytes: options.capacity_bytes,
            auto_watch: options.auto_watch,
            domains: options.domains,
            inject_bytes_per_s: options.inject_bytes_per_s,
            own_allocator: checked.own_malloc.as_ref().and(std::fs::canonicalize(&checked.image).ok()),
        },
        output: output.clone(),
        duration: options.duration,
        children: follows_children,
        only: options.only.join(":"),
        publisher,
    };
    // The target must apply the detours of an allocator inside the program before its first allocation. Later
    // is too late.
    let has_allocator = checked.own_malloc.is_some() || code_options.allocators != Prefixes::default();
    let waits_long = has_allocator || !code_options.watch.is_empty();
    let rules_timeout = if waits_long { LONG_RULES_TIMEOUT } else { RULES_TIMEOUT };
    let stock = SessionStock::create(follows_children, rules_timeout)
        .map_err(|error| stopped("no memory to share with the target", &error))?;
    let held =
        launch::hold(&checked.path, &options.program, &preload, &stock.address(), &plan.only, &signals)
            .map_err(|error| stopped("no process for the target", &error))?;
    let pid = held.pid();
    stock.set_root(pid);
    stock.set_domains(options.domains.flags());
    let child = held.release().map_err(|error| {
        reserved.give_back();
        Error::new(ErrorKind::Start, format!("failed to start `{}`: {error}", checked.path.display()))
    })?;
    reserved.settle();
    if !options.quiet {
        say(format_args!(
            "recording {} (pid {pid}) into {}",
            shown(&options.program),
            options.output.display()
        ));
    }
    started();
    let outcome = Follower::new(&plan, stock, Root::Child(&child), Some(writer)).run(&mut signals);
    if options.then_terminate && outcome.ended.is_none() && !terminate(&child, &mut signals) {
        say(format_args!(
            "the program (pid {pid}) was sent SIGTERM and runs on (end it with `kill -9 {pid}`)"
        ));
    }
    signals.release();
    if outcome.summaries.is_empty() && outcome.failures.is_empty() {
        reserved.give_back();
        return Err(blind(&checked, &options.only, outcome.ended));
    }
    let blind = outcome.summaries.last().filter(|summary| summary.is_blind);
    let blind = blind.map(|summary| foreign_allocator(&checked, summary, outcome.ended));
    let unused_wrappers = code_options.wrappers.unused().map(str::to_owned).collect();
    Ok(Recorded { outcome, unused_wrappers, blind })
}

/// The path of the collector's own libc, which is probably the target's libc, too. A static edleak-record has
/// no libc.so.6 and tries the usual paths.
fn own_libc() -> Option<PathBuf> {
    const USUAL: [&str; 3] =
        ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/lib/ld-musl-x86_64.so.1"];
    let maps = maps::files_of(std::process::id());
    let mut own = maps.into_iter().map(|mapping| PathBuf::from(mapping.path));
    let usual = || USUAL.into_iter().filter_map(|path| std::fs::canonicalize(path).ok()).next();
    own.find(|path| path.ends_with("libc.so.6")).or_else(usual)
}

/// The error for a run that recorded nothing. Such a run must never look like one without leaks.
fn blind(checked: &check::Program, only: &[String], ended: Option<Ended>) -> Failed {
    let (why, remedy) = if only.is_empty() {
        let remedy = "a program that ends before main, drops its environment, or lives in another PID namespace; start edleak-record \
                      inside";
        ("the preload was never loaded, or found no session".into(), remedy)
    } else {
        let patterns = only.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", ");
        let remedy = "--only looks at the names of files; `*` stands for any";
        (format!("no program that ran is called {patterns}"), remedy)
    };
    let message = format!("nothing was recorded of `{}`: {why}", checked.path.display());
    let error = Error::new(ErrorKind::Unrecorded, message).with_remedy(remedy);
    Failed { exit_code: unless_failed(ended, error.exit_code()), error }
}

/// The error for a program that uses its own allocator: the trace exists but contains nothing about the
/// program.
fn foreign_allocator(checked: &check::Program, summary: &Summary, ended: Option<Ended>) -> Failed {
    let symbol = checked.own_malloc.as_ref().map_or("malloc", |own| own.symbol.as_str());
    let message = format!(
        "`{}` allocates through its own `{symbol}`, which edleak does not see: {} in `{}` say nothing about its memory",
        checked.path.display(),
        units::plural(summary.slices, "slice", "slices"),
        summary.path.display()
    );
    let error = Error::new(ErrorKind::OwnMalloc, message)
        .with_remedy("build the program without that allocator, or with it as a shared library");
    Failed { exit_code: unless_failed(ended, error.exit_code()), error }
}

/// The exit code of the program if it failed, else `otherwise`.
fn unless_failed(ended: Option<Ended>, otherwise: u8) -> u8 {
    match ended {
        Some(Ended::Exited(status)) if status != 0 => status as u8,
        Some(Ended::Killed(signal)) => 128u8.wrapping_add(signal as u8),
        _ => otherwise,
    }
}

/// Asks the target to end, and waits. Returns whether the target ended before the time limit and before the
/// user interrupted the wait.
fn terminate(child: &OwnChild, signals: &mut Signals) -> bool {
    child.send(libc::SIGTERM);
    let limit = Instant::now() + TERMINATION;
    while child.ended().is_none() {
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() || signals.take().into_iter().any(Signal::asks_for_an_end) {
            return false;
        }
        signals::wait_readable(&[signals.fd()], left);
    }
    true
}

/// A command line, shortened to fit into a line of output.
fn shown(command: &[OsString]) -> String {
    const MOST: usize = 40;
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let line = words.join(" ").replace(char::is_control, "?");
    match line.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
