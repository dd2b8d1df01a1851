//! Begins the recording of a process that already runs. If the process runs without the library, loads the
//! library into the process first ([`crate::attach`]).

use crate::attach;
use crate::error::{Error, ErrorKind, refusal};
use crate::follow::attached::Attached;
use crate::follow::session_stock::{self, SessionStock};
use crate::follow::{Follower, Root, RunSettings};
use crate::recording::Options;
use crate::recording::output;
use crate::rules::modules::Modules;
use crate::rules::publisher::Publisher;
use crate::start::library;
use crate::start::library_copy::visible_path;
use crate::start::permission::{self, inaccessible};
use crate::start::proc_mount::check_proc;
use crate::start::run::{Failed, Recorded, RunOptions, SHOWN_COMMAND};
use crate::sys::idle::{self, Library, NotFound};
use crate::sys::image::Image;
use crate::sys::maps;
use crate::sys::process;
use crate::sys::quiescence::Quiescence;
use crate::sys::remote;
use crate::sys::say::say;
use crate::sys::seccomp;
use crate::sys::shell;
use crate::sys::signals::{Signals, Watch};
use edleak_session::header::Header;
use edleak_session::idle::{COUNTING, WAKE};
use std::fs;
use std::mem::offset_of;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time that the collector waits until no thread uses the session of an earlier recording, and until
/// a thread has attached to the new session.
const THREAD_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
/// Longest time for which the collector waits while a process executes a program.
const LONGEST_EXECUTION: Duration = Duration::from_secs(1);

/// Records the process `pid` until the process ends, the duration is over, or a signal ends the recording.
/// The process runs on after the recording. The function calls `started` after the collector has asked the
/// process to count its allocations.
///
/// # Errors
/// edleak cannot record the process, or the recording contains no allocation of the process.
pub fn record_process(pid: u32, options: &RunOptions, started: impl FnOnce()) -> Result<Recorded, Failed> {
    let in_context = |error: Error| error.context(format_args!("cannot record process {pid}"));
    check_proc()?;
    check_process(pid).map_err(in_context)?;
    // When the process ends or executes another program during the attach, any operation on it may fail, and
    // the error of this operation would mislead the user.
    let unless_ended = |error| if process::ends_now(pid) { attach::just_ended() } else { error };
    permission::check_users(pid).map_err(|error| in_context(unless_ended(error)))?;
    let watch =
        Watch::of(pid).ok_or_else(|| in_context(Watch::unavailable().unwrap_or_else(attach::just_ended)))?;
    // An attach has two steps: edleak-record loads the library into the process, and then writes the jumps
    // into the process's allocation functions. edleak-record must complete both steps of the attach before
    // this deadline.
    let deadline = Instant::now() + options.attach.timeout;
    let (found, image) = find_library(pid, deadline);
    let of_process = |error| {
        in_context(match () {
            () if process::ends_now(pid) => attach::just_ended(),
            () if Image::has_changed(pid, image) => attach::executed(),
            () => error,
        })
    };
    let library = load_if_absent(pid, found, options, deadline).map_err(of_process)?;
    check_library(&library).map_err(of_process)?;
    let mut detours = match library.is_late {
        true => Some(attach::compile(&library, &options.code.allocators).map_err(of_process)?),
        false => None,
    };
    let mut domains = options.domains;
    if let Some(detours) = &mut detours {
        domains.mapping &= detours.has_mappings;
        detours.records_mappings = domains.mapping;
        if !options.quiet {
            attach::tell_missing(detours);
        }
    }
    let code_options = Arc::new(options.code.clone());
    let publisher = Publisher::new(Arc::clone(&code_options));
    let mut modules = Modules::new(pid);
    modules.add_maps(&maps::files_of(pid), 0);
    publisher.compile_ahead(modules.all());
    let mut signals = Signals::block()
        .map_err(|error| Error::system("signals cannot be received", &error, "see `ulimit -a`"))?;
    let output = output::followed(&options.output)?;
    let (writer, reserved) = output::reserve(&output, options.capacity_bytes)?;
    let settings = RunSettings {
        options: Options {
            command: process::command_line(pid),
            period: options.period,
            capacity_bytes: options.capacity_bytes,
            auto_watch: options.auto_watch,
            inject_bytes_per_s: options.inject_bytes_per_s,
            own_allocator: None,
            domains,
        },
        output: output.clone(),
        duration: options.duration,
        children: options.children,
        only: String::new(),
        publisher,
    };
    let no_memory = |error| {
        let remedy =
            "see `ulimit -a`, or start edleak-record as the user of the process, in its PID namespace";
        of_process(Error::system("it cannot share memory with edleak-record", &error, remedy))
    };
    let begun = SessionStock::create_for(pid, options.children, session_stock::RULES_TIMEOUT)
        .map_err(no_memory)
        .and_then(|stock| {
            let number = process::read_status(pid).map_or(0, |status| status.own_number);
            stock.set_domains(domains.flags());
            stock.set_root(if number == 0 { pid } else { number });
            let limit = if library.is_late { deadline } else { Instant::now() + THREAD_TIMEOUT };
            leave_earlier_session(&library, limit).map_err(of_process)?;
            let redirected =
                detours.map(|detours| attach::redirect(detours, &options.attach, deadline, options.quiet));
            let redirected = redirected.transpose().map_err(of_process)?;
            let attached = Attached::wake(library, redirected, watch, stock.address(), options.quiet);
            let attached = attached.map_err(|error| of_process(inaccessible(pid, &error)))?;
            Ok((stock, attached))
        });
    let (stock, attached) = begun.inspect_err(|_| reserved.give_back())?;
    reserved.delete_earlier();
    if !options.quiet {
        let mut command = process::command_words(pid);
        // A program that changes its title fills the rest of its command line with empty words.
        command.truncate(command.iter().rposition(|word| !word.is_empty()).map_or(0, |last| last + 1));
        let command = shell::command(&command, SHOWN_COMMAND);
        say(format_args!("recording process {pid} ({command}) into {}", shell::path(&options.output)));
    }
    started();
    let root = Root::Attached(Box::new(attached));
    let outcome = Follower::new(&settings, stock, root, Some(writer)).run(&mut signals);
    signals.release();
    if outcome.summaries.is_empty() {
        reserved.give_back();
        let nothing = || nothing_recorded(pid, options);
        let failure = outcome.failures.into_iter().next().map(|failure| failure.error);
        return Err(failure.unwrap_or_else(nothing).into());
    }
    let unused_wrappers = code_options.wrappers.unused().map(str::to_owned).collect();
    Ok(Recorded { outcome, unused_wrappers, blind: None })
}

/// The error to report if a recording contains no allocation.
fn nothing_recorded(pid: u32, options: &RunOptions) -> Error {
    let message = format!("nothing was recorded of process {pid}");
    match attach::uncounted_allocator(pid, &options.code.allocators) {
        Some(why) => Error::new(ErrorKind::Unrecorded, format!("{message}: {why}"))
            .with_remedy("start it with `edleak-record PROGRAM`, and keep its symbol table"),
        None => Error::new(ErrorKind::Unrecorded, message)
            .with_remedy("it allocated nothing: give it work, or record for longer"),
    }
}

/// Returns an error for a process that does not exist or that cannot allocate.
fn check_process(pid: u32) -> Result<(), Error> {
    if pid == 0 || !process::is_there(pid) {
        let message = "there is no such process";
        return Err(Error::new(ErrorKind::Missing, message).with_remedy("name one that runs"));
    }
    if pid == std::process::id() {
        return Err(refusal("it is this edleak-record", "name another one"));
    }
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Err(refusal("/proc does not show it", "mount /proc without hidepid, or record as root"));
    };
    // A thread that executes a program becomes the main thread after the main thread has ended. So wait
    // before the message.
    let limit = Instant::now() + LONGEST_EXECUTION;
    while process::has_thread_ended(pid, pid) {
        if process::has_ended(pid) {
            return Err(refusal("it has ended, but its parent has not waited for it", "name one that runs"));
        }
        if Instant::now() >= limit {
            let message = "its main thread has ended, and the kernel hides the memory of such a process";
            return Err(refusal(message, "start the process with `edleak-record PROGRAM`"));
        }
        std::thread::sleep(PAUSE);
    }
    if is_of_kernel(&stat) {
        return Err(refusal("it is a thread of the kernel", "name a program"));
    }
    match process::read_status(pid) {
        Some(status) if status.group != pid => {
            Err(refusal(format!("it is a thread of process {}", status.group), "name that process"))
        }
        _ => Ok(()),
    }
}

/// Whether a process is a thread of the kernel, which runs no program. `stat` is the content of
/// /proc/PID/stat of this process.
fn is_of_kernel(stat: &str) -> bool {
    const KERNEL_THREAD: u64 = 0x0020_0000;
    process::stat_field(stat, 9).is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

/// Returns the library that [`find_library`] has found. If the process has no library, loads the library into
/// the process; this must be done before `deadline`.
fn load_if_absent(
    pid: u32,
    found: Result<Library, NotFound>,
    options: &RunOptions,
    deadline: Instant,
) -> Result<Library, Error> {
    match found {
        Err(NotFound::Absent) => {}
        // An earlier edleak-record loaded the library, but died before it wrote the detours.
        Ok(library) if library.is_late && library.late().is_ok_and(|late| late.places.is_empty()) => {}
        found => return found.map_err(|why| explain(pid, &why)),
    }
    attach::check_access(pid).map_err(|error| inaccessible(pid, &error))?;
    let (path, _) = library::find(options.embedded)?;
    let path = visible_path(pid, &path, options.attach_copy.as_deref())?;
    attach::load(pid, &path, &options.attach, deadline, &options.code.allocators, options.quiet)
}

/// Finds edleak's library in a process. If the process has just started or is executing a program, the
/// function waits until the process has loaded the library, at most until `deadline`. Also returns the image
/// in which the function looked for the library.
fn find_library(pid: u32, deadline: Instant) -> (Result<Library, NotFound>, Option<Image>) {
    let began = Instant::now();
    let limit = deadline.min(began + longest_start(pid));
    let execution_limit = deadline.min(began + LONGEST_EXECUTION);
    loop {
        let image = Image::of(pid);
        let found = Library::find(pid);
        // While the process executes a program (exec), its memory is replaced, so a read may fail.
        let is_missing = match &found {
            Err(NotFound::Absent) => true,
            Err(NotFound::Memory(error)) => error.kind() != std::io::ErrorKind::PermissionDenied,
            _ => false,
        };
        let is_starting = || Instant::now() < limit;
        let is_executing =
            || (image.is_none() || Image::has_changed(pid, image)) && Instant::now() < execution_limit;
        let may_come = is_missing && (is_starting() || is_executing()) && !process::has_ended(pid);
        if !may_come {
            return (found, image);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How long to wait at most until a process has loaded edleak's library; zero if the process is too old to be
/// starting. `edleak-record --idle PROGRAM` executes PROGRAM in its own process, so a young process that runs
/// edleak-record will probably execute another program soon.
fn longest_start(pid: u32) -> Duration {
    const LONGEST_START: Duration = Duration::from_millis(500);
    const LONGEST_START_IDLE: Duration = Duration::from_secs(5);
    let is_young = process::age(pid).is_none_or(|age| age < 2 * LONGEST_START);
    let is_edleak =
        process::program(pid).is_some_and(|program| std::env::current_exe().is_ok_and(|own| own == program));
    match (is_young, is_edleak) {
        (false, _) => Duration::ZERO,
        (true, false) => LONGEST_START,
        (true, true) => LONGEST_START_IDLE,
    }
}

/// The reason why the collector found no library in a process, and the remedy.
fn explain(pid: u32, why: &NotFound) -> Error {
    match why {
        NotFound::Memory(error) => inaccessible(pid, error),
        NotFound::Version(theirs) => refusal(
            format!("it has the library of another version: {theirs}"),
            "use the edleak-record of that version, or start the process again with this one",
        ),
        NotFound::Absent => refusal("it runs without edleak's library", attach::remedy(pid)),
    }
}

/// Returns an error if the library of a process cannot begin a recording, or if another edleak-record records
/// the process.
fn check_library(library: &Library) -> Result<(), Error> {
    let pid = library.pid();
    if !library.is_countable {
        return Err(refusal(
            "another allocator comes before edleak's library, or the kernel gave the process privileges",
            "start it without that allocator, or without the privileges",
        ));
    }
    check_seccomp(library)?;
    let limit = Instant::now() + THREAD_TIMEOUT;
    loop {
        let phase = library.phase().map_err(|error| inaccessible(pid, &error))?;
        if phase == COUNTING || phase == WAKE {
            if let Some(recorder) = recorder_of(library, phase) {
                let message = format!("edleak-record (pid {recorder}) records it already");
                return Err(refusal(message, "end that recording, or use its trace"));
            }
            // An earlier edleak-record recorded this process and was killed, so this edleak-record ends the
            // earlier recording.
            library.end().map_err(|error| inaccessible(pid, &error))?;
        }
        if !idle::is_starting(phase) {
            return Ok(());
        }
        if Instant::now() > limit {
            return Err(refusal("its library is still starting", "is the process stopped? Try again"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Returns an error if a process has installed a seccomp filter since its library started. A seccomp filter
/// may kill the process when the library makes the system calls that begin a recording.
fn check_seccomp(library: &Library) -> Result<(), Error> {
    let strictest = seccomp::strictest_thread(library.pid());
    let is_known = match library.filters {
        Some(filters) => strictest.filters <= filters,
        None => seccomp::are_ours(library.pid(), strictest.filters),
    };
    if is_known {
        return Ok(());
    }
    let thread = attach::name_of(library.pid(), strictest.tid);
    let message = format!(
        "its thread {thread} has forbidden itself system calls since the start (seccomp), and the kernel \
         might kill it for a call that the library needs"
    );
    Err(refusal(message, "start it recorded: `edleak-record PROGRAM`"))
}

/// The process ID of the running edleak-record that records the process, or that has asked the process to
/// begin a recording.
fn recorder_of(library: &Library, phase: u32) -> Option<u32> {
    let pid = library.pid();
    let is_recorder = |candidate: &u32| {
        let program = || process::program(*candidate).unwrap_or_default();
        *candidate != std::process::id() && program().to_string_lossy().contains("edleak-record")
    };
    if phase == WAKE {
        let address = library.control().ok()?;
        let asked: u32 = address.strip_prefix("/proc/")?.split('/').next()?.parse().ok()?;
        return Some(asked).filter(is_recorder);
    }
    let header = library.header().ok()??;
    let session = process::session_at(pid, header)?;
    let named = remote::read_u32(pid, header + offset_of!(Header, collector) as u64).ok();
    let mut candidates = named.into_iter().chain(process::all()).filter(is_recorder);
    candidates.find(|candidate| process::maps_this_session(*candidate, session))
}

/// Waits until no thread of the process uses the session of an earlier recording.
fn leave_earlier_session(library: &Library, limit: Instant) -> Result<(), Error> {
    if !matches!(library.header(), Ok(Some(_))) {
        return Ok(());
    }
    library.finish_ending().map_err(|error| inaccessible(library.pid(), &error))?;
    let mut quiescence = Quiescence::new(library.pid(), library.range.clone());
    while !quiescence.is_reached() {
        if Instant::now() > limit {
            let thread = attach::name_of(library.pid(), quiescence.thread().unwrap_or_default());
            let message = format!("its thread {thread} has not run since the last recording ended");
            return Err(refusal(message, "is it stopped? Try again"));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
