//! The process: the functions that the collector calls in it, and the reasons to refuse it.

use crate::attach::modules::{self, Module};
use crate::attach::ptrace;
use crate::error::{Error, refusal};
use crate::sys::process;
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_binary::functions::FunctionTable;
use std::fs;
use std::path::Path;

/// The addresses of the functions of a process that the collector calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions {
    pub(crate) dlopen: u64,
    pub(crate) dlerror: u64,
    pub(crate) errno_location: u64,
}

/// The modules of a process into which the library can be loaded, and the functions for it.
pub(crate) struct Target {
    pub(crate) modules: Vec<Module>,
    pub(crate) functions: Functions,
}

/// The remedy that always works.
pub(crate) fn start_with_library(pid: u32) -> String {
    let program = process::program(pid).unwrap_or_else(|| "PROGRAM".into());
    format!("start it with `edleak-record --idle {}`", program.display())
}

impl Target {
    /// Examines a process. Refuses it if the library cannot be loaded or could not count.
    pub(crate) fn examine(pid: u32) -> Result<Target, Error> {
        check_machine(pid)?;
        check_state(pid)?;
        check_filters(pid)?;
        let modules = modules::of_process(pid);
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

/// The address of an exported function in the process.
fn address_of(module: &Module, name: &str) -> Option<u64> {
    let elf = module.elf()?;
    let offset = elf.exported_functions().iter().find(|(_, exported)| *exported == name)?.0;
    Some(module.start + u64::from(offset))
}

/// Refuses a process for another machine, with another libc, or without a loader.
fn check_machine(pid: u32) -> Result<(), Error> {
    const CLASS_64: u8 = 2;
    const X86_64: u8 = 62;
    let file = format!("/proc/{pid}/exe");
    let Ok(bytes) = FileBytes::open(Path::new(&file)) else {
        return Err(refusal("its program file cannot be read", "start edleak-record as root"));
    };
    let head: &[u8] = &bytes;
    if head.get(4) != Some(&CLASS_64) || head.get(18..20) != Some(&[X86_64, 0]) {
        return Err(refusal("it is built for another machine", "edleak records x86-64 programs"));
    }
    let interpreter = Elf::parse(&bytes).ok().and_then(|elf| elf.interpreter());
    match interpreter {
        None => {
            let message = "it is statically linked, so no library can be loaded into it";
            Err(refusal(message, "link it without `-static`"))
        }
        Some(loader) if loader.to_string_lossy().contains("musl") => Err(refusal(
            "it uses musl, whose loader cannot load edleak's library into a running process",
            start_with_library(pid),
        )),
        Some(_) => Ok(()),
    }
}

/// Refuses a stopped or traced process.
fn check_state(pid: u32) -> Result<(), Error> {
    if let Some(tracer) = process::thread_ids(pid).find_map(ptrace::tracer_of) {
        let name = fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
        let message = format!("`{}` (pid {tracer}) traces it already", name.trim());
        return Err(refusal(message, "end that program, or let it detach"));
    }
    if is_frozen(pid) {
        return Err(refusal("its control group is frozen", "let it go on: write 0 to its cgroup.freeze"));
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

/// Whether the kernel holds all processes of the process's control group.
fn is_frozen(pid: u32) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let events = fs::read_to_string(format!("/sys/fs/cgroup{group}/cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}

/// Refuses a process with more seccomp filters than edleak-record: they may forbid system calls of the
/// library.
fn check_filters(pid: u32) -> Result<(), Error> {
    let filters = |pid| process::read_status(pid).map_or(0, |status| status.seccomp_filters);
    if filters(pid) > filters(std::process::id()) {
        return Err(refusal(
            "it has forbidden itself system calls (seccomp), and the kernel might kill it for one that the \
             library needs",
            "start it recorded: `edleak-record PROGRAM`; in a container, start edleak-record in that container",
        ));
    }
    Ok(())
}

/// Refuses a process with the runtime of a sanitizer, which has its own allocator.
fn check_sanitizer(pid: u32, modules: &[Module]) -> Result<(), Error> {
    const RUNTIMES: &[&str] = &["libasan", "libhwasan", "liblsan", "libtsan", "libmsan", "libclang_rt."];
    const MARKS: &[&str] = &["__asan_init", "__hwasan_init", "__tsan_init", "__msan_init", "__lsan_init"];
    let program = process::program(pid).unwrap_or_default();
    let is_runtime = |module: &Module| RUNTIMES.iter().any(|name| module.name().starts_with(name));
    let is_built_in = |module: &Module| {
        let is_program = Path::new(&module.path) == program;
        is_program && module.elf().is_some_and(|elf| MARKS.iter().any(|mark| elf.mentions(mark)))
    };
    if modules.iter().any(|module| is_runtime(module) || is_built_in(module)) {
        let message = "it is built with a sanitizer that replaces the allocator";
        return Err(refusal(message, "build it without `-fsanitize`"));
    }
    Ok(())
}

/// Whether a module is the program of a process.
pub(crate) fn is_program(pid: u32, module: &Module) -> bool {
    process::program(pid).is_some_and(|program| program == Path::new(&module.path))
}

/// The module whose malloc the process uses: libc, or the program or a library with an allocator. `malloc` is the address at
/// which the process finds malloc, if it is known.
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
/// mimalloc or tcmalloc. In any other allocator, an allocation from before the recording may lie so close to
/// a new allocation that the library confuses the two.
fn keeps_sizes_apart(module: &Module) -> bool {
    let marks = ["mallocx", "mi_malloc", "tc_malloc"];
    // The linker exports only some functions of an allocator inside the program.
    module.elf().is_some_and(|elf| {
        FunctionTable::of(&elf).functions.iter().any(|function| marks.contains(&function.name))
    })
}
