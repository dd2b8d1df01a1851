//! The jumps at the entries of the process's malloc: compiles, writes and removes them.
//!
//! The jumps lead to stubs near the allocator, the stubs to the hooks of the library. The stubs stay in the process.
//! All bytes are written through /proc/PID/mem, which changes private memory even if the process itself may
//! only read and execute it. So no page of the process is writable at any time.

use crate::attach::modules::Module;
use crate::attach::stop::{Stopped, Unstopped};
use crate::detour::entries::{Entry, FileEntries};
use crate::detour::module::{self, Compiled};
use crate::detour::place;
use crate::detour::table::Origin;
use crate::detour::x86_64::code::Spacing;
use crate::detour::{Prefixes, table};
use crate::error::{Error, refusal};
use crate::sys::maps;
use crate::sys::remote;
use edleak_binary::functions::FunctionTable;
use edleak_session::detour::HOOKS;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// The functions that every program calls. edleak refuses a process if it cannot redirect all of them.
const REQUIRED_FUNCTIONS: &[&str] = &["malloc", "calloc", "realloc", "free"];
/// Maximum number of bytes of a stack that the collector searches for the addresses of interrupted code.
const MOST_STACK_BYTES: u64 = 8 << 20;

/// The detours of the allocator of one process.
#[derive(Clone, Debug)]
pub(crate) struct Detours {
    pid: u32,
    compiled: Compiled,
    /// Functions without a detour.
    pub(crate) missing: Vec<String>,
}

/// The functions of an allocator: of libc only malloc and its relatives.
fn entries_of(allocator: &Module) -> Option<FileEntries> {
    let elf = allocator.elf()?;
    let functions = FunctionTable::of(&elf);
    let is_libc = allocator.is_libc();
    let is_wanted = |known: &table::TableEntry| !is_libc || known.origin == Origin::Standard;
    Some(FileEntries::find(&elf, &functions, &Prefixes::default(), is_wanted))
}

/// A place near the allocator for the code of the detours, and its size.
pub(crate) fn place_for(pid: u32, allocator: &Module) -> Option<(u64, u64)> {
    let entries = entries_of(allocator)?;
    let entries: Vec<&Entry> = entries.entries.iter().collect();
    let bytes = module::most_bytes(&entries);
    let mapped = maps::ranges(&maps::text_of(pid)?);
    Some((place::near(&mapped, allocator.start, allocator.end, bytes)?, bytes))
}

impl Detours {
    /// Compiles the detours for code at `address`.
    pub(crate) fn compile(pid: u32, allocator: &Module, address: u64) -> Result<Detours, Error> {
        let unusable = |why: String| {
            let message = format!("the malloc of `{}` cannot be redirected: {why}", allocator.path);
            refusal(message, "start the process with `edleak-record --idle PROGRAM`")
        };
        let entries = entries_of(allocator).ok_or_else(|| unusable("the file cannot be read".into()))?;
        // edleak does not count the calls of a function that cannot be redirected. If such a function frees
        // memory, or is one of [`REQUIRED_FUNCTIONS`], the collector redirects no function at all.
        let selection = module::select(&entries, true);
        let is_required =
            |entry: &Entry| !entry.shape.allocates() || REQUIRED_FUNCTIONS.contains(&entry.name.as_str());
        if let Some((entry, why)) = selection.unseen.iter().find(|(entry, _)| is_required(entry)) {
            return Err(unusable(format!("`{}` {why}", entry.name)));
        }
        let redirected = selection.redirected;
        let missing = selection.unseen.iter().map(|(entry, _)| entry.name.clone()).collect();
        if let Some(name) =
            REQUIRED_FUNCTIONS.iter().find(|name| !redirected.iter().any(|entry| entry.name == **name))
        {
            return Err(unusable(format!("it has no `{name}`")));
        }
        let link_base = allocator.elf().map_or(0, |elf| elf.link_base());
        let bias = allocator.start.wrapping_sub(link_base);
        let spacing = if allocator.is_libc() { Spacing::Kept } else { Spacing::Requested };
        if spacing == Spacing::Requested
            && let Some(entry) = module::sized_free_alone(&redirected)
        {
            return Err(unusable(format!("`{}` relies on sizes that the recording changes", entry.name)));
        }
        let compiled = module::compile(&redirected, bias, address, spacing)
            .ok_or_else(|| unusable("an instruction cannot be moved".into()))?;
        const PAGE: u64 = 4096;
        let crosses = |address: u64| address / PAGE != (address + 4) / PAGE;
        if compiled.patches.iter().any(|patch| crosses(patch.address)) {
            return Err(unusable("a jump would lie in two pages".into()));
        }
        Ok(Detours { pid, compiled, missing })
    }

    /// Stores the addresses of the hooks in the code that the jumps lead to.
    pub(crate) fn set_hooks(&mut self, hooks: [u64; HOOKS]) {
        for (place, hook) in self.compiled.code.chunks_exact_mut(8).zip(hooks) {
            place.copy_from_slice(&hook.to_ne_bytes());
        }
    }

    /// The process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    fn memory(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(format!("/proc/{}/mem", self.pid))
    }

    /// Writes the code and the jumps while all threads stand still. Returns the time for which they stood
    /// still.
    pub(crate) fn apply(&self, timeout: Duration, step: &dyn Fn(&str)) -> Result<Duration, Error> {
        self.change(timeout, step, true)
    }

    /// Puts the original bytes back while all threads stand still. A thread may be in a stub or in the
    /// library; the code there stays. The jumps of sized frees stay too: an allocation of the recording may be
    /// larger than its requested size, and the allocator relies on the size that it gets. Returns the time for
    /// which the threads stood still.
    pub(crate) fn remove(&self, timeout: Duration) -> Result<Duration, Error> {
        self.change(timeout, &|_| {}, false)
    }

    fn change(&self, timeout: Duration, step: &dyn Fn(&str), is_apply: bool) -> Result<Duration, Error> {
        const FIRST_ATTEMPT: Duration = Duration::from_millis(100);
        const PAUSE: Duration = Duration::from_millis(5);
        let limit = Instant::now() + timeout;
        let mut attempt = FIRST_ATTEMPT;
        loop {
            let stopped = Stopped::all(self.pid, limit.min(Instant::now() + attempt));
            attempt *= 2;
            let obstacle = match stopped {
                Ok(stopped) => match self.blocking_thread(&stopped, is_apply) {
                    Ok(None) => {
                        let written = self.write_jumps(step, is_apply);
                        let time = stopped.let_go();
                        return written.map(|()| time);
                    }
                    Ok(Some(tid)) => format!("thread {} is about to enter malloc", name_of(self.pid, tid)),
                    Err(error) => format!("the registers of its threads cannot be read: {error}"),
                },
                Err(Unstopped::Running(tid)) => {
                    format!("thread {} does not stop", name_of(self.pid, tid))
                }
                Err(Unstopped::Ended) => return Err(refusal("it has just ended", "name one that runs")),
                Err(Unstopped::Refused(error)) => {
                    let message = format!("its threads cannot be stopped: {error}");
                    return Err(refusal(message, "start edleak-record as root"));
                }
            };
            if Instant::now() >= limit {
                let remedy = "use a longer --attach-timeout; is the process frozen?";
                return Err(refusal(obstacle, remedy));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A thread that would go on between two instructions that a jump replaces, now or after a signal
    /// handler. The registers that a handler restores lie on the stack, so the collector searches each stack
    /// for addresses of such instructions.
    fn blocking_thread(&self, stopped: &Stopped, is_apply: bool) -> io::Result<Option<u32>> {
        if !is_apply {
            // A jump is one instruction, so no thread can be inside it.
            return Ok(None);
        }
        let map = maps::text_of(self.pid).unwrap_or_default();
        let mapped: Vec<(u64, u64)> = maps::ranges(&map);
        let mut stack = Vec::new();
        for (tid, registers) in stopped.registers()? {
            if self.is_displaced(registers.rip) {
                return Ok(Some(tid));
            }
            let sp = registers.rsp & !7;
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

    /// Whether an address lies behind the first of the instructions that a jump replaces.
    fn is_displaced(&self, address: u64) -> bool {
        let behind = |patch: &module::Patch| {
            address > patch.address && address < patch.address + patch.expected.len() as u64
        };
        self.compiled.patches.iter().any(behind)
    }

    fn write_jumps(&self, step: &dyn Fn(&str), is_apply: bool) -> Result<(), Error> {
        let unreadable = |error: io::Error| {
            refusal(format!("its code cannot be changed: {error}"), "start edleak-record as root")
        };
        let memory = self.memory().map_err(unreadable)?;
        let mut pending = Vec::new();
        let changed = self.compiled.patches.iter().filter(|patch| is_apply || !patch.corrects_size);
        for patch in changed {
            let mut found = vec![0; patch.expected.len()];
            memory.read_exact_at(&mut found, patch.address).map_err(unreadable)?;
            let mut jumped = patch.expected.clone();
            jumped[..patch.jump.len()].copy_from_slice(&patch.jump);
            let (before, after) =
                if is_apply { (&patch.expected, &jumped) } else { (&jumped, &patch.expected) };
            if found == *before {
                let bytes = patch.jump.len();
                pending.push((patch.address, before[..bytes].to_vec(), after[..bytes].to_vec()));
            } else if found != *after {
                let message =
                    format!("the code of its malloc at {:#x} is not that of its file", patch.address);
                return Err(refusal(
                    message,
                    "end the program that changed it, or start the process recorded",
                ));
            }
        }
        if is_apply && !pending.is_empty() {
            // A thread may still run code of an earlier recording, so that code must stay as it is.
            let mut there = vec![0; self.compiled.code.len()];
            memory.read_exact_at(&mut there, self.compiled.address).map_err(unreadable)?;
            if there != self.compiled.code && there.iter().any(|&byte| byte != 0) {
                let message = "another version of edleak-record has attached to it before";
                return Err(refusal(message, "use that version, or start the process again"));
            }
            memory.write_all_at(&self.compiled.code, self.compiled.address).map_err(unreadable)?;
            step("code");
        }
        for (index, (address, _, bytes)) in pending.iter().enumerate() {
            if index == pending.len() / 2 {
                step("half");
            }
            if let Err(error) = memory.write_all_at(bytes, *address) {
                for (address, before, _) in &pending[..index] {
                    let _ = memory.write_all_at(before, *address);
                }
                return Err(unreadable(error));
            }
        }
        Ok(())
    }
}

/// The number and the name of a thread, for messages.
pub(crate) fn name_of(pid: u32, tid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).unwrap_or_default();
    format!("{tid} (`{}`)", name.trim())
}
