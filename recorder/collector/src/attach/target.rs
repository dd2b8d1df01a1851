//! Examines a process before an attach: finds the functions that the collector calls in the process, and
//! refuses a process that cannot be recorded.

use crate::attach::modules::{self, Module};
use crate::attach::ptrace;
use crate::error::{Error, refusal};
use crate::sys::freezer;
use crate::sys::maps;
use crate::sys::process;
use crate::sys::seccomp;
use crate::sys::shell;
use edleak_binary::ErrorKind as ElfErrorKind;
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_binary::functions::FunctionTable;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The addresses of the functions of a process that the collector calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions {
    pub(crate) dlopen: u64,
    pub(crate) dlerror: u64,
    pub(crate) errno_location: u64,
}

/// A process into which the library can be loaded: its modules, and the functions that load the library.
pub(crate) struct Target {
    pub(crate) modules: Vec<Module>,
    pub(crate) functions: Functions,
}

/// The remedy that works for every process: start the program with edleak's library.
pub(crate) fn start_with_library(pid: u32) -> String {
    let program = process::program(pid).unwrap_or_else(|| "PROGRAM".into());
    format!("start it with `edleak-record --idle {}`", shell::path(program))
}

/// The error for a process that ends during the attach.
pub(crate) fn just_ended() -> Error {
    refusal("it has just ended", "name one that runs")
}

/// The error for a process that executes another program during the attach.
pub(crate) fn executed() -> Error {
    refusal("it has executed another program", "try again")
}

impl Target {
    /// Examines a process. Returns an error if the library cannot be loaded into the process, or could not
    /// count the allocations of the process.
    pub(crate) fn examine(pid: u32) -> Result<Target, Error> {
        check_emulator(pid)?;
        check_machine(pid)?;
        check_state(pid)?;
        check_filters(pid)?;
        let modules = modules_with_libc(pid);
        check_sanitizer(pid, &modules)?;
        let unknown = || refusal("its C library is not glibc, or cannot be read", start_with_library(pid));
        let libc = modules.iter().find(|module| module.is_libc()).ok_or_else(unknown)?;
        allocator_of(pid, &modules, None)?;
        let function = |name: &str| {
            let places = modules.iter().filter(|module| module.is_libc() || module.is_loader());
            places.into_iter().find_map(|module| address_of(module, name))
        };
        let missing = |name: &str| {
            let message = format!("`{}` has no `{name}`", libc.path);
            refusal(message, start_with_library(pid))
        };
        let functions = Functions {
            dlopen: function("dlopen").ok_or_else(|| missing("dlopen"))?,
            dlerror: function("dlerror").ok_or_else(|| missing("dlerror"))?,
            errno_location: function("__errno_location").ok_or_else(|| missing("__errno_location"))?,
        };
        Ok(Target { modules, functions })
    }
}

/// The modules of a process. If the process has just executed a program, the function waits for a short time
/// until the loader has mapped libc.
fn modules_with_libc(pid: u32) -> Vec<Module> {
    const LONGEST_WAIT: Duration = Duration::from_millis(500);
    const PAUSE: Duration = Duration::from_millis(10);
    let limit = Instant::now() + LONGEST_WAIT;
    loop {
        let modules = modules::of_process(pid);
        if modules.iter().any(Module::is_libc) || process::has_ended(pid) || Instant::now() >= limit {
            return modules;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The address of an exported function of a module in the process.
fn address_of(module: &Module, name: &str) -> Option<u64> {
    let elf = module.elf()?;
    let offset = elf.exported_functions().iter().find(|(_, exported)| *exported == name)?.0;
    Some(module.start + u64::from(offset))
}

/// Refuses an emulator (qemu-user) that runs a program for another machine. The emulator itself allocates
/// with a malloc of this machine. The emulated program allocates with its own malloc, which edleak cannot
/// redirect.
fn check_emulator(pid: u32) -> Result<(), Error> {
    let emulator = process::program(pid).unwrap_or_default();
    let name = emulator.file_name().unwrap_or_default().to_string_lossy();
    // `qemu-system-*` emulates a whole machine. A user may look for leaks of the emulator itself, so edleak
    // records the emulator.
    if !name.starts_with("qemu-") || name.starts_with("qemu-system-") {
        return Ok(());
    }
    let files = maps::files_of(pid);
    let mut firsts = files.iter().filter(|mapping| mapping.offset == 0);
    let Some(program) = firsts.find(|mapping| is_foreign(&process::path_in(pid, &mapping.path))) else {
        return Ok(());
    };
    let message = format!(
        "it emulates `{}`, a program for another machine, and edleak would count the allocations of the \
         emulator",
        program.path
    );
    Err(refusal(message, "edleak records x86-64 programs"))
}

/// Whether a file is a program or a library for another machine.
fn is_foreign(path: &Path) -> bool {
    let is_of_foreign =
        |bytes: FileBytes| Elf::parse(&bytes).is_err_and(|error| error.kind() == ElfErrorKind::Foreign);
    FileBytes::open(path).is_ok_and(is_of_foreign)
}

/// Refuses a process that is built for another processor architecture, uses musl instead of glibc, or is
/// statically linked.
fn check_machine(pid: u32) -> Result<(), Error> {
    let file = format!("/proc/{pid}/exe");
    let Ok(bytes) = FileBytes::open(Path::new(&file)) else {
        return Err(refusal("its program file cannot be read", "start edleak-record as root"));
    };
    let elf = Elf::parse(&bytes);
    if elf.as_ref().is_err_and(|error| error.kind() == ElfErrorKind::Foreign) {
        return Err(refusal("it is built for another machine", "edleak records x86-64 programs"));
    }
    match elf.ok().and_then(|elf| elf.interpreter()) {
        None => {
            let message = "it is statically linked, so no library can be loaded into it";
            Err(refusal(message, "link it without `-static`"))
        }
        Some(loader) if loader.to_string_lossy().contains("musl") => Err(refusal(
            "it uses musl, whose loader cannot give edleak's library thread-local storage in a running \
             process",
            start_with_library(pid),
        )),
        Some(_) => Ok(()),
    }
}

/// Refuses a process that is stopped or frozen, that a debugger traces, or that has a shadow stack.
pub(crate) fn check_state(pid: u32) -> Result<(), Error> {
    if let Some(tracer) = process::thread_ids(pid).find_map(ptrace::tracer_of) {
        let name = fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
        let message = format!("`{}` (pid {tracer}) traces it already", name.trim());
        return Err(refusal(message, "end that program, or let it detach"));
    }
    if let Some(freezer::Frozen { file, text }) = freezer::of(pid) {
        let remedy = format!("let it go on: write {text} to `{}`", file.display());
        return Err(refusal("its control group is frozen", remedy));
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if status.lines().any(|line| line.starts_with("x86_Thread_features:") && line.contains("shstk")) {
        let message = "it has a shadow stack, which the call of the loader would violate";
        return Err(refusal(message, start_with_library(pid)));
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    if process::state_in(&stat) == Some('T') {
        return Err(refusal("it is stopped", format!("let it go on: `kill -CONT {pid}`")));
    }
    Ok(())
}

/// Refuses a process that has other seccomp filters than edleak-record. A filter that only the process has
/// may forbid system calls that the library makes.
fn check_filters(pid: u32) -> Result<(), Error> {
    let strictest = seccomp::strictest_thread(pid);
    if seccomp::are_ours(pid, strictest.filters) {
        return Ok(());
    }
    let message = format!(
        "its thread {} has forbidden itself system calls (seccomp), and the kernel might kill it for a call \
         that the library needs",
        name_of(pid, strictest.tid)
    );
    let remedy =
        "start it recorded: `edleak-record PROGRAM`; in a container, start edleak-record in that container";
    Err(refusal(message, remedy))
}

/// The thread ID and the name of a thread, as a text for messages.
pub(crate) fn name_of(pid: u32, tid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).unwrap_or_default();
    format!("{tid} (`{}`)", name.trim())
}

/// Refuses a process that contains the runtime of a sanitizer, because this runtime has its own allocator.
fn check_sanitizer(pid: u32, modules: &[Module]) -> Result<(), Error> {
    const RUNTIMES: &[&str] = &["libasan", "libhwasan", "liblsan", "libtsan", "libmsan", "libclang_rt."];
    const MARKS: &[&str] = &["__asan_init", "__hwasan_init", "__tsan_init", "__msan_init", "__lsan_init"];
    let program = process::program(pid).unwrap_or_default();
    // The runtime of the sanitizer for undefined behaviour has no allocator, so edleak accepts a process with
    // this runtime.
    let is_runtime = |module: &Module| {
        RUNTIMES.iter().any(|name| module.name().starts_with(name)) && !module.name().contains("ubsan")
    };
    let is_built_in = |module: &Module| {
        let is_program = Path::new(&module.path) == program;
        is_program
            && module.elf().is_some_and(|elf| {
                let is_defined = || {
                    FunctionTable::of(&elf).functions.iter().any(|function| MARKS.contains(&function.name))
                };
                elf.mentioned(MARKS).is_some() || is_defined()
            })
    };
    if modules.iter().any(|module| is_runtime(module) || is_built_in(module)) {
        let message = "it is built with a sanitizer that replaces the allocator";
        return Err(refusal(message, "build it without `-fsanitize`"));
    }
    Ok(())
}

/// Whether a module is the program itself of the process `pid`, and not a library.
pub(crate) fn is_program(pid: u32, module: &Module) -> bool {
    process::program(pid).is_some_and(|program| program == Path::new(&module.path))
}

/// The module whose malloc the process uses: libc, the program, or another library with an allocator.
/// `malloc` is the address of the malloc that the process uses, if this address is known.
pub(crate) fn allocator_of(pid: u32, modules: &[Module], malloc: Option<u64>) -> Result<&Module, Error> {
    let libc = modules.iter().find(|module| module.is_libc());
    let libc = libc.ok_or_else(|| refusal("it has no glibc", start_with_library(pid)))?;
    if malloc.is_some_and(|malloc| libc.contains(malloc)) {
        return Ok(libc);
    }
    let is_other = |module: &&Module| {
        let is_ours = module.name().contains("edleak");
        !module.is_libc() && !module.is_loader() && !is_ours && module.exports("malloc")
    };
    let others: Vec<&Module> = modules.iter().filter(is_other).collect();
    let other = match others[..] {
        [] => return Ok(libc),
        [other] => other,
        [first, second, ..] => {
            let message = format!("`{}` and `{}` both define malloc", first.path, second.path);
            return Err(refusal(message, start_with_library(pid)));
        }
    };
    if !keeps_sizes_apart(other) {
        let message =
            format!("its malloc is that of `{}`, and edleak cannot redirect its calls now", other.path);
        return Err(refusal(message, start_with_library(pid)));
    }
    Ok(other)
}

/// Whether a module is an allocator that keeps allocations of different sizes in different pages: jemalloc,
/// mimalloc or tcmalloc. In any other allocator, an allocation from before the recording may start so close
/// to a new allocation that edleak's library mistakes one allocation for the other.
fn keeps_sizes_apart(module: &Module) -> bool {
    let marks = ["mallocx", "mi_malloc", "tc_malloc"];
    // If the allocator is inside the program, the linker exports only some of its functions. So the collector
    // searches all functions of the module, and not only the exported functions.
    module.elf().is_some_and(|elf| {
        FunctionTable::of(&elf).functions.iter().any(|function| marks.contains(&function.name))
    })
}
