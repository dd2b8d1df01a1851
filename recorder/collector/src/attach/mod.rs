//! Attaches to a process that runs without edleak's library: loads the library into the process, and
//! redirects the process's malloc to the library.
//!
//! ```text
//! priority     raises the collector's own priority while threads stand still
//! ptrace       stops one thread, reads and sets its registers, and lets it go on
//! stop         stops all threads at the same time
//! modules      reads the functions and the unwind rules of the files that the process has mapped
//! target       refuses processes that cannot be recorded; finds the functions to call in the process
//! safe_point   decides whether a waiting thread may call the loader
//! x86_64       registers  the registers of a stopped thread, with a method for each use
//!              code       the code that the thread runs to load the library
//!              frame      the signal frame that restores the thread's registers
//! call         lets one waiting thread call `dlopen`
//! candidates   selects the functions to redirect: malloc, mmap, allocators under their own names
//! annotations  finds the modules that call the functions of edleak.h
//! detours      writes and removes the jumps at the entries of the selected functions
//! ```
//!
//! Two steps change the process. If the collector dies at any instant of a step, the process runs on
//! unharmed:
//!
//! 1. One thread, which waits in a system call, calls `dlopen` and then gets its former registers back. The
//!    loaded library counts nothing until a recording begins.
//! 2. All threads stand still while the collector writes the jumps. Each jump leads to code that is already
//!    complete. Until a collector begins a recording, the code behind each jump only forwards calls to the
//!    original function.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("edleak attaches on x86-64 only (add a folder beside attach/x86_64)");

pub(crate) mod annotations;
#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
pub(crate) mod arch;
pub(crate) mod call;
pub(crate) mod candidates;
pub(crate) mod detours;
pub(crate) mod modules;
pub(crate) mod priority;
pub(crate) mod ptrace;
pub(crate) mod safe_point;
pub(crate) mod stop;
pub(crate) mod target;

pub(crate) use target::{executed, just_ended, name_of};

use crate::attach::call::{Call, Failure, Loaded};
use crate::attach::detours::Detours;
use crate::attach::safe_point::SafePoints;
use crate::attach::stop::{LONG_STOP, milliseconds};
use crate::attach::target::Target;
use crate::detour::Prefixes;
use crate::error::{Error, refusal};
use crate::sys::idle::{Library, NotFound};
use crate::sys::image::Image;
use crate::sys::maps;
use crate::sys::process;
use crate::sys::remote;
use crate::sys::say::say;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two attempts to attach.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest time for which the collector tries to stop all threads at the end of a recording, to remove the
/// jumps.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings for an attach to a process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest time for the whole attach, which ends when the library is loaded and all jumps are written.
    pub timeout: Duration,
    /// A step of the attach at which edleak-record kills itself, so that a test can check the process after a
    /// crash. Only tests set a step.
    pub die_at: Option<String>,
}

impl Settings {
    /// Kills edleak-record if a test has chosen the step `name`.
    fn step(&self, name: &str) {
        if self.die_at.as_deref() == Some(name) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

/// The jumps in a process. Dropping this value writes the original code back.
#[derive(Debug)]
pub(crate) struct Redirected {
    detours: Detours,
    quiet: bool,
}

/// The remedy in the error for a process into which the library cannot be loaded.
pub(crate) fn remedy(pid: u32) -> String {
    target::start_with_library(pid)
}

/// Checks that this user may read the memory of a process. If this user may not read the memory, edleak
/// cannot attach to the process.
pub(crate) fn check_access(pid: u32) -> std::io::Result<()> {
    let Some(first) = maps::files_of(pid).first().map(|mapping| mapping.start) else { return Ok(()) };
    remote::read(pid, first, &mut [0])
}

/// Loads the library at `path` into a process before the deadline `limit`. The library counts nothing yet.
pub(crate) fn load(
    pid: u32,
    path: &Path,
    settings: &Settings,
    limit: Instant,
    prefixes: &Prefixes,
    quiet: bool,
) -> Result<Library, Error> {
    let image = Image::of(pid);
    let target = Target::examine(pid)?;
    let allocator = target::allocator_of(pid, &target.modules, None)?;
    let found_places = || {
        let places = places(pid, &target.modules, allocator, prefixes)?;
        let ranges: Vec<(u64, u64)> = places.iter().map(|place| (place.address, place.bytes)).collect();
        Ok::<_, Error>((places, ranges))
    };
    let (mut places, mut ranges) = found_places()?;
    let library = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| refusal("the path of the library has a NUL", "move the library"))?;
    let safe_points = SafePoints::new(pid, &target.modules, allocator);
    let step = |name: &str| settings.step(name);
    let mut positions: BTreeMap<u32, String> = BTreeMap::new();
    loop {
        stop::release_ended(pid);
        for tid in call::waiting_threads(pid) {
            let call = Call { functions: target.functions, library: &library, places: &ranges };
            match call.run(pid, tid, &target.modules, &safe_points, limit, &step) {
                // The process has mapped memory at an address that the collector chose for detours, for
                // example for a new thread. So choose new addresses for the detours.
                Err(Failure::NoPlace) if Instant::now() < limit => (places, ranges) = found_places()?,
                Ok(Loaded { time, is_placed }) => {
                    if !quiet || time > LONG_STOP {
                        let thread = target::name_of(pid, tid);
                        say(format_args!(
                            "thread {thread} loaded edleak's library in {}",
                            milliseconds(time)
                        ));
                    }
                    let placed = places.iter().zip(is_placed).filter(|(_, is_placed)| *is_placed);
                    let placed: Vec<_> = placed.map(|(place, _)| (place.module, place.address)).collect();
                    return found(pid, &placed);
                }
                // If the thread did not stop in this attempt, the message keeps the text of an earlier
                // attempt, which tells where the thread was.
                Err(Failure::Unsuitable(position)) if position == call::RUNNING => {
                    positions.entry(tid).or_insert(position);
                }
                Err(Failure::Unsuitable(position)) => _ = positions.insert(tid, position),
                Err(Failure::Ended) => {}
                Err(failure) => return Err(explain(pid, tid, path, failure)),
            }
        }
        if process::has_ended(pid) {
            return Err(just_ended());
        }
        if Image::has_changed(pid, image) {
            return Err(executed());
        }
        if Instant::now() >= limit {
            // The process may have been stopped since the first check, so check the state of the process
            // again.
            target::check_state(pid)?;
            let message = format!("no thread can load the library now: {}", describe(pid, &positions));
            let remedy = "use a longer --attach-timeout, or start the process with `edleak-record --idle`";
            return Err(refusal(message, remedy));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Describes, for a message, in which function or system call each thread is. For each thread that the
/// collector has stopped, `positions` holds the function or system call of this thread, as a text.
fn describe(pid: u32, positions: &BTreeMap<u32, String>) -> String {
    /// Maximum number of threads that the message describes.
    const MOST_THREADS: usize = 4;
    let threads: Vec<u32> = process::thread_ids(pid).collect();
    let position = |tid: &u32| positions.get(tid).cloned().unwrap_or_else(|| call::position_of(pid, *tid));
    let told = threads.iter().take(MOST_THREADS);
    let mut told: Vec<String> =
        told.map(|tid| format!("thread {} is {}", target::name_of(pid, *tid), position(tid))).collect();
    if threads.len() > MOST_THREADS {
        told.push(format!("and so on for {} threads", threads.len()));
    }
    told.join(", ")
}

/// Memory for the detours of one module.
struct Place {
    /// The address of the module.
    module: u64,
    address: u64,
    bytes: u64,
}

/// Chooses the memory for the detours of each module. The first element is for the module that contains
/// malloc. This function also checks whether malloc can be redirected. The check of malloc takes time, so the
/// function runs before the collector stops a thread.
fn places(
    pid: u32,
    modules: &[modules::Module],
    allocator: &modules::Module,
    prefixes: &Prefixes,
) -> Result<Vec<Place>, Error> {
    let mut mapped = candidates::mapped(pid);
    let mut places = Vec::new();
    for candidate in candidates::of_process(pid, modules, allocator, prefixes) {
        match candidate.place(&mapped) {
            Some((address, bytes)) => {
                if candidate.is_required {
                    candidate.compile(address)?;
                }
                mapped.push((address, address + bytes));
                places.push(Place { module: candidate.module.start, address, bytes });
            }
            None if candidate.is_required => {
                candidate.compile(candidate.module.start)?;
                let message = "there is no free memory near its malloc";
                return Err(refusal(message, target::start_with_library(pid)));
            }
            None => {}
        }
    }
    Ok(places)
}

/// Finds edleak's library in the process, and writes into the library the addresses of the memory for
/// detours.
fn found(pid: u32, places: &[(u64, u64)]) -> Result<Library, Error> {
    let odd = |why: String| refusal(format!("the library was loaded, but {why}"), "try again");
    let library = Library::find(pid).map_err(|why| match why {
        NotFound::Memory(error) => odd(format!("cannot be read: {error}")),
        NotFound::Absent => odd("did not start".into()),
        NotFound::Version(version) => odd(format!("has another version: {version}")),
    })?;
    library.set_places(places).map_err(|error| odd(format!("cannot be written: {error}")))?;
    Ok(library)
}

fn explain(pid: u32, tid: u32, path: &Path, failure: Failure) -> Error {
    let path = path.display();
    match failure {
        Failure::Unsuitable(place) => refusal(place, "try again"),
        Failure::Ended => just_ended(),
        Failure::Refused(message) => {
            let message = format!("its loader refuses the library: {message}");
            refusal(message, format!("can the process read `{path}`? Else see --copy-into"))
        }
        Failure::NoPlace => refusal("the memory near its malloc was taken meanwhile", "try again"),
        Failure::Unfinished => target::check_state(pid).err().unwrap_or_else(|| {
            refusal(
                format!("thread {} still loads the library", target::name_of(pid, tid)),
                "try again, with a longer --attach-timeout",
            )
        }),
        Failure::System(error) if error.raw_os_error() == Some(libc::EPERM) => {
            // No other program traced the process at the first check. Check again, because a debugger may
            // have attached to the process since the first check.
            target::check_state(pid).err().unwrap_or_else(|| {
                refusal(
                    "the kernel or a seccomp filter of edleak-record forbids `ptrace`",
                    "start edleak-record as root; in a container, with `--cap-add SYS_PTRACE`",
                )
            })
        }
        Failure::System(error) => refusal(format!("it cannot be changed: {error}"), "try again"),
    }
}

/// Compiles the detours of a process that already ran when a collector loaded the library into the process.
pub(crate) fn compile(library: &Library, prefixes: &Prefixes) -> Result<Detours, Error> {
    let pid = library.pid();
    let modules = modules::of_process(pid);
    let unreadable =
        |error| Error::system("its library cannot be read", &error, "start edleak-record as root");
    let late = library.late().map_err(unreadable)?;
    let allocator = target::allocator_of(pid, &modules, Some(late.malloc))?;
    Detours::compile(pid, &modules, allocator, &late, prefixes)
}

/// Writes the jumps that redirect functions of the process to the library, before the deadline `limit`.
pub(crate) fn redirect(
    detours: Detours,
    settings: &Settings,
    limit: Instant,
    quiet: bool,
) -> Result<Redirected, Error> {
    let pid = detours.pid();
    // Even if no time is left, the collector tries once to write the jumps.
    let left = limit.saturating_duration_since(Instant::now());
    let time = detours.apply(left, &|name| settings.step(name))?;
    settings.step("all");
    tell(pid, time, quiet);
    Ok(Redirected { detours, quiet })
}

/// Prints which calls of the process edleak does not record.
pub(crate) fn tell_missing(detours: &Detours) {
    let pid = detours.pid();
    if !detours.missing.is_empty() {
        let names = detours.missing.join("`, `");
        say(format_args!("allocations through `{names}` of process {pid} are not counted"));
    }
    if !detours.has_mappings {
        say(format_args!(
            "calls of mmap of process {pid} are not recorded: its libc cannot be redirected there (start it \
             with `edleak-record --idle PROGRAM`)"
        ));
    }
    for path in detours.outdated() {
        say(format_args!(
            "marks and pools of `{path}` are not recorded: it was built with an earlier edleak.h (build it \
             again, or start the process with `edleak-record --idle PROGRAM`)"
        ));
    }
}

/// A message that explains why nothing was recorded: it names an allocator of the process that edleak cannot
/// redirect. `None`: edleak can redirect every allocator of the process.
pub(crate) fn uncounted_allocator(pid: u32, prefixes: &Prefixes) -> Option<String> {
    let modules = modules::of_process(pid);
    let allocator = target::allocator_of(pid, &modules, None).ok()?;
    candidates::uncounted(pid, &modules, allocator, prefixes)
}

/// Writes the original code back in a process into which edleak-record loaded the library.
pub(crate) fn restore(library: &Library, prefixes: &Prefixes) {
    if let Ok(detours) = compile(library, prefixes) {
        let _ = detours.remove(REMOVE_TIMEOUT);
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        let pid = self.detours.pid();
        // If the process has ended or has executed another program, there are no jumps to remove.
        if !Library::find(pid).is_ok_and(|library| library.is_late) {
            return;
        }
        match self.detours.remove(REMOVE_TIMEOUT) {
            Ok(time) => tell(pid, time, self.quiet),
            Err(_) if process::ends_now(pid) => {}
            Err(error) => {
                say(format_args!("the jumps in process {pid} stay, and only forward its calls: {error}"))
            }
        }
    }
}

fn tell(pid: u32, time: Duration, quiet: bool) {
    if !quiet || time > LONG_STOP {
        say(format_args!("process {pid} stood still for {}", milliseconds(time)));
    }
}
