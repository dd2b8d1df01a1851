//! All detours of one module of one process.

use crate::detour::entries::{Entry, FileEntries};
use crate::detour::table::{Owner, Shape};
use crate::detour::x86_64::code::{self, SmallFree};
use crate::detour::x86_64::prologue::Obstacle;
use edleak_session::detour::HOOKS;

/// Bytes to write over an instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Patch {
    /// Where.
    pub(crate) address: u64,
    /// What must be there.
    pub(crate) expected: Vec<u8>,
    /// What takes the place of its first bytes.
    pub(crate) jump: [u8; 5],
}

/// What is to be done so that the entries of a module lead to hooks.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// The memory near the module: a table of hooks, which the writer fills in, then code.
    pub(crate) code: Vec<u8>,
    /// Where that code was compiled for.
    pub(crate) address: u64,
    /// The jumps.
    pub(crate) patches: Vec<Patch>,
}

/// What a module's allocator comes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection<'a> {
    /// Entries to lead to hooks.
    pub(crate) led: Vec<&'a Entry>,
    /// Entries that stay as they are, each with the reason.
    pub(crate) unseen: Vec<(&'a Entry, Obstacle)>,
}

/// The entries of a file that are led to hooks, in the program itself or in a library.
pub(crate) fn select(file: &FileEntries, is_program: bool) -> Selection<'_> {
    let is_wanted = |entry: &&Entry| match (is_program, entry.owner) {
        (true, _) => true,
        // What a library exports under a standard name is called by that name, which a preloaded library
        // defines first.
        (false, Owner::Standard) => !entry.is_exported && !file.exports_malloc,
        (false, Owner::Jemalloc) => true,
        (false, Owner::Private) => !file.exports_malloc,
    };
    let wanted: Vec<&Entry> = file.entries.iter().filter(is_wanted).collect();
    // Operators of the C++ library alone call malloc, and so do functions that only add a check to one.
    if !wanted.iter().any(|entry| !entry.is_operator && matches!(entry.shape, Shape::Allocate(_))) {
        return Selection::default();
    }
    let obstacle = |entry: &Entry| match &entry.displaced {
        Err(obstacle) => Some(*obstacle),
        Ok(_) if lacks_plain_free(&wanted, entry, is_program) => Some(Obstacle::NoPlainFree),
        Ok(_) => None,
    };
    let unseen: Vec<_> = wanted.iter().filter_map(|entry| Some((*entry, obstacle(entry)?))).collect();
    // An allocation that is seen and a free that is not would look like a leak.
    if unseen.iter().any(|(entry, _)| !entry.shape.allocates()) {
        return Selection { led: Vec::new(), unseen };
    }
    let led = wanted.iter().copied().filter(|entry| obstacle(entry).is_none()).collect();
    Selection { led, unseen }
}

/// A sized free without a plain one beside it can be told another size only if every allocation went through
/// a stub: where no other module can have called the allocator before.
fn lacks_plain_free(wanted: &[&Entry], entry: &Entry, is_program: bool) -> bool {
    matches!(entry.shape, Shape::FreeSized { .. })
        && plain_free(wanted, entry).is_none()
        && (!is_program || wanted.iter().any(|other| other.family == entry.family && other.is_exported))
}

/// The plain free that may stand in for a sized one: of the same allocator, with the same flags if it takes
/// any.
fn plain_free<'a>(entries: &[&'a Entry], sized: &Entry) -> Option<&'a Entry> {
    let Shape::FreeSized { flags, .. } = sized.shape else { return None };
    let takes_flags = |entry: &Entry| entry.name.ends_with("dallocx");
    let plain = entries.iter().copied().filter(|entry| {
        let is_of_family = entry.family == sized.family && entry.shape == Shape::Free;
        // Without flags of its own, a sized free has none to hand on.
        is_of_family && entry.displaced.is_ok() && (flags.is_some() || !takes_flags(entry))
    });
    plain.min_by_key(|entry| (takes_flags(entry) != flags.is_some(), entry.is_operator, entry.name.len()))
}

/// Bytes that the code of these entries takes at most.
pub(crate) fn most_bytes(entries: &[&Entry]) -> u64 {
    const STUB: u64 = 80;
    const TRAMPOLINE: u64 = 96;
    (8 * HOOKS as u64 + (STUB + TRAMPOLINE) * entries.len() as u64).next_multiple_of(4096)
}

/// Compiles the detours of `entries` for a module that lies `bias` above its link-time addresses, with code
/// at `address`. `None`: some instruction has no encoding there.
pub(crate) fn compile(entries: &[&Entry], bias: u64, address: u64) -> Option<Compiled> {
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
        let plain = plain.and_then(|plain| entries.iter().position(|other| std::ptr::eq(*other, plain)));
        // jemalloc's flags stand where a free without them expects nothing.
        let small_free = plain.map_or(SmallFree::Raised, |index| SmallFree::Plain(trampolines[index]));
        align(&mut code);
        let stub = address + code.len() as u64;
        code.extend(code::stub(entry.shape, trampoline, small_free, address, stub).ok()?);
        let at = displaced.at.wrapping_add(bias);
        patches.push(Patch {
            address: at,
            expected: displaced.original.clone(),
            jump: code::jump(at, stub)?,
        });
    }
    patches.sort_by_key(|patch| patch.address);
    Some(Compiled { code, address, patches })
}

/// Fills up to an address that a processor reads code from at once, with traps.
fn align(code: &mut Vec<u8>) {
    code.resize(code.len().next_multiple_of(16), 0xcc);
}
