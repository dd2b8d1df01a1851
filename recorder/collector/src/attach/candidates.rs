//! Selects the modules and the functions of a process that get detours (jumps to edleak's library).
//!
//! | module                                        | functions         | if a detour is impossible  |
//! |-----------------------------------------------|-------------------|----------------------------|
//! | the module whose malloc the process uses      | malloc, free, …   | edleak refuses the process |
//! | libc                                          | mmap, munmap, …   | edleak warns and goes on   |
//! | modules with an allocator under its own names | its functions     | edleak warns and goes on   |

use crate::attach::modules::Module;
use crate::attach::target;
use crate::detour::arch::code::{Placement, Spacing};
use crate::detour::arch::prologue::Obstacle;
use crate::detour::entries::{Entry, FileEntries};
use crate::detour::module::{self, Compiled};
use crate::detour::table::{MAPPING_HOOKS, Origin, Shape, TableEntry};
use crate::detour::{Prefixes, place};
use crate::error::{Error, refusal};
use crate::sys::maps;
use crate::sys::remote;
use edleak_binary::functions::FunctionTable;
use edleak_session::idle::MAX_PLACES;
use edleak_session::layout::PAGE_BYTES;
use std::fmt;

/// The functions that every program calls. edleak records a process only if it can redirect all four
/// functions.
const REQUIRED_FUNCTIONS: &[&str] = &["malloc", "calloc", "realloc", "free"];
const PAGE: u64 = PAGE_BYTES as u64;

/// The reason why the collector cannot redirect the malloc of a module.
enum CannotRedirect<'a> {
    /// The function with this name cannot get a detour.
    Function(&'a str, Obstacle),
    /// The module has no function with this name.
    Missing(&'static str),
    /// The function with this name is a sized free that no other function can replace, and the recording
    /// changes the sizes of allocations.
    SizedFree(&'a str),
    /// The collector cannot read the file of the module.
    Unreadable,
    /// The code of the detours cannot contain a copy of a replaced instruction.
    Unmovable,
    /// The bytes of a jump would lie in two pages, so the collector cannot write the jump at once.
    TwoPages,
}

impl fmt::Display for CannotRedirect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CannotRedirect::Function(name, obstacle) => write!(f, "`{name}` {obstacle}"),
            CannotRedirect::Missing(name) => write!(f, "it has no `{name}`"),
            CannotRedirect::SizedFree(name) => {
                write!(f, "`{name}` relies on sizes that the recording changes")
            }
            CannotRedirect::Unreadable => f.write_str("the file cannot be read"),
            CannotRedirect::Unmovable => f.write_str("an instruction cannot be moved"),
            CannotRedirect::TwoPages => f.write_str("a jump would lie in two pages"),
        }
    }
}

/// A module that contains functions to redirect.
pub(crate) struct Candidate<'a> {
    pub(crate) module: &'a Module,
    allocator: FileEntries,
    mappings: FileEntries,
    /// Whether [`module::select`] selects the functions as for a program, and not as for a library.
    is_selected_as_program: bool,
    /// Whether the process uses the malloc of this module.
    pub(crate) is_required: bool,
    /// Whether the module contains a jemalloc whose `realloc` frees the allocation if the new size is 0.
    realloc_frees: bool,
}

/// The modules of a process that contain functions to redirect. The first module is `allocator`, whose malloc
/// the process uses.
pub(crate) fn of_process<'a>(
    pid: u32,
    modules: &'a [Module],
    allocator: &'a Module,
    prefixes: &Prefixes,
) -> Vec<Candidate<'a>> {
    let mut candidates = vec![Candidate::required(allocator)];
    let libc = modules.iter().find(|module| module.is_libc() && module.start != allocator.start);
    candidates.extend(libc.map(Candidate::libc));
    let others = modules.iter().filter(|module| {
        let is_ours = module.name().contains("edleak");
        module.start != allocator.start && !module.is_libc() && !module.is_loader() && !is_ours
    });
    candidates.extend(others.filter_map(|module| Candidate::private(pid, module, prefixes)));
    candidates.truncate(MAX_PLACES);
    candidates
}

/// A message about an allocator whose calls edleak cannot redirect in this process; `None`: there is no such
/// allocator.
pub(crate) fn uncounted(
    pid: u32,
    modules: &[Module],
    allocator: &Module,
    prefixes: &Prefixes,
) -> Option<String> {
    let is_counted = |module: &&Module| {
        module.start == allocator.start || module.is_libc() || module.name().contains("edleak")
    };
    modules.iter().filter(|module| !is_counted(module)).find_map(|module| {
        let elf = module.elf()?;
        let is_program = target::is_program(pid, module);
        if let Some(name) = elf.nameless_allocator().filter(|_| is_program) {
            return Some(format!("`{}` has {name} in it, whose functions have no names", module.path));
        }
        let entries = FileEntries::of_module(&elf, &FunctionTable::of(&elf), prefixes);
        let selection = module::select(&entries, is_program);
        let unseen = selection.unseen.iter().map(|(entry, _)| *entry);
        let first = selection.redirected.iter().copied().chain(unseen).next()?;
        let is_redirected = Candidate::private(pid, module, prefixes).is_some();
        let told = || format!("allocations through `{}` of `{}` are not counted", first.name, module.path);
        (!is_redirected).then(told)
    })
}

impl<'a> Candidate<'a> {
    /// Makes the candidate for the module whose malloc the process uses.
    fn required(module: &'a Module) -> Candidate<'a> {
        let is_libc = module.is_libc();
        let is_wanted = |known: &TableEntry| !is_libc || known.origin == Origin::Standard;
        let allocator = module
            .elf()
            .map(|elf| FileEntries::find(&elf, &FunctionTable::of(&elf), &Prefixes::default(), is_wanted));
        Candidate {
            module,
            allocator: allocator.unwrap_or_default(),
            mappings: if is_libc { mappings_of(module) } else { FileEntries::default() },
            is_selected_as_program: true,
            is_required: true,
            realloc_frees: false,
        }
    }

    /// Makes the candidate for libc in a process that uses the malloc of another module.
    fn libc(module: &'a Module) -> Candidate<'a> {
        let mappings = mappings_of(module);
        Candidate {
            module,
            allocator: FileEntries::default(),
            mappings,
            is_selected_as_program: false,
            is_required: false,
            realloc_frees: false,
        }
    }

    /// Makes the candidate for a module that may contain an allocator under its own names; `None`: the module
    /// contains no allocator that edleak can redirect in a process that already runs.
    fn private(pid: u32, module: &'a Module, prefixes: &Prefixes) -> Option<Candidate<'a>> {
        let elf = module.elf()?;
        let allocator = FileEntries::of_module(&elf, &FunctionTable::of(&elf), prefixes);
        let is_selected_as_program = target::is_program(pid, module);
        let redirected = module::select(&allocator, is_selected_as_program).redirected;
        let realloc_frees = realloc_frees(pid, module);
        let is_usable = !redirected.is_empty()
            && keep_sizes_apart(&redirected)
            && module::sized_free_alone(&redirected, realloc_frees).is_none();
        is_usable.then_some(Candidate {
            module,
            allocator,
            mappings: FileEntries::default(),
            is_selected_as_program,
            is_required: false,
            realloc_frees,
        })
    }

    /// Whether all functions that map or unmap memory can get detours. If only some of the functions for
    /// mapping memory had detours, the counts of mapped memory would be wrong.
    pub(crate) fn has_mappings(&self) -> bool {
        self.mappings.entries.len() == MAPPING_HOOKS
            && self.mappings.entries.iter().all(|entry| entry.displaced.is_ok())
    }

    /// The functions that get a detour.
    fn entries(&self) -> Vec<&Entry> {
        let mut entries = module::select(&self.allocator, self.is_selected_as_program).redirected;
        if self.has_mappings() {
            entries.extend(&self.mappings.entries);
        }
        entries
    }

    /// The names of the allocator's functions that get no detour, so that edleak does not count their calls.
    pub(crate) fn missing(&self) -> Vec<String> {
        let selection = module::select(&self.allocator, self.is_selected_as_program);
        selection.unseen.iter().map(|(entry, _)| entry.name.clone()).collect()
    }

    /// A free address near the module for the code of the module's detours, and the size of this code.
    /// `mapped` lists all mappings of the process.
    pub(crate) fn place(&self, mapped: &[(u64, u64)]) -> Option<(u64, u64)> {
        let entries = self.entries();
        let bytes = module::most_bytes(&entries);
        let place = place::near(mapped, self.module.start, self.module.end, bytes);
        place.filter(|_| !entries.is_empty()).map(|place| (place, bytes))
    }

    /// Compiles the detours of the module. The compiled code works only at `address`.
    pub(crate) fn compile(&self, address: u64) -> Result<Compiled, Error> {
        let unusable = |why: CannotRedirect<'_>| {
            let message = format!("the malloc of `{}` cannot be redirected: {why}", self.module.path);
            refusal(message, "start the process with `edleak-record --idle PROGRAM`")
        };
        if self.is_required {
            self.check_required().map_err(unusable)?;
        }
        let elf = self.module.elf().ok_or_else(|| unusable(CannotRedirect::Unreadable))?;
        let bias = self.module.start.wrapping_sub(elf.link_base());
        let placement = Placement {
            bias,
            address,
            spacing: if self.module.is_libc() { Spacing::Kept } else { Spacing::Requested },
            own_code: own_code(&elf, bias),
            realloc_frees: self.realloc_frees,
        };
        let compiled = module::compile(&self.entries(), &placement)
            .ok_or_else(|| unusable(CannotRedirect::Unmovable))?;
        let crosses = |address: u64| address / PAGE != (address + 4) / PAGE;
        if compiled.patches.iter().any(|patch| crosses(patch.address)) {
            return Err(unusable(CannotRedirect::TwoPages));
        }
        Ok(compiled)
    }

    /// Checks that the most important functions can be redirected: the functions that can free memory, and
    /// the functions of [`REQUIRED_FUNCTIONS`]. If one of the most important functions cannot be redirected,
    /// the collector redirects no function at all. If any other function cannot be redirected, edleak does
    /// not count the calls of that function.
    fn check_required(&self) -> Result<(), CannotRedirect<'_>> {
        let selection = module::select(&self.allocator, self.is_selected_as_program);
        let is_required =
            |entry: &Entry| !entry.shape.allocates() || REQUIRED_FUNCTIONS.contains(&entry.name.as_str());
        if let Some(&(entry, why)) = selection.unseen.iter().find(|(entry, _)| is_required(entry)) {
            return Err(CannotRedirect::Function(&entry.name, why));
        }
        let redirected = selection.redirected;
        let is_missing = |name: &&&str| !redirected.iter().any(|entry| entry.name == ***name);
        if let Some(name) = REQUIRED_FUNCTIONS.iter().find(is_missing) {
            return Err(CannotRedirect::Missing(name));
        }
        if !self.module.is_libc()
            && let Some(entry) = module::sized_free_alone(&redirected, false)
        {
            return Err(CannotRedirect::SizedFree(&entry.name));
        }
        Ok(())
    }
}

fn mappings_of(libc: &Module) -> FileEntries {
    let entries = libc.elf().map(|elf| FileEntries::of_mappings(&elf, &FunctionTable::of(&elf)));
    entries.unwrap_or_default()
}

/// The address and the size in bytes of a module's code in the process.
fn own_code(elf: &edleak_binary::elf::Elf<'_>, bias: u64) -> (u64, u32) {
    let start = elf.code_segments().map(|(start, _)| start).min().unwrap_or(0);
    let end = elf.code_segments().map(|(start, bytes)| start + bytes.len() as u64).max().unwrap_or(0);
    (start.wrapping_add(bias), u32::try_from(end - start).unwrap_or(0).min(i32::MAX as u32))
}

/// Whether all functions of `entries` belong to allocators that keep allocations of different sizes in
/// different pages: jemalloc, mimalloc and tcmalloc. In any other allocator, an allocation from before the
/// recording may start so close to a new allocation that edleak's library mistakes one allocation for the
/// other.
fn keep_sizes_apart(entries: &[&Entry]) -> bool {
    const PREFIXES: &[&str] = &["mi_", "tc_", "TCMallocInternal"];
    // The linker leaves out functions that the program does not call. So the collector recognises an
    // allocator by any function that the program contains, and not by one certain function.
    let is_known = |entry: &&&Entry| {
        entry.name.ends_with("allocx") || PREFIXES.iter().any(|prefix| entry.name.starts_with(prefix))
    };
    let known: Vec<_> = entries.iter().filter(is_known).map(|entry| entry.family).collect();
    let allocate = |entry: &&&Entry| !entry.is_operator && matches!(entry.shape, Shape::Allocate(_));
    entries.iter().filter(allocate).all(|entry| known.contains(&entry.family))
}

/// Whether the jemalloc in a module is configured so that a `realloc` to size 0 frees the allocation. On
/// Linux, jemalloc's `realloc` frees the allocation by default, but `MALLOC_CONF` can change this setting.
fn realloc_frees(pid: u32, module: &Module) -> bool {
    const FREE: u32 = 1;
    let Some(elf) = module.elf() else { return false };
    let bias = module.start.wrapping_sub(elf.link_base());
    let settings = elf.variables("je_opt_zero_realloc_action");
    let is_free = |address: &u64| remote::read_u32(pid, address.wrapping_add(bias)).ok() == Some(FREE);
    !settings.is_empty() && settings.iter().all(is_free)
}

/// The address ranges of all mappings of a process, for [`Candidate::place`].
pub(crate) fn mapped(pid: u32) -> Vec<(u64, u64)> {
    maps::text_of(pid).map(|map| maps::ranges(&map)).unwrap_or_default()
}
