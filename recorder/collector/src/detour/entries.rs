//! Finds the allocator functions that a file defines, and decides for each function whether a jump can
//! replace its first instructions.

use crate::detour::arch::branches::Branches;
use crate::detour::arch::prologue::{Displaced, Obstacle, displaced};
use crate::detour::table::{self, Family, Origin, Prefixes, Shape, TableEntry};
use edleak_binary::elf::Elf;
use edleak_binary::functions::{Function, FunctionTable};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A function of an allocator.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The name that users know best, if the function has several names.
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) origin: Origin,
    pub(crate) family: Family,
    /// Whether the function is an operator of C++.
    pub(crate) is_operator: bool,
    /// Whether other modules can call the function by one of its names.
    pub(crate) is_exported: bool,
    /// The instructions that a jump replaces, or the reason why no jump is possible.
    pub(crate) displaced: Result<Displaced, Obstacle>,
}

/// The allocator functions of one file, with their link-time addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileEntries {
    /// The allocator functions, sorted by address.
    pub(crate) entries: Vec<Entry>,
    /// Whether the file exports a `malloc`. If the file is a shared library, a preloaded `malloc` replaces
    /// this `malloc`.
    pub(crate) exports_malloc: bool,
}

impl FileEntries {
    /// The functions of a module that need a detour. The result does not contain functions that the preload
    /// library already replaces. If the allocator is in a shared library such as libc, the preload library
    /// already replaces nearly all its functions.
    pub(crate) fn of_module(elf: &Elf<'_>, functions: &FunctionTable<'_>, own: &Prefixes) -> FileEntries {
        let is_shared = elf.soname().is_some() && exports_malloc(elf);
        FileEntries::find(elf, functions, own, |known| !is_shared || known.origin == Origin::Jemalloc)
    }

    /// Finds the functions of `elf` for which `is_wanted` is true. `functions` are all functions of `elf`.
    pub(crate) fn find(
        elf: &Elf<'_>,
        functions: &FunctionTable<'_>,
        own: &Prefixes,
        is_wanted: impl Fn(&TableEntry) -> bool,
    ) -> FileEntries {
        FileEntries::find_by(elf, functions, |name| table::lookup(name, own).filter(&is_wanted))
    }

    /// Finds the functions of libc that map or unmap memory.
    pub(crate) fn of_mappings(elf: &Elf<'_>, functions: &FunctionTable<'_>) -> FileEntries {
        FileEntries::find_by(elf, functions, table::lookup_mapping)
    }

    /// Finds the functions of `elf` for whose names `lookup` returns an entry of the table.
    fn find_by(
        elf: &Elf<'_>,
        functions: &FunctionTable<'_>,
        lookup: impl Fn(&str) -> Option<TableEntry>,
    ) -> FileEntries {
        let known: Vec<(&Function<'_>, TableEntry)> = functions
            .functions
            .iter()
            .filter_map(|function| Some((function, lookup(function.name)?)))
            .collect();
        if known.is_empty() {
            return FileEntries::default();
        }
        let exported = elf.exported_functions();
        let exported_at: HashSet<u32> = exported.iter().map(|(start, _)| *start).collect();
        let chosen: HashSet<u32> = elf.load_time_choices().into_iter().collect();
        let starts: BTreeSet<u32> = functions.functions.iter().map(|function| function.start).collect();
        let mut entries: Vec<Entry> = Vec::new();
        let mut rest = known.as_slice();
        while let Some((first, _)) = rest.first() {
            let same = rest.iter().take_while(|(other, _)| other.start == first.start).count();
            let (names, later) = rest.split_at(same);
            rest = later;
            let start = first.start;
            let (name, known, is_clear) = one_of(names);
            let displaced = if chosen.contains(&start) {
                Err(Obstacle::LoadTimeChoice)
            } else if !is_clear {
                Err(Obstacle::Ambiguous)
            } else {
                let end = names.iter().map(|(function, _)| function.end).max().unwrap_or(start);
                let next = starts.range(start + 1..).next().copied().unwrap_or(u32::MAX);
                let base = elf.link_base();
                let at = |offset: u32| base + u64::from(offset);
                let bytes = elf.loaded_from(at(start)).ok_or(Obstacle::NoCode);
                bytes.and_then(|bytes| displaced(bytes, at(start), at(end), at(next)))
            };
            entries.push(Entry {
                name: name.to_owned(),
                shape: known.shape,
                origin: known.origin,
                family: known.family,
                is_operator: names.iter().all(|(function, _)| table::is_operator(function.name)),
                is_exported: exported_at.contains(&start),
                displaced,
            });
        }
        let places: BTreeSet<u64> =
            entries.iter().filter_map(|entry| Some(entry.displaced.as_ref().ok()?.at)).collect();
        let branches = Branches::of(elf, functions);
        let jumped_into = branches.behind(&places);
        for entry in &mut entries {
            // The source files of libc are compiled one by one, and each function that maps memory is alone
            // in its file. So the compiler never compiled a function that maps memory together with a caller
            // of this function. A caller therefore cannot rely on a register that the function only by chance
            // leaves unchanged.
            let is_alone = matches!(entry.shape, Shape::Mapping(_));
            if !is_alone
                && entry.displaced.as_ref().is_ok_and(|displaced| !branches.calls_unknown(displaced.at))
            {
                entry.displaced = Err(Obstacle::Closed);
            }
            if entry.displaced.as_ref().is_ok_and(|displaced| jumped_into.contains(&displaced.at)) {
                entry.displaced = Err(Obstacle::BranchInto);
            }
        }
        FileEntries { entries, exports_malloc: exports_malloc(elf) }
    }
}

fn exports_malloc(elf: &Elf<'_>) -> bool {
    elf.exported_functions().iter().any(|(_, name)| *name == "malloc")
}

/// The name of a function that shows that a program has its own allocator; `None`: there is no such function.
pub(crate) fn allocator_of(elf: &Elf<'_>, own: &Prefixes) -> Option<String> {
    let table = FunctionTable::of(elf);
    let allocates = |name: &str| {
        let known = table::lookup(name, own).filter(|_| !table::is_operator(name));
        known.is_some_and(|known| matches!(known.shape, Shape::Allocate(_)))
    };
    table.functions.iter().map(|function| function.name).find(|name| allocates(name)).map(str::to_owned)
}

/// Chooses one of the names of a function. Returns the name that users know best, the entry of the table for
/// this name, and whether all names have the same shape (the same arguments for sizes and addresses).
fn one_of<'a>(names: &[(&Function<'a>, TableEntry)]) -> (&'a str, TableEntry, bool) {
    let mut shapes: HashMap<&str, TableEntry> = HashMap::new();
    for (function, known) in names {
        shapes.insert(function.name, *known);
    }
    // Users know the names of the C library best.
    let best = names.iter().min_by_key(|(function, known)| {
        let rank = match known.origin {
            Origin::Standard if !table::is_operator(function.name) => 0,
            Origin::Jemalloc => 1,
            Origin::Private => 2,
            Origin::Standard => 3,
        };
        (rank, function.name.len(), function.name)
    });
    let Some((best, mut known)) = best.map(|(function, known)| (function.name, *known)) else {
        unreachable!("a group has a first name")
    };
    // If one function has the names of a plain free and of a sized free, the function ignores the size.
    let is_plain = names.iter().any(|(_, other)| other.shape == Shape::Free);
    if is_plain && known.shape.frees() {
        known.shape = Shape::Free;
    }
    let agrees = |other: &TableEntry| other.shape == known.shape || is_plain && other.shape.frees();
    (best, known, shapes.values().all(agrees))
}
