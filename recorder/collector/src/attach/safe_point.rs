//! Decides whether a waiting thread may call the dynamic loader.
//!
//! The call of `dlopen` takes locks of the loader and of malloc. So a thread that holds a lock of the loader
//! or of malloc, or waits for such a lock, must not call the loader. The collector therefore requires that no
//! function on the thread's stack belongs to malloc, to the loader or to fork. Also, no function on the stack
//! may be a signal handler, because the handler may have interrupted malloc, the loader or fork. The
//! collector walks the stack with the unwind rules of the modules. If the collector cannot walk the stack to
//! its outermost frame, the thread may not call the loader.
//!
//! Linux distributions remove the names of libc's internal functions from libc. The collector accepts a stack
//! frame of a libc function without a name only if the thread entered libc through a function with a name,
//! and this name is not in `UNSAFE_FUNCTIONS`.
//!
//! A program can contain its own allocator, and the internal functions of this allocator may have any name.
//! In a program with its own allocator, no frame of the thread may belong to a function that the program
//! calls to allocate or free memory, such as malloc. Also, the thread must wait in one of the functions of
//! `WAITS`, because an allocator never waits for its locks in these functions.

use crate::attach::arch::registers::Registers;
use crate::attach::modules::{Exported, Module};
use crate::attach::target;
use crate::detour::{Prefixes, table};
use crate::sys::remote;
use edleak_binary::functions::FunctionTable;
use edleak_session::rule::Kind;
use std::fmt;

/// Maximum number of frames that the collector walks in one stack.
const MOST_FRAMES: usize = 1024;

/// Functions of libc that may hold a lock of malloc or of the loader, or that copy or end the process. A
/// thread that is inside a function of this list must not call the loader. (The list omits malloc, free and
/// similar functions; `is_unsafe` finds these functions in another table.)
const UNSAFE_FUNCTIONS: &[&str] = &[
    "fork",
    "_Fork",
    "vfork",
    "clone",
    "daemon",
    "forkpty",
    "system",
    "popen",
    "posix_spawn",
    "posix_spawnp",
    "pthread_create",
    "pthread_exit",
    "exit",
    "_exit",
    "quick_exit",
    "abort",
    "__cxa_finalize",
    "__libc_freeres",
    "mallopt",
    "malloc_trim",
    "malloc_info",
    "malloc_stats",
    "mallinfo",
    "mallinfo2",
    "malloc_usable_size",
    "sigsuspend",
    "pause",
];

/// Functions of libc in which a thread can wait. No allocator waits for its own locks in a function of this
/// list.
const WAITS: &[&str] = &[
    "read",
    "readv",
    "write",
    "poll",
    "ppoll",
    "select",
    "pselect",
    "epoll_wait",
    "epoll_pwait",
    "accept",
    "accept4",
    "recv",
    "recvfrom",
    "recvmsg",
    "wait4",
    "waitid",
    "waitpid",
    "pthread_cond_wait",
    "pthread_cond_timedwait",
    "pthread_join",
    "sem_wait",
    "nanosleep",
    "clock_nanosleep",
    "usleep",
    "sleep",
];

/// Checks whether threads of one process may call the loader. Holds the modules of the process and the
/// functions of libc.
pub(crate) struct SafePoints<'a> {
    pid: u32,
    modules: &'a [Module],
    libc: Vec<Exported>,
    allocator: Allocator,
}

/// The kind of the module that contains malloc.
enum Allocator {
    Libc,
    Library(usize),
    Program {
        module: usize,
        /// The program's allocator functions, such as malloc: start address, end address and name of each.
        functions: Vec<(u64, u64, String)>,
    },
}

/// A place at which a thread must not call the loader.
#[derive(Debug)]
pub(crate) enum UnsafePlace<'a> {
    /// The thread is in the dynamic loader, the module with this path.
    Loader(&'a str),
    /// The thread is in the library with this path, which contains malloc.
    Allocator(&'a str),
    /// The thread is in the function with this name.
    Function(&'a str),
    /// The thread waits, but not in a function of [`WAITS`], and the program has its own allocator.
    AllocatorMayWait,
    /// The thread entered libc through a function without a name.
    NamelessFunction,
    /// The thread is in a signal handler.
    SignalHandler,
    /// The collector cannot walk the stack. The walk ended at this address.
    UnknownStack(u64),
}

impl fmt::Display for UnsafePlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnsafePlace::Loader(path) => write!(f, "in the dynamic loader (`{path}`)"),
            UnsafePlace::Allocator(path) => write!(f, "in the allocator (`{path}`)"),
            UnsafePlace::Function(name) => write!(f, "in `{name}`"),
            UnsafePlace::AllocatorMayWait => {
                f.write_str("in a function in which the program's allocator may wait")
            }
            UnsafePlace::NamelessFunction => f.write_str("in a function of libc without a name"),
            UnsafePlace::SignalHandler => f.write_str("in a signal handler"),
            UnsafePlace::UnknownStack(address) => {
                write!(f, "on a stack that cannot be walked (at {address:#x})")
            }
        }
    }
}

/// A frame of the stack of a stopped thread.
struct Frame {
    /// For the innermost frame: the address of the next instruction. For any other frame: an address inside
    /// the instruction that called the next inner function.
    address: u64,
    module: usize,
}

impl<'a> SafePoints<'a> {
    /// Prepares the checks of the threads of a process. `allocator` is the module that contains malloc.
    pub(crate) fn new(pid: u32, modules: &'a [Module], allocator: &Module) -> SafePoints<'a> {
        let libc = modules.iter().find(|module| module.is_libc());
        let position = modules.iter().position(|module| module.start == allocator.start);
        SafePoints {
            pid,
            modules,
            libc: libc.map(Module::exported).unwrap_or_default(),
            allocator: match position.filter(|_| !allocator.is_libc()) {
                None => Allocator::Libc,
                Some(module) if target::is_program(pid, allocator) => {
                    Allocator::Program { module, functions: interface_of(allocator) }
                }
                Some(module) => Allocator::Library(module),
            },
        }
    }

    /// Checks that a stopped thread may call the loader. The error tells where the thread is.
    pub(crate) fn check(&self, registers: &Registers) -> Result<(), UnsafePlace<'_>> {
        let frames = self.walk(registers)?;
        let is_libc = |frame: &Frame| self.modules[frame.module].is_libc();
        if let Some(frame) = frames.iter().find(|frame| self.modules[frame.module].is_loader()) {
            return Err(UnsafePlace::Loader(&self.modules[frame.module].path));
        }
        match &self.allocator {
            Allocator::Libc => {}
            Allocator::Library(module) => {
                if frames.iter().any(|frame| frame.module == *module) {
                    return Err(UnsafePlace::Allocator(&self.modules[*module].path));
                }
            }
            Allocator::Program { module, functions } => {
                let is_inside = |(start, end, _): &&(u64, u64, String)| {
                    let mut of_program = frames.iter().filter(|frame| frame.module == *module);
                    of_program.any(|frame| (*start..*end).contains(&frame.address))
                };
                if let Some((.., name)) = functions.iter().find(is_inside) {
                    return Err(UnsafePlace::Function(name));
                }
                let mut innermost = frames.iter().take_while(|frame| is_libc(frame));
                if !innermost.any(|frame| self.is_wait(frame.address)) {
                    return Err(UnsafePlace::AllocatorMayWait);
                }
            }
        }
        for frame in frames.iter().filter(|frame| is_libc(frame)) {
            let names = self.function_at(frame.address).map_or(&[][..], |function| &function.names);
            if let Some(name) = names.iter().find(|name| is_unsafe(name)) {
                return Err(UnsafePlace::Function(name));
            }
        }
        // Several frames of libc in a row form a group. In each group, check only the outermost frame: its
        // function was called from outside libc. Skip the group of libc frames at the outer end of the stack,
        // because the functions of this group only start the thread.
        let mut inner = 0;
        while inner < frames.len() {
            let length = frames[inner..].iter().take_while(|frame| is_libc(frame)).count();
            let outer = inner + length;
            if length > 0 && (outer < frames.len() || inner == 0) {
                let entered = &frames[outer - 1];
                if outer == frames.len() || self.function_at(entered.address).is_none() {
                    return Err(UnsafePlace::NamelessFunction);
                }
            }
            inner = outer + 1;
        }
        Ok(())
    }

    /// Whether an address belongs to a function in the list [`WAITS`].
    fn is_wait(&self, address: u64) -> bool {
        let plain = |name: &str| name.trim_start_matches('_').trim_start_matches("libc_").to_owned();
        let is_known = |name: &String| WAITS.contains(&plain(name).as_str());
        self.function_at(address).is_some_and(|function| function.names.iter().any(is_known))
    }

    fn function_at(&self, address: u64) -> Option<&Exported> {
        let after = self.libc.partition_point(|function| function.start <= address);
        self.libc[..after].last().filter(|function| address < function.end)
    }

    /// The frames of a thread's stack, innermost first. The error tells where the walk failed.
    fn walk(&self, registers: &Registers) -> Result<Vec<Frame>, UnsafePlace<'_>> {
        let (mut pc, mut sp, mut fp) = (registers.pc(), registers.sp(), registers.fp());
        let mut frames = Vec::new();
        while frames.len() < MOST_FRAMES {
            // If a function ends with a call, the return address is after the end of the function. So look up
            // the byte before the return address: this byte always belongs to the function.
            let address = if frames.is_empty() { pc } else { pc.wrapping_sub(1) };
            let module = self.modules.iter().position(|module| module.contains(address));
            let module = module.ok_or(UnsafePlace::UnknownStack(pc))?;
            let rule = self.modules[module].rule_at(address);
            frames.push(Frame { address, module });
            let cfa = match rule.kind() {
                Kind::Sp => sp.wrapping_add(rule.cfa_offset() as u64),
                Kind::Fp => fp.wrapping_add(rule.cfa_offset() as u64),
                Kind::End => return Ok(frames),
                Kind::Signal => return Err(UnsafePlace::SignalHandler),
                Kind::Unknown => return Err(UnsafePlace::UnknownStack(pc)),
            };
            if cfa <= sp && !frames.is_empty() && cfa < registers.sp() {
                return Err(UnsafePlace::UnknownStack(pc));
            }
            pc = self.word(cfa.wrapping_sub(8)).ok_or(UnsafePlace::UnknownStack(pc))?;
            if rule.fp_offset() != 0 {
                let saved = cfa.wrapping_sub(rule.fp_offset() as u64);
                fp = self.word(saved).ok_or(UnsafePlace::UnknownStack(pc))?;
            }
            sp = cfa;
        }
        Err(UnsafePlace::UnknownStack(pc))
    }

    fn word(&self, address: u64) -> Option<u64> {
        remote::read_u64(self.pid, address).ok()
    }
}

/// The functions of a module that have the name of an allocator function, such as malloc: start address, end
/// address and name of each.
fn interface_of(module: &Module) -> Vec<(u64, u64, String)> {
    let Some(elf) = module.elf() else { return Vec::new() };
    let table = FunctionTable::of(&elf);
    let known = table.functions.iter().filter(|one| table::lookup(one.name, &Prefixes::default()).is_some());
    let at = |offset: u32| module.start + u64::from(offset);
    known.map(|one| (at(one.start), at(one.end), one.name.to_owned())).collect()
}

/// Whether a thread in this function of libc may hold a lock of malloc or of the loader.
fn is_unsafe(name: &str) -> bool {
    let plain = name.trim_start_matches('_').trim_start_matches("libc_");
    UNSAFE_FUNCTIONS.contains(&name)
        || UNSAFE_FUNCTIONS.contains(&plain)
        || plain.starts_with("dl")
        || table::lookup(plain, &Prefixes::default()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_with_locks_of_malloc_or_of_the_loader_are_unsafe() {
        for name in
            ["malloc", "__libc_malloc", "free", "realloc", "dlopen", "dl_iterate_phdr", "fork", "__fork"]
        {
            assert!(is_unsafe(name), "{name}");
        }
        for name in
            ["read", "poll", "epoll_wait", "pthread_cond_wait", "accept4", "nanosleep", "__libc_start_main"]
        {
            assert!(!is_unsafe(name), "{name}");
        }
    }
}
