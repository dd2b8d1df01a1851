//! Attaches to a process without the library: loads the library, and redirects the process's malloc to it.
//!
//! ```text
//! priority     the collector's own priority while threads stand still
//! ptrace       one thread: stop, registers, go on
//! stop         all threads at once
//! modules      the files of the process: functions, unwind rules
//! target       the reasons to refuse a process; the functions to call in it
//! safe_point   whether a waiting thread may call the loader
//! x86_64       code    the code that the thread runs
//!              frame   the registers to which it returns
//! call         the call of `dlopen` on one waiting thread
//! detours      the jumps at the entries of malloc
//! ```
//!
//! Two steps change the process. Each is safe if the collector dies at any instant:
//!
//! 1. One waiting thread calls `dlopen` and restores its own registers. The library then waits, and counts
//!    nothing.
//! 2. All threads stand still while the collector writes the jumps. Each jump leads to code that is complete.
//!    Until a collector begins a recording, that code only forwards.

pub(crate) mod call;
pub(crate) mod detours;
pub(crate) mod modules;
pub(crate) mod priority;
pub(crate) mod ptrace;
pub(crate) mod safe_point;
pub(crate) mod stop;
pub(crate) mod target;
pub(crate) mod x86_64;

use crate::attach::call::{Call, Failure};
use crate::attach::detours::Detours;
use crate::attach::safe_point::SafePoints;
use crate::attach::target::Target;
use crate::error::{Error, refusal};
use crate::sys::idle::{Library, NotFound};
use crate::sys::maps;
use crate::sys::remote;
use crate::sys::say::say;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for all threads at the end of a recording.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How to attach to a process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest time in which all threads must have reached a safe place.
    pub timeout: Duration,
    /// For tests: edleak-record kills itself at this step.
    pub die_at: Option<String>,
}

impl Settings {
    /// Kills edleak-record at the step that a test has chosen.
    fn step(&self, name: &str) {
        if self.die_at.as_deref() == Some(name) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

/// The jumps in a process. Dropping this value puts the original code back.
#[derive(Debug)]
pub(crate) struct Redirected {
    detours: Detours,
    quiet: bool,
}

/// The remedy for a process into which the library cannot be loaded.
pub(crate) fn remedy(pid: u32) -> String {
    target::start_with_library(pid)
}

/// Whether this user may read the memory of a process. Without this permission, no other step can succeed.
pub(crate) fn check_access(pid: u32) -> std::io::Result<()> {
    let Some(first) = maps::files_of(pid).first().map(|mapping| mapping.start) else { return Ok(()) };
    remote::read(pid, first, &mut [0])
}

/// Loads the library at `path` into a process. The library waits.
pub(crate) fn load(pid: u32, path: &Path, settings: &Settings, quiet: bool) -> Result<Library, Error> {
    let limit = Instant::now() + settings.timeout;
    let target = Target::examine(pid)?;
    let allocator = target::allocator_of(pid, &target.modules, None)?;
    let no_place = || refusal("there is no free memory near its malloc", target::start_with_library(pid));
    // The check whether the code of malloc can be redirected takes time, so it comes before any thread stops.
    let detours = detours::place_for(pid, allocator).ok_or_else(no_place)?;
    Detours::compile(pid, allocator, detours.0)?;
    let library = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| refusal("the path of the library has a NUL", "move the library"))?;
    let call = Call { functions: target.functions, library: &library, detours };
    let safe_points = SafePoints::new(pid, &target.modules, allocator);
    let step = |name: &str| settings.step(name);
    let mut last = String::from("no thread waits in a system call");
    loop {
        for tid in call::waiting_threads(pid) {
            match call.run(pid, tid, &target.modules, &safe_points, limit, &step) {
                Ok(time) => {
                    if !quiet {
                        let thread = detours::name_of(pid, tid);
                        say(format_args!(
                            "thread {thread} loaded edleak's library in {}",
                            milliseconds(time)
                        ));
                    }
                    return found(pid, detours.0);
                }
                Err(Failure::Unsuitable(place)) => {
                    last = format!("thread {} is {place}", detours::name_of(pid, tid));
                }
                Err(failure) => return Err(explain(pid, tid, path, failure)),
            }
        }
        if Instant::now() >= limit {
            let remedy = "use a longer --attach-timeout, or start the process with `edleak-record --idle`";
            return Err(refusal(format!("no thread can load the library now: {last}"), remedy));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Finds the loaded library, and stores the address of its detours in it.
fn found(pid: u32, detours: u64) -> Result<Library, Error> {
    let odd = |why: String| refusal(format!("the library was loaded, but {why}"), "try again");
    let library = Library::find(pid).map_err(|why| match why {
        NotFound::Memory(error) => odd(format!("cannot be read: {error}")),
        NotFound::Absent => odd("did not start".into()),
        NotFound::Version(version) => odd(format!("has another version: {version}")),
    })?;
    library.set_detours(detours).map_err(|error| odd(format!("cannot be written: {error}")))?;
    Ok(library)
}

fn explain(pid: u32, tid: u32, path: &Path, failure: Failure) -> Error {
    let path = path.display();
    match failure {
        Failure::Unsuitable(place) => refusal(place, "try again"),
        Failure::Refused(message) => {
            let message = format!("its loader refuses the library: {message}");
            refusal(message, format!("can the process read `{path}`? Else see --copy-into"))
        }
        Failure::NoPlace => refusal("the memory near its malloc was taken meanwhile", "try again"),
        Failure::Unfinished => refusal(
            format!("thread {} still loads the library", detours::name_of(pid, tid)),
            "try again, with a longer --attach-timeout",
        ),
        Failure::System(error) if error.raw_os_error() == Some(libc::EPERM) => {
            refusal("the system does not allow to trace it", "start edleak-record as root")
        }
        Failure::System(error) => refusal(format!("it cannot be changed: {error}"), "try again"),
    }
}

/// Writes the jumps that redirect the malloc of the process to a library that was loaded late.
pub(crate) fn redirect(library: &Library, settings: &Settings, quiet: bool) -> Result<Redirected, Error> {
    let pid = library.pid();
    let modules = modules::of_process(pid);
    let unreadable =
        |error| Error::system("its library cannot be read", &error, "start edleak-record as root");
    let late = library.late().map_err(unreadable)?;
    let allocator = target::allocator_of(pid, &modules, Some(late.malloc))?;
    let mut detours = Detours::compile(pid, allocator, late.detours)?;
    detours.set_hooks(late.hooks);
    if !quiet && !detours.missing.is_empty() {
        let names = detours.missing.join("`, `");
        say(format_args!("allocations through `{names}` of process {pid} are not counted"));
    }
    let time = detours.apply(settings.timeout, &|name| settings.step(name))?;
    settings.step("all");
    tell(pid, time, quiet);
    Ok(Redirected { detours, quiet })
}

/// Puts the original code back in a process whose library was loaded late.
pub(crate) fn restore(library: &Library) {
    let pid = library.pid();
    let modules = modules::of_process(pid);
    let Ok(late) = library.late() else { return };
    let Ok(allocator) = target::allocator_of(pid, &modules, Some(late.malloc)) else { return };
    if let Ok(detours) = Detours::compile(pid, allocator, late.detours) {
        let _ = detours.remove(REMOVE_TIMEOUT);
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        let pid = self.detours.pid();
        // The process may have ended, or may have executed another program.
        if !Library::find(pid).is_ok_and(|library| library.is_late) {
            return;
        }
        match self.detours.remove(REMOVE_TIMEOUT) {
            Ok(time) => tell(pid, time, self.quiet),
            Err(_) if !crate::sys::process::is_there(pid) => {}
            Err(error) => {
                say(format_args!("the jumps in process {pid} stay, and only forward its calls: {error}"))
            }
        }
    }
}

fn tell(pid: u32, time: Duration, quiet: bool) {
    if !quiet {
        say(format_args!("process {pid} stood still for {}", milliseconds(time)));
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
