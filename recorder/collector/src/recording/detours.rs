//! Compiles the detours (jumps from an allocator's functions to edleak's hooks) for the modules of one
//! target. Also publishes the detours in the session, and reads whether the target has applied the detours.

use crate::detour::arch::code::{Placement, Spacing};
use crate::detour::arch::prologue::JUMP;
use crate::detour::entries::{Entry, FileEntries};
use crate::detour::module::{self, Compiled, Selection};
use crate::detour::place;
use crate::rules::file_facts;
use crate::rules::modules::Loaded;
use crate::rules::publisher::Publisher;
use crate::sys::maps;
use crate::sys::remote;
use crate::sys::shm::Session;
use edleak_format::ModuleId;
use edleak_session::detour::{self, DetourModule, EXPECTED_BYTES};
use std::cell::OnceCell;
use std::io;
use std::sync::atomic::Ordering;

/// The detours (jumps at the entries of allocators' functions) of one target.
#[derive(Default)]
pub(crate) struct Detours {
    modules: Vec<ModuleDetours>,
    patches: usize,
    code_bytes: usize,
    /// Number of modules at the time when the target waited for its detours.
    modules_at_start: usize,
    program: Option<ModuleId>,
    /// The allocator in the program, if the functions of this allocator have no names; empty: the collector
    /// has not searched yet.
    nameless: OnceCell<Option<Unseen>>,
}

/// The allocator inside one module, and the detours of its functions.
struct ModuleDetours {
    id: ModuleId,
    path: String,
    /// The function of the allocator whose name edleak uses in messages about the allocator.
    symbol: String,
    /// The names of all functions of the allocator that allocate memory.
    functions: Vec<String>,
    /// Whether the module is a library that exports `malloc`. The dynamic linker finds the malloc of the
    /// preload library first, so edleak counts the calls of malloc even without a detour.
    exports_malloc: bool,
    /// The index of the module's detours in the session; `None`: the collector has published no detour of
    /// this module.
    place: Option<usize>,
    /// Whether the process already had the detours before this recording. A forked child has the detours of
    /// its parent. When the collector attaches to a process, it writes the detours before the recording
    /// begins.
    is_inherited: bool,
    /// The functions of the allocator that get no detour. `reason` says why the first function in `missing`,
    /// or the whole module, gets no detour.
    missing: Vec<String>,
    reason: String,
}

/// An allocator whose allocations edleak does not count, or counts only in part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unseen {
    /// The module.
    pub(crate) module: ModuleId,
    /// The name of a function of the allocator.
    pub(crate) symbol: String,
    /// The functions whose allocations are not counted.
    pub(crate) functions: Vec<String>,
    /// Whether edleak counts the allocations of some functions of the allocator, and not of all.
    pub(crate) is_in_part: bool,
    /// The message for the user.
    pub(crate) message: String,
}

/// Facts about a target; from these facts, the collector decides which detours the target gets.
pub(crate) struct Surroundings<'a> {
    /// The process ID.
    pub(crate) pid: u32,
    /// The text of the target's memory map.
    pub(crate) maps: &'a [u8],
    /// The module of the program's own file.
    pub(crate) program: Option<ModuleId>,
    /// Whether the target has only one thread, so that no other thread can be in the code that a jump
    /// replaces.
    pub(crate) has_one_thread: bool,
}

impl Detours {
    /// Compiles and publishes the detours of all `modules`. The target waits until the collector marks the
    /// session as ready, and then applies the detours.
    pub(crate) fn publish(
        session: &Session,
        modules: &[Loaded],
        publisher: &Publisher,
        surroundings: &Surroundings<'_>,
    ) -> Detours {
        let mut detours =
            Detours { modules_at_start: modules.len(), program: surroundings.program, ..Detours::default() };
        if session.header().counts_itself.load(Ordering::Relaxed) != 0 {
            // This program contains the crate edleak-alloc, which counts the calls of the program's global
            // allocator. The global allocator calls the functions that would get detours, so with detours,
            // edleak would count each allocation of the program twice.
            return Detours { program: None, ..detours };
        }
        let mut mapped = maps::ranges(&String::from_utf8_lossy(surroundings.maps));
        for (index, loaded) in modules.iter().enumerate() {
            detours.add(session, loaded, index, publisher, surroundings, &mut mapped);
        }
        let published = detours.modules.iter().filter(|module| module.place.is_some()).count();
        session.header().detour_modules.store(published as u32, Ordering::Release);
        detours
    }

    fn add(
        &mut self,
        session: &Session,
        loaded: &Loaded,
        index: usize,
        publisher: &Publisher,
        surroundings: &Surroundings<'_>,
        mapped: &mut Vec<(u64, u64)>,
    ) {
        let Some(entries) = publisher.entries_of(index) else { return };
        let is_program = surroundings.program == Some(loaded.module.id);
        let selection = module::select(entries, is_program);
        let Some(first) =
            selection.redirected.first().copied().or(selection.unseen.first().map(|(entry, _)| *entry))
        else {
            return;
        };
        let functions = allocating(&selection);
        let symbol = functions.iter().min_by_key(|name| name.len()).unwrap_or(&first.name).clone();
        let mut own = ModuleDetours {
            id: loaded.module.id,
            path: loaded.module.path.clone(),
            symbol,
            functions,
            exports_malloc: entries.exports_malloc && !is_program,
            place: None,
            is_inherited: false,
            missing: selection.unseen.iter().map(|(entry, _)| entry.name.clone()).collect(),
            reason: selection
                .unseen
                .first()
                .map(|(entry, why)| format!("`{}` {why}", entry.name))
                .unwrap_or_default(),
        };
        if !selection.redirected.is_empty() {
            let module = &loaded.module;
            let bytes = module::most_bytes(&selection.redirected);
            let place = place::near(mapped, module.start, module.end, bytes);
            let compiled = place.and_then(|place| {
                let placement = Placement {
                    bias: module.load_bias,
                    address: place,
                    spacing: Spacing::Requested,
                    own_code: (0, 0),
                    realloc_frees: false,
                };
                module::compile(&selection.redirected, &placement)
            });
            let is_attached = session.header().attached.load(Ordering::Relaxed) != 0;
            let is_code = |compiled: &Compiled| lies_in_code(surroundings.maps, compiled);
            let is_redirected = || has_jumps(surroundings.pid, &selection.redirected, module.load_bias);
            if session.header().has_detours.load(Ordering::Relaxed) != 0 || is_redirected() {
                own.is_inherited = true;
                return self.modules.push(own);
            }
            let result = match compiled {
                _ if is_attached => Err(
                    "edleak cannot redirect its calls while it runs (start it with `edleak-record PROGRAM`)",
                ),
                _ if !surroundings.has_one_thread => Err(
                    "the process had several threads by then (record again when the machine is less busy)",
                ),
                None => Err("there is no free memory near it"),
                Some(compiled) if !is_code(&compiled) => {
                    Err("its functions do not lie in one stretch of code")
                }
                Some(compiled) => self.write(session, &compiled).ok_or("it has too many functions"),
            };
            match result {
                Ok(place) => {
                    own.place = Some(place);
                    let at = session.detour_modules()[place].address.load(Ordering::Relaxed);
                    mapped.push((at, at + bytes));
                }
                Err(why) => why.clone_into(&mut own.reason),
            }
        }
        self.modules.push(own);
    }

    /// Writes the compiled detours of a module into the session. Returns the index of the module in the
    /// session; `None`: the session has no room for these detours.
    fn write(&mut self, session: &Session, compiled: &Compiled) -> Option<usize> {
        let place = self.modules.iter().filter(|module| module.place.is_some()).count();
        let patches = session.detour_patches().get(self.patches..)?.get(..compiled.patches.len())?;
        let code = session.detour_code().get(self.code_bytes..)?.get(..compiled.code.len())?;
        let module = session.detour_modules().get(place)?;
        if compiled.patches.iter().any(|patch| patch.expected.len() > EXPECTED_BYTES) {
            return None;
        }
        for (byte, value) in code.iter().zip(&compiled.code) {
            byte.store(*value, Ordering::Relaxed);
        }
        for (patch, own) in patches.iter().zip(&compiled.patches) {
            patch.address.store(own.address, Ordering::Relaxed);
            patch.expected_bytes.store(own.expected.len() as u32, Ordering::Relaxed);
            patch
                .expected
                .iter()
                .zip(&own.expected)
                .for_each(|(byte, value)| byte.store(*value, Ordering::Relaxed));
            patch.jump.iter().zip(&own.jump).for_each(|(byte, value)| byte.store(*value, Ordering::Relaxed));
        }
        module.address.store(compiled.address, Ordering::Relaxed);
        module.code_at.store(self.code_bytes as u32, Ordering::Relaxed);
        module.code_bytes.store(compiled.code.len() as u32, Ordering::Relaxed);
        module.first_patch.store(self.patches as u32, Ordering::Relaxed);
        module.patches.store(compiled.patches.len() as u32, Ordering::Relaxed);
        self.patches += compiled.patches.len();
        self.code_bytes += compiled.code.len();
        Some(place)
    }

    /// The allocators that edleak counts only in part or not at all, which depends on the detours that the
    /// target has applied so far.
    pub(crate) fn unseen(&self, session: &Session, modules: &[Loaded], publisher: &Publisher) -> Vec<Unseen> {
        let mut unseen: Vec<Unseen> =
            self.modules.iter().filter_map(|module| module.unseen(session.detour_modules())).collect();
        let later = modules.iter().enumerate().skip(self.modules_at_start);
        unseen.extend(later.filter_map(|(index, loaded)| loaded_later(loaded, publisher.entries_of(index)?)));
        let program = self.program.filter(|id| !self.modules.iter().any(|module| module.id == *id));
        let program = program.and_then(|id| modules.iter().find(|loaded| loaded.module.id == id));
        unseen.extend(program.and_then(|loaded| self.nameless.get_or_init(|| nameless(loaded)).clone()));
        unseen
    }

    /// Whether a module contains an allocator.
    pub(crate) fn has_allocator(&self, id: ModuleId) -> bool {
        self.modules.iter().any(|module| module.id == id)
    }

    /// Whether the functions of a module's allocator have detours.
    pub(crate) fn is_counted(&self, session: &Session, id: ModuleId) -> bool {
        let of_module = self.modules.iter().find(|module| module.id == id);
        of_module.is_some_and(|module| module.is_redirected(session.detour_modules()))
    }
}

impl ModuleDetours {
    fn is_redirected(&self, published: &[DetourModule]) -> bool {
        let result = self
            .place
            .and_then(|place| published.get(place))
            .map(|module| module.result.load(Ordering::Acquire));
        self.is_inherited || matches!(result, Some(detour::DONE | detour::UNPROTECTED))
    }

    fn unseen(&self, published: &[DetourModule]) -> Option<Unseen> {
        let is_whole = !self.is_redirected(published);
        if !is_whole && self.missing.is_empty() {
            return None;
        }
        let reason =
            self.place.and_then(|place| published.get(place)).map_or_else(|| self.reason.clone(), why);
        let message = if is_whole {
            format!("allocations through `{}` of `{}` are not counted: {reason}", self.symbol, self.path)
        } else {
            let names = self.missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            format!("allocations through {names} of `{}` are not counted: {}", self.path, self.reason)
        };
        let is_in_part = !is_whole || self.exports_malloc;
        let functions = if is_whole { self.functions.clone() } else { self.missing.clone() };
        Some(Unseen { module: self.id, symbol: self.symbol.clone(), functions, is_in_part, message })
    }
}

/// The names of those functions of an allocator that allocate memory, without C++ operators.
fn allocating(selection: &Selection<'_>) -> Vec<String> {
    let all = selection.redirected.iter().copied().chain(selection.unseen.iter().map(|(entry, _)| *entry));
    let allocating = all.filter(|entry| entry.shape.allocates() && !entry.is_operator);
    allocating.map(|entry| entry.name.clone()).collect()
}

/// The uncounted allocator of a module that was loaded while the program ran.
fn loaded_later(loaded: &Loaded, entries: &FileEntries) -> Option<Unseen> {
    let selection = module::select(entries, false);
    let first =
        selection.redirected.first().copied().or(selection.unseen.first().map(|(entry, _)| *entry))?;
    let path = &loaded.module.path;
    let message = format!(
        "allocations through `{}` of `{path}` are not counted: it was loaded while the program ran (have it \
         loaded at the start, with `LD_PRELOAD={path}`)",
        first.name
    );
    let functions = allocating(&selection);
    let is_in_part = entries.exports_malloc;
    Some(Unseen { module: loaded.module.id, symbol: first.name.clone(), functions, is_in_part, message })
}

/// The uncounted allocator in a program without a symbol table.
fn nameless(loaded: &Loaded) -> Option<Unseen> {
    let name = file_facts::nameless_allocator(&loaded.file)?;
    let message = format!(
        "`{}` has {name} in it, whose functions have no names: their allocations are not counted (keep the \
         symbol table, or install the program's debug file)",
        loaded.module.path
    );
    let (functions, is_in_part) = (vec![name.to_owned()], false);
    Some(Unseen { module: loaded.module.id, symbol: name.to_owned(), functions, is_in_part, message })
}

/// The reason why the target has not applied the detours of a module, with the remedy.
fn why(module: &DetourModule) -> String {
    let error = io::Error::from_raw_os_error(module.errno.load(Ordering::Relaxed) as i32);
    match module.result.load(Ordering::Acquire) {
        detour::NO_PLACE => "the memory near it was taken meanwhile (record again)".into(),
        detour::NO_NEW_CODE | detour::NO_CHANGE => format!(
            "this system does not allow a program to change its code: {error} (link the allocator as a \
             shared library, or allow the process to change memory with code, for example \
             `MemoryDenyWriteExecute=no`)"
        ),
        detour::OTHER_BYTES => {
            "its code in memory is another than in its file (record without what changes it)".into()
        }
        _ => "the rules for it came too late (record again when the machine is less busy)".into(),
    }
}

/// Whether all functions of `entries` begin with jumps that the collector wrote when it attached to the
/// process.
fn has_jumps(pid: u32, entries: &[&Entry], bias: u64) -> bool {
    entries.iter().all(|entry| {
        let Ok(displaced) = &entry.displaced else { return false };
        let mut found = [0; 5];
        let is_read = remote::read(pid, displaced.at.wrapping_add(bias), &mut found).is_ok();
        is_read && found[0] == JUMP && !displaced.original.starts_with(&found)
    })
}

/// Whether all addresses at which a jump will be written are in one mapping that is executable and readable.
fn lies_in_code(maps: &[u8], compiled: &Compiled) -> bool {
    let (Some(first), Some(last)) = (compiled.patches.first(), compiled.patches.last()) else { return false };
    let end = last.address + last.expected.len() as u64;
    maps::lines(&String::from_utf8_lossy(maps))
        .any(|line| line.permissions.starts_with("r-x") && line.start <= first.address && end <= line.end)
}
