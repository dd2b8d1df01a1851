//! Selects and compiles all detours of one module of one process.

use crate::detour::arch::code::{self, Placement, SmallFree, Spacing};
use crate::detour::arch::prologue::Obstacle;
use crate::detour::entries::{Entry, FileEntries};
use crate::detour::table::{Origin, Shape};
use edleak_session::detour::HOOKS;
use edleak_session::layout::PAGE_BYTES;

/// A jump to write over the first instructions of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Patch {
    /// The address of the jump.
    pub(crate) address: u64,
    /// The bytes that the process must contain at this address before the jump is written.
    pub(crate) expected: Vec<u8>,
    /// The jump instruction, which replaces the first bytes of the function.
    pub(crate) jump: [u8; 5],
    /// Whether the jump leads to a stub that corrects the size passed to a sized free (a free that gets a
    /// size). A jump that corrects sizes must stay after the recording, because allocations that were made
    /// during the recording may be larger than the program requested.
    pub(crate) corrects_size: bool,
    /// Whether the function maps or unmaps memory.
    pub(crate) is_mapping: bool,
}

/// The code and the jumps that redirect functions of a module to hooks of the preload library.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// The bytes to write near the module: first a table for the addresses of the hooks, then the code of the
    /// trampolines and stubs. The library or the collector fills in the table before it writes these bytes
    /// into the process.
    pub(crate) code: Vec<u8>,
    /// The address for which the code was compiled.
    pub(crate) address: u64,
    /// The jumps at the first instructions of the redirected functions.
    pub(crate) patches: Vec<Patch>,
}

/// The functions of a module's allocator, divided into functions with and without a detour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection<'a> {
    /// Functions that get a detour.
    pub(crate) redirected: Vec<&'a Entry>,
    /// Functions that get no detour, each with the reason.
    pub(crate) unseen: Vec<(&'a Entry, Obstacle)>,
}

/// Selects the functions of a file that get a detour. `is_program`: the file is the program itself and not a
/// library.
pub(crate) fn select(file: &FileEntries, is_program: bool) -> Selection<'_> {
    let is_wanted = |entry: &&Entry| match (is_program, entry.origin) {
        (true, _) => true,
        // If a library exports a standard name, calls by this name reach the preload library and need no
        // detour.
        (false, Origin::Standard) => !entry.is_exported && !file.exports_malloc,
        (false, Origin::Jemalloc) => true,
        (false, Origin::Private) => !file.exports_malloc,
    };
    let wanted: Vec<&Entry> = file.entries.iter().filter(is_wanted).collect();
    // A module that defines only operators of C++ contains no allocator, because these operators call malloc.
    // A module also contains no allocator if its functions only call malloc and check the result.
    if !wanted.iter().any(|entry| !entry.is_operator && matches!(entry.shape, Shape::Allocate(_))) {
        return Selection::default();
    }
    let obstacle = |entry: &Entry| match &entry.displaced {
        Err(obstacle) => Some(*obstacle),
        Ok(_) if lacks_plain_free(&wanted, entry, is_program) => Some(Obstacle::NoPlainFree),
        Ok(_) => None,
    };
    let unseen: Vec<_> = wanted.iter().filter_map(|entry| Some((*entry, obstacle(entry)?))).collect();
    // If edleak counted the allocations but not all frees, freed allocations would look like leaks.
    if unseen.iter().any(|(entry, _)| !entry.shape.allocates()) {
        return Selection { redirected: Vec::new(), unseen };
    }
    let redirected = wanted.iter().copied().filter(|entry| obstacle(entry).is_none()).collect();
    Selection { redirected, unseen }
}

/// Whether a sized free may get a wrong size, and no plain free (a free without a size) can replace this
/// sized free. The stub would pass a wrong size for an allocation that was made without a stub. An allocation
/// was made without a stub if another module called the allocator before the stubs were written.
fn lacks_plain_free(wanted: &[&Entry], entry: &Entry, is_program: bool) -> bool {
    matches!(entry.shape, Shape::FreeSized { .. })
        && plain_free(wanted, entry).is_none()
        && (!is_program || wanted.iter().any(|other| other.family == entry.family && other.is_exported))
}

/// A sized free that no other function can replace; `None`: there is no such sized free. In a process that
/// already runs, a small allocation has either the size that the program requested, or the larger size that a
/// stub requested. The stub of the sized free does not know whether an allocation has the requested or the
/// larger size. A plain free (a free without a size) can free allocations of both sizes, because it needs no
/// size.
pub(crate) fn sized_free_alone<'a>(redirected: &[&'a Entry], realloc_frees: bool) -> Option<&'a Entry> {
    let is_alone = |entry: &&&Entry| {
        matches!(entry.shape, Shape::FreeSized { .. })
            && plain_free(redirected, entry).is_none()
            && !(realloc_frees && realloc_for(redirected, entry).is_some())
    };
    redirected.iter().find(is_alone).copied()
}

/// The `realloc` of the jemalloc to which a sized free belongs. If a Rust program never calls a plain free,
/// the linker leaves the plain free out of the executable. In a program without the plain free, a call of
/// this `realloc` with size 0 replaces the sized free.
fn realloc_for<'a>(entries: &[&'a Entry], sized: &Entry) -> Option<&'a Entry> {
    let is_of_jemalloc = matches!(sized.shape, Shape::FreeSized { flags: Some(_), .. });
    let is_realloc = |entry: &&&Entry| {
        entry.family == sized.family && entry.name.ends_with("realloc") && entry.displaced.is_ok()
    };
    entries.iter().find(is_realloc).copied().filter(|_| is_of_jemalloc)
}

/// The plain free that can replace a sized free: a function of the same allocator. A plain free that takes
/// flags can replace only a sized free that takes flags.
fn plain_free<'a>(entries: &[&'a Entry], sized: &Entry) -> Option<&'a Entry> {
    let Shape::FreeSized { flags, .. } = sized.shape else { return None };
    let takes_flags = |entry: &Entry| entry.name.ends_with("dallocx");
    let plain = entries.iter().copied().filter(|entry| {
        let is_of_family = entry.family == sized.family && entry.shape == Shape::Free;
        // A sized free without flags cannot pass flags to the plain free.
        is_of_family && entry.displaced.is_ok() && (flags.is_some() || !takes_flags(entry))
    });
    plain.min_by_key(|entry| (takes_flags(entry) != flags.is_some(), entry.is_operator, entry.name.len()))
}

/// Upper limit of the number of bytes that the detours of `entries` need.
pub(crate) fn most_bytes(entries: &[&Entry]) -> u64 {
    const STUB: u64 = 80;
    const TRAMPOLINE: u64 = 96;
    (8 * HOOKS as u64 + (STUB + TRAMPOLINE) * entries.len() as u64).next_multiple_of(PAGE_BYTES as u64)
}

/// Compiles the detours of `entries`. `None`: an instruction cannot be encoded at the address of the code.
pub(crate) fn compile(entries: &[&Entry], placement: &Placement) -> Option<Compiled> {
    let Placement { bias, address, spacing, .. } = *placement;
    let mut code = vec![0u8; 8 * HOOKS];
    let mut trampolines = Vec::new();
    for entry in entries {
        let displaced = entry.displaced.as_ref().ok()?;
        align(&mut code);
        let at = address + code.len() as u64;
        code.extend(code::trampoline(displaced, displaced.at.wrapping_add(bias), at)?);
        trampolines.push(at);
    }
    let mut patches = Vec::new();
    for (entry, &trampoline) in entries.iter().zip(&trampolines) {
        let displaced = entry.displaced.as_ref().ok()?;
        let plain = plain_free(entries, entry);
        let trampoline_of = |entry: &Entry| {
            entries.iter().position(|other| std::ptr::eq(*other, entry)).map(|index| trampolines[index])
        };
        let realloc = realloc_for(entries, entry).filter(|_| placement.realloc_frees);
        // The stub passes jemalloc's flags to the plain free. A plain free that takes no flags ignores the
        // argument with the flags.
        let small_free = match (plain.and_then(trampoline_of), realloc.and_then(trampoline_of)) {
            (Some(plain), _) => SmallFree::Plain(plain),
            (None, Some(realloc)) => SmallFree::Reallocated(realloc),
            (None, None) => SmallFree::Raised,
        };
        align(&mut code);
        let stub = address + code.len() as u64;
        code.extend(code::stub(entry.shape, trampoline, small_free, placement, stub).ok()?);
        let at = displaced.at.wrapping_add(bias);
        patches.push(Patch {
            address: at,
            expected: displaced.original.clone(),
            jump: code::jump(at, stub)?,
            corrects_size: spacing == Spacing::Requested && matches!(entry.shape, Shape::FreeSized { .. }),
            is_mapping: matches!(entry.shape, Shape::Mapping(_)),
        });
    }
    patches.sort_by_key(|patch| patch.address);
    Some(Compiled { code, address, patches })
}

/// Fills the code with trap instructions up to the next multiple of 16 bytes. Processors fetch code faster if
/// the code starts at a multiple of 16.
fn align(code: &mut Vec<u8>) {
    code.resize(code.len().next_multiple_of(16), code::TRAP);
}
