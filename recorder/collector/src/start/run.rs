//! Records a program from its start: checks the program, starts it and follows its processes.

use crate::attach::Settings;
use crate::detour::Prefixes;
use crate::error::{Error, ErrorKind};
use crate::follow::session_stock::{LONG_RULES_TIMEOUT, RULES_TIMEOUT, SessionStock};
use crate::follow::{Follower, Outcome, Root, RunSettings};
use crate::recording::output;
use crate::recording::period::Period;
use crate::recording::{Domains, Options, Summary};
use crate::rules::code_options::CodeOptions;
use crate::rules::publisher::Publisher;
use crate::start::check;
use crate::start::launch;
use crate::start::library::{self, Embedded};
use crate::start::proc_mount::check_proc;
use crate::sys::limits;
use crate::sys::maps;
use crate::sys::own_child::{Ended, OwnChild};
use crate::sys::say::say;
use crate::sys::shell;
use crate::sys::signals::{self, Signal, Signals, Watch};
use edleak_text::units;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest command line of a message, in characters.
pub(super) const SHOWN_COMMAND: usize = 40;
/// Longest time that edleak-record, after it has sent SIGTERM to the target, waits for the end of the target.
const TERMINATION: Duration = Duration::from_secs(10);

/// The settings of a recording.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The program and its arguments.
    pub program: Vec<OsString>,
    /// The path of the trace.
    pub output: PathBuf,
    /// The time between two slices.
    pub period: Period,
    /// The time after which the recording ends although the program runs on; `None`: the recording ends when
    /// the program ends.
    pub duration: Option<Duration>,
    /// Whether edleak-record, after `duration`, sends SIGTERM to the program and waits for the end of the
    /// program.
    pub then_terminate: bool,
    /// Whether edleak-record also records child processes.
    pub children: bool,
    /// Patterns of file names ([`edleak_session::only`]). edleak-record records every process of the process
    /// tree whose program matches a pattern. If the list `only` is empty, edleak-record records the started
    /// program itself.
    pub only: Vec<String>,
    /// The maximum size of the trace, in bytes.
    pub capacity_bytes: u64,
    /// The functions that are wrappers, and the sites to watch.
    pub code: CodeOptions,
    /// The share of the target's processor time that auto-watch may use to watch sites that look like leaks;
    /// `None`: there is no auto-watch.
    pub auto_watch: Option<f64>,
    /// The rate, in bytes per second, of an artificial leak that the collector adds to the counters; `None`:
    /// there is no such leak.
    pub inject_bytes_per_s: Option<f64>,
    /// The kinds of memory to record: always the heap, and optionally mapped memory and pools.
    pub domains: Domains,
    /// The settings for loading the library into a running process.
    pub attach: Settings,
    /// The directory into which edleak-record may copy the library, if the process to attach to has another
    /// root directory.
    pub attach_copy: Option<PathBuf>,
    /// Whether to print only errors.
    pub quiet: bool,
    /// The copy of the preload library inside this edleak-record; `None`: this edleak-record contains no
    /// copy.
    pub embedded: Option<Embedded>,
}

/// The result of a run of edleak-record.
#[derive(Debug)]
pub struct Recorded {
    /// The traces of the run, and the exit status of the program.
    pub outcome: Outcome,
    /// Patterns of wrappers that the user gave and that matched no function of any module.
    pub unused_wrappers: Vec<String>,
    /// The error to report because edleak has counted almost no allocation of the program; `None`: there is
    /// no such error.
    pub blind: Option<Failed>,
}

/// The reason why there is no recording, or why the recording is empty.
#[derive(PartialEq, Eq, Debug)]
pub struct Failed {
    /// The exit code of edleak-record. If the program failed, edleak-record ends with the exit code of the
    /// program.
    pub exit_code: u8,
    /// The error, with the reason for it and a remedy.
    pub error: Error,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { exit_code: error.exit_code(), error }
    }
}

/// Executes a program in place of this process (exec). The library in the program counts nothing until a user
/// records the program by its process ID. The function returns only if the program could not start; the
/// result is the error with the reason.
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

/// Records a program until the program ends or the recording has lasted for the duration in `options`. Calls
/// the function `started` as soon as the program runs.
///
/// # Errors
/// edleak cannot record the program, or has recorded no process of the program.
pub fn record(options: &RunOptions, started: impl FnOnce()) -> Result<Recorded, Failed> {
    let [program, ..] = options.program.as_slice() else {
        return Err(Error::new(ErrorKind::Value, "no program").with_remedy("name one").into());
    };
    check_proc()?;
    let checked = check::check_program(program, std::env::var_os("PATH").as_deref())?;
    if let Some(error) = limits::too_little_data() {
        return Err(error.context(format_args!("cannot record `{}`", checked.path.display())).into());
    }
    // If the user gives patterns (`only`), a matching program may run in any process of the process tree, so
    // edleak-record must follow the children.
    let follows_children = options.children || !options.only.is_empty();
    if follows_children && let Some(why) = Watch::unavailable() {
        return Err(why.context("child processes cannot be followed").into());
    }
    let code_options = Arc::new(options.code.clone());
    let preload = library::find(options.embedded)?.0;
    // Block signals before edleak-record creates its first thread. A thread that is created before the
    // signals are blocked would receive signals that are meant for the main loop. `Signals::block` also makes
    // edleak-record ignore the signal that the kernel sends at the file size limit (`ulimit -f`), so that a
    // write beyond this limit returns an error and does not kill edleak-record.
    let mut signals = Signals::block().map_err(|error| {
        Error::system("signals cannot be passed on to the target", &error, "see `ulimit -a`")
    })?;
    let output = output::followed(&options.output)?;
    // Create the trace before the program starts. If the trace cannot be created, edleak-record does not
    // start the program. As soon as the trace exists, no other process can take its name.
    let (writer, reserved) = output::reserve(&output, options.capacity_bytes)?;
    let stopped = |what: &str, error: &std::io::Error| {
        reserved.give_back();
        Error::system(what, error, "see `ulimit -a`")
    };
    let publisher = Publisher::new(Arc::clone(&code_options));
    publisher.prepare(own_libc().into_iter().chain([checked.image.clone()]).collect());
    let settings = RunSettings {
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
    // If the program contains an allocator, the preload library must write the detours before this allocator
    // makes its first allocation. So a target with its own allocator waits longer for the rules than other
    // targets.
    let has_allocator = checked.own_malloc.is_some() || code_options.allocators != Prefixes::default();
    let waits_long = has_allocator || !code_options.watch.is_empty();
    let rules_timeout = if waits_long { LONG_RULES_TIMEOUT } else { RULES_TIMEOUT };
    let stock = SessionStock::create(follows_children, rules_timeout)
        .map_err(|error| stopped("no memory to share with the target", &error))?;
    let held =
        launch::hold(&checked.path, &options.program, &preload, &stock.address(), &settings.only, &signals)
            .map_err(|error| stopped("no process for the target", &error))?;
    let pid = held.pid();
    stock.set_root(pid);
    stock.set_domains(options.domains.flags());
    let child = held.release().map_err(|error| {
        reserved.give_back();
        Error::new(ErrorKind::Start, format!("failed to start `{}`: {error}", checked.path.display()))
    })?;
    reserved.delete_earlier();
    if !options.quiet {
        say(format_args!(
            "recording {} (pid {pid}) into {}",
            shell::command(&options.program, SHOWN_COMMAND),
            shell::path(&options.output)
        ));
    }
    started();
    let outcome = Follower::new(&settings, stock, Root::Child(&child), Some(writer)).run(&mut signals);
    if options.then_terminate && outcome.ended.is_none() && !terminate(&child, &mut signals) {
        say(format_args!(
            "the program (pid {pid}) was sent SIGTERM and runs on (end it with `kill -9 {pid}`)"
        ));
    }
    signals.release();
    if outcome.summaries.is_empty() && outcome.failures.is_empty() {
        reserved.give_back();
        return Err(blind(&checked.path, &options.only, options.duration, outcome.ended));
    }
    let blind = outcome.summaries.last().filter(|summary| summary.is_blind);
    let blind = blind.map(|summary| foreign_allocator(&checked, summary, outcome.ended));
    let unused_wrappers = code_options.wrappers.unused().map(str::to_owned).collect();
    Ok(Recorded { outcome, unused_wrappers, blind })
}

/// The path of the libc that the collector itself uses; the target probably uses the same file. A statically
/// linked edleak-record uses no libc.so.6 itself, so the function tries the usual paths of libc.so.6.
fn own_libc() -> Option<PathBuf> {
    const USUAL: [&str; 3] =
        ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/lib/ld-musl-x86_64.so.1"];
    let maps = maps::files_of(std::process::id());
    let mut own = maps.into_iter().map(|mapping| PathBuf::from(mapping.path));
    let usual = || USUAL.into_iter().filter_map(|path| std::fs::canonicalize(path).ok()).next();
    own.find(|path| path.ends_with("libc.so.6")).or_else(usual)
}

/// The error to report if a run has recorded nothing. Without this error, the user would believe that the
/// program has no leaks.
fn blind(program: &Path, only: &[String], duration: Option<Duration>, ended: Option<Ended>) -> Failed {
    let (why, remedy) = if let (true, Some(duration), None) = (only.is_empty(), duration, ended) {
        let duration = units::duration(duration.as_secs_f64());
        let why = format!("the program allocated nothing in {duration}, or the preload was never loaded");
        (why, "use a longer --duration; run `edleak-record doctor` if that does not help")
    } else if only.is_empty() {
        let remedy = "a program that ends before main, drops its environment, or lives in another PID \
                      namespace; start edleak-record inside";
        ("the preload was never loaded, or found no session".into(), remedy)
    } else {
        let patterns = only.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", ");
        let remedy = "--only looks at the names of files; `*` stands for any";
        (format!("no program that ran is called {patterns}"), remedy)
    };
    let message = format!("nothing was recorded of `{}`: {why}", program.display());
    let error = Error::new(ErrorKind::Unrecorded, message).with_remedy(remedy);
    Failed { exit_code: unless_failed(ended, error.exit_code()), error }
}

/// The error to report if a program uses its own allocator: the trace exists, but contains almost no
/// allocation of the program.
fn foreign_allocator(checked: &check::Program, summary: &Summary, ended: Option<Ended>) -> Failed {
    let symbol = checked.own_malloc.as_ref().map_or("malloc", |own| own.symbol.as_str());
    let message = format!(
        "`{}` allocates through its own `{symbol}`, which edleak does not see: {} in `{}` say nothing about \
         its memory",
        checked.path.display(),
        units::plural(summary.slices, "slice", "slices"),
        summary.path.display()
    );
    let error = Error::new(ErrorKind::OwnMalloc, message)
        .with_remedy("build the program without that allocator, or with it as a shared library");
    Failed { exit_code: unless_failed(ended, error.exit_code()), error }
}

/// The exit code of the program if the program failed, or `otherwise` if the program did not fail.
fn unless_failed(ended: Option<Ended>, otherwise: u8) -> u8 {
    match ended {
        Some(Ended::Exited(status)) if status != 0 => status as u8,
        Some(Ended::Killed(signal)) => 128u8.wrapping_add(signal as u8),
        _ => otherwise,
    }
}

/// Sends SIGTERM to the target and waits until the target ends. Returns `false` if the time limit is over or
/// the user interrupts the wait before the target ends.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_recording_is_explained_by_its_duration_or_by_the_program() {
        let millisecond = Some(Duration::from_millis(1));
        for (duration, ended, remedy) in [
            (millisecond, None, "run `edleak-record doctor` if that does not help"),
            (millisecond, Some(Ended::Exited(0)), "start edleak-record inside"),
            (None, Some(Ended::Exited(0)), "start edleak-record inside"),
        ] {
            let error = blind(Path::new("./p"), &[], duration, ended).error;
            assert!(error.remedy().is_some_and(|words| words.ends_with(remedy)), "{error}");
        }
    }
}
