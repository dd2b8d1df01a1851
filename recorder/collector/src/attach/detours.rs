//! Compiles, writes and removes the jumps at the entries of functions in a process.
//!
//! Each jump leads to a stub: a few instructions near the module of the function. Each stub jumps to a hook:
//! the function of edleak's library that counts the call. The stubs stay in the process after the recording.
//! The collector writes all bytes through /proc/PID/mem. Through this file, the collector can also change
//! private memory that the process itself may only read or execute. So the collector makes no page of the
//! process writable.
//!
//! While the threads stand still, the collector also stores the addresses through which the program calls the
//! functions for marks and pools ([`crate::attach::annotations`]).

use crate::attach::annotations::{self, Annotations};
use crate::attach::candidates;
use crate::attach::modules::Module;
use crate::attach::stop::{LONG_STOP, Stopped, Unstopped, milliseconds};
use crate::attach::target::{just_ended, name_of};
use crate::detour::Prefixes;
use crate::detour::module::{Compiled, Patch};
use crate::error::{Error, refusal};
use crate::sys::idle::Late;
use crate::sys::maps;
use crate::sys::remote;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Maximum number of bytes that the collector searches in the stack of each thread for addresses of code that
/// a signal handler interrupted.
const MOST_STACK_BYTES: u64 = 8 << 20;

/// The detours of one process.
#[derive(Clone, Debug)]
pub(crate) struct Detours {
    pid: u32,
    modules: Vec<ModuleDetours>,
    annotations: Annotations,
    /// The addresses of two functions of the library: the function for marks, and the function for pools.
    functions: [u64; 2],
    /// Whether calls of mmap and of the other functions that map or unmap memory can be recorded.
    pub(crate) has_mappings: bool,
    /// Whether this recording records calls of mmap and of the other functions that map or unmap memory.
    pub(crate) records_mappings: bool,
    /// The names of the allocator's functions that get no detour.
    pub(crate) missing: Vec<String>,
}

/// The detours of one module.
#[derive(Clone, Debug)]
struct ModuleDetours {
    compiled: Compiled,
    /// Whether the process uses the malloc of this module.
    is_required: bool,
    /// Whether some of the detours redirect functions that map or unmap memory, such as mmap.
    has_mappings: bool,
}

/// A change of memory: at `address`, the bytes `after` replace the bytes `before`.
struct Write {
    address: u64,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Detours {
    /// Compiles the detours of a process that already ran when a collector loaded the library into the
    /// process. `allocator` is the module whose malloc the process uses.
    pub(crate) fn compile(
        pid: u32,
        modules: &[Module],
        allocator: &Module,
        late: &Late,
        prefixes: &Prefixes,
    ) -> Result<Detours, Error> {
        let mut detours = Detours {
            pid,
            modules: Vec::new(),
            annotations: annotations::find(modules),
            functions: late.annotations,
            has_mappings: false,
            records_mappings: false,
            missing: Vec::new(),
        };
        for candidate in candidates::of_process(pid, modules, allocator, prefixes) {
            let is_required = candidate.is_required;
            if is_required {
                detours.missing = candidate.missing();
            }
            let place = late.places.iter().find(|(module, _)| *module == candidate.module.start);
            let Some((_, address)) = place.filter(|(_, address)| *address != 0) else {
                if is_required {
                    let message = "its malloc has changed since edleak-record attached to it before";
                    return Err(refusal(message, "start the process again"));
                }
                continue; // the process loaded this module later than edleak's library
            };
            match candidate.compile(*address) {
                Ok(mut compiled) => {
                    set_hooks(&mut compiled, late);
                    let has_mappings = candidate.has_mappings();
                    detours.has_mappings |= has_mappings;
                    detours.modules.push(ModuleDetours { compiled, is_required, has_mappings });
                }
                Err(error) if is_required => return Err(error),
                Err(_) => {}
            }
        }
        Ok(detours)
    }

    /// The paths of the modules that were compiled with an old version of edleak.h, so that edleak does not
    /// record their marks and pools.
    pub(crate) fn outdated(&self) -> &[String] {
        &self.annotations.outdated
    }

    /// The process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    fn memory(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(format!("/proc/{}/mem", self.pid))
    }

    /// Writes the stubs and the jumps while all threads stand still. Returns the longest time for which the
    /// threads stood still in one attempt.
    pub(crate) fn apply(&self, timeout: Duration, step: &dyn Fn(&str)) -> Result<Duration, Error> {
        self.change(timeout, step, true)
    }

    /// Puts the original bytes back while all threads stand still. The stubs and the library stay in the
    /// process, because a thread may still run their code. The jump at a sized free (a free that also gets
    /// the size of the allocation) also stays in place. During the recording, stubs may have requested more
    /// bytes than the program did. When the program frees an allocation that a stub has enlarged, the program
    /// passes the smaller size that it requested. Without the jump, the allocator would get this wrong size.
    /// Returns the time for which the threads stood still.
    pub(crate) fn remove(&self, timeout: Duration) -> Result<Duration, Error> {
        self.change(timeout, &|_| {}, false)
    }

    fn change(&self, timeout: Duration, step: &dyn Fn(&str), is_apply: bool) -> Result<Duration, Error> {
        const FIRST_ATTEMPT: Duration = Duration::from_millis(100);
        /// Longest time for one attempt to stop all threads. While the collector waits for the last thread to
        /// stop, all other threads stand still.
        const LONGEST_ATTEMPT: Duration = Duration::from_secs(1);
        const PAUSE: Duration = Duration::from_millis(5);
        let limit = Instant::now() + timeout;
        let (mut attempt, mut longest) = (FIRST_ATTEMPT, Duration::ZERO);
        loop {
            let began = Instant::now();
            let stopped = Stopped::all(self.pid, limit.min(Instant::now() + attempt));
            attempt = LONGEST_ATTEMPT.min(2 * attempt);
            let obstacle = match stopped {
                Ok(stopped) => match self.blocking_thread(&stopped, is_apply) {
                    Ok(None) => {
                        let written = self.write_all(step, is_apply);
                        let time = stopped.let_go();
                        return written.map(|()| time.max(longest));
                    }
                    Ok(Some(tid)) => {
                        format!("thread {} is about to enter a function to change", name_of(self.pid, tid))
                    }
                    Err(error) => format!("the registers of its threads cannot be read: {error}"),
                },
                Err(Unstopped::Running(tid)) => {
                    format!("thread {} does not stop", name_of(self.pid, tid))
                }
                Err(Unstopped::Ended) => return Err(just_ended()),
                Err(Unstopped::Refused(error)) => {
                    let message = format!("its threads cannot be stopped: {error}");
                    return Err(refusal(message, "start edleak-record as root"));
                }
            };
            longest = longest.max(began.elapsed());
            if Instant::now() >= limit {
                let message = match longest > LONG_STOP {
                    true => {
                        format!("{obstacle}; the other threads stood still for {}", milliseconds(longest))
                    }
                    false => obstacle,
                };
                return Err(refusal(message, "use a longer --attach-timeout; is the process frozen?"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A thread whose next instruction is in the middle of the bytes that a jump replaces, either now or
    /// after a signal handler returns; `None`: there is no such thread. When a signal handler returns, the
    /// kernel restores the registers from the stack. So the collector also searches the stack of each thread
    /// for addresses in the bytes that a jump replaces.
    fn blocking_thread(&self, stopped: &Stopped, is_apply: bool) -> io::Result<Option<u32>> {
        if !is_apply {
            // The collector is about to remove the jumps. A jump is one instruction, so no thread can be in
            // the middle of a jump.
            return Ok(None);
        }
        let map = maps::text_of(self.pid).unwrap_or_default();
        let mapped: Vec<(u64, u64)> = maps::ranges(&map);
        let mut stack = Vec::new();
        for (tid, registers) in stopped.registers()? {
            if self.is_displaced(registers.pc()) {
                return Ok(Some(tid));
            }
            let sp = registers.sp() & !7;
            let Some((_, end)) = mapped.iter().find(|(start, end)| (*start..*end).contains(&sp)) else {
                return Ok(Some(tid));
            };
            stack.resize((end - sp).min(MOST_STACK_BYTES) as usize, 0);
            remote::read(self.pid, sp, &mut stack)?;
            let words = stack.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
            if words.into_iter().any(|word| self.is_displaced(word)) {
                return Ok(Some(tid));
            }
        }
        Ok(None)
    }

    /// Whether a jump replaces the byte at `address`, and this byte is not the first byte of the jump.
    fn is_displaced(&self, address: u64) -> bool {
        let behind =
            |patch: &Patch| address > patch.address && address < patch.address + patch.expected.len() as u64;
        self.modules.iter().flat_map(|module| &module.compiled.patches).any(behind)
    }

    /// Writes or removes the jumps, writes the stubs, and stores the addresses of the functions for marks and
    /// pools. All threads must stand still during this call.
    fn write_all(&self, step: &dyn Fn(&str), is_apply: bool) -> Result<(), Error> {
        let memory = self.memory().map_err(unreadable)?;
        let mut pending = Vec::new();
        let mut failure = None;
        for module in &self.modules {
            match self.writes_of(module, &memory, is_apply) {
                Ok(writes) => pending.extend(writes),
                Err(error) if module.is_required && is_apply => return Err(error),
                // If the collector went on without the jumps at mmap and similar functions, the trace would
                // wrongly say that all calls of mmap were recorded.
                Err(error) if module.has_mappings && self.records_mappings && is_apply => {
                    return Err(error.with_remedy("record with `--domains heap`"));
                }
                // The process may have unloaded this module. The collector must still write or remove the
                // jumps of the other modules.
                Err(error) if module.is_required => failure = Some(error),
                Err(_) => {}
            }
        }
        if is_apply && !pending.is_empty() {
            step("code");
        }
        pending.extend(self.words(&memory, is_apply));
        for (index, write) in pending.iter().enumerate() {
            if index == pending.len() / 2 {
                step("half");
            }
            if let Err(error) = memory.write_all_at(&write.after, write.address) {
                for write in &pending[..index] {
                    let _ = memory.write_all_at(&write.before, write.address);
                }
                return Err(unreadable(error));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Writes the stubs of a module. Returns the changes of memory with which the caller must write or remove
    /// the jumps to the stubs.
    fn writes_of(&self, module: &ModuleDetours, memory: &File, is_apply: bool) -> Result<Vec<Write>, Error> {
        let compiled = &module.compiled;
        let mut writes = Vec::new();
        let is_changed = |patch: &&Patch| match is_apply {
            true => self.records_mappings || !patch.is_mapping,
            false => !patch.corrects_size,
        };
        for patch in compiled.patches.iter().filter(is_changed) {
            let mut found = vec![0; patch.expected.len()];
            memory.read_exact_at(&mut found, patch.address).map_err(unreadable)?;
            let mut jumped = patch.expected.clone();
            jumped[..patch.jump.len()].copy_from_slice(&patch.jump);
            let (before, after) =
                if is_apply { (&patch.expected, &jumped) } else { (&jumped, &patch.expected) };
            if found == *before {
                let bytes = patch.jump.len();
                let (before, after) = (before[..bytes].to_vec(), after[..bytes].to_vec());
                writes.push(Write { address: patch.address, before, after });
            } else if found != *after {
                let message = format!("its code at {:#x} is not that of its file", patch.address);
                return Err(refusal(
                    message,
                    "end the program that changed it, or start the process recorded",
                ));
            }
        }
        if is_apply && !writes.is_empty() {
            // A thread may still run the stubs of an earlier recording, so these stubs must not change.
            let mut there = vec![0; compiled.code.len()];
            memory.read_exact_at(&mut there, compiled.address).map_err(unreadable)?;
            if there != compiled.code && there.iter().any(|&byte| byte != 0) {
                let message = "another version of edleak-record has attached to it before";
                return Err(refusal(message, "use that version, or start the process again"));
            }
            memory.write_all_at(&compiled.code, compiled.address).map_err(unreadable)?;
        }
        Ok(writes)
    }

    /// The writes that store the addresses of edleak's functions for marks and pools in the program, or that
    /// replace these addresses by 0.
    fn words(&self, memory: &File, is_apply: bool) -> Vec<Write> {
        let mut writes = Vec::new();
        if self.annotations.words.is_empty() {
            return writes;
        }
        let map = maps::text_of(self.pid).unwrap_or_default();
        for words in self.annotations.words.iter().filter(|words| words.is_mapped(maps::lines(&map))) {
            for (address, function) in (words.address..).step_by(8).zip(self.functions) {
                let (before, after) = if is_apply { (0, function) } else { (function, 0) };
                let mut found = [0; 8];
                let is_there = memory.read_exact_at(&mut found, address).is_ok();
                if is_there && u64::from_ne_bytes(found) == before && function != 0 {
                    let bytes = |word: u64| word.to_ne_bytes().to_vec();
                    writes.push(Write { address, before: bytes(before), after: bytes(after) });
                }
            }
        }
        writes
    }
}

/// Stores the addresses of the hooks in the table at the start of the compiled code.
fn set_hooks(compiled: &mut Compiled, late: &Late) {
    for (place, hook) in compiled.code.chunks_exact_mut(8).zip(late.hooks) {
        place.copy_from_slice(&hook.to_ne_bytes());
    }
}

fn unreadable(error: io::Error) -> Error {
    // The kernel returns EIO if nothing is mapped at the address.
    if error.raw_os_error() == Some(libc::EIO) {
        return refusal("it has executed another program, or unloaded a library", "try again");
    }
    refusal(format!("its code cannot be changed: {error}"), "start edleak-record as root")
}
