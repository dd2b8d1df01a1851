//! Opened modules, kept for the next batch: files found, sections unpacked, symbol tables sorted, all of it once.

use super::debuginfod::Servers;
use super::elf::{Elf, Piece};
use super::module::{self, Files};
use super::outcome::Source;
use super::resolve::Options;
use super::symtab::{Symtab, Table};
use edleak_format::Module;
use gimli::{DwarfPackageSections, DwarfSections, SectionId};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The modules opened so far. A file mapped twice, or unloaded and loaded again, is opened once.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    opened: Mutex<HashMap<Key, Arc<Opened>>>,
    /// Those asked, if it was asked for.
    servers: OnceLock<Servers>,
}

/// What makes two modules the same file: path and build ID.
pub(crate) type Key = (String, Vec<u8>);

impl Cache {
    /// The files of `module`. The lock is not held while they are opened: callers work on different modules, and if two
    /// do not, the first one's work is kept.
    pub(crate) fn open(&self, module: &Module, options: &Options) -> Arc<Opened> {
        let key = key_of(module);
        let known = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let servers = options.debuginfod.then(|| self.servers.get_or_init(Servers::of_environment));
            let opened = Arc::new(Opened::of(module::find(module, options, servers)));
            self.opened.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(opened).clone()
        })
    }

    /// What the servers left undone, for the user.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.servers.get()?.complaint()
    }
}

pub(crate) fn key_of(module: &Module) -> Key {
    (module.path.clone(), module.build_id.clone())
}

/// One module's files, ready for lookups from any thread.
#[derive(Debug)]
pub(crate) struct Opened {
    files: Files,
    sections: DwarfSections<Piece>,
    shared: Option<DwarfSections<Piece>>,
    package: Option<DwarfPackageSections<Piece>>,
    /// The symbol tables worth reading.
    tables: Vec<(TableFile, bool)>,
    symtab: OnceLock<Symtab>,
}

/// Which file of a module a symbol table is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TableFile {
    Debug,
    Binary,
    Mini,
}

impl Opened {
    /// Reads the sections and finds the symbol tables of files that are there.
    pub(crate) fn of(files: Files) -> Opened {
        let sections = files.dwarf().map(main_sections).unwrap_or_default();
        let shared = files.shared.as_ref().map(main_sections);
        let package = files.package.as_ref().map(package_sections);
        let mut opened =
            Opened { files, sections, shared, package, tables: Vec::new(), symtab: OnceLock::new() };
        opened.tables = opened.find_tables();
        opened
    }

    /// The file with debug information, and its sections.
    pub(crate) fn dwarf(&self) -> Option<(&Elf, &DwarfSections<Piece>)> {
        Some((self.files.dwarf()?, &self.sections))
    }

    /// The supplementary file (dwz), and its sections.
    pub(crate) fn shared(&self) -> Option<(&Elf, &DwarfSections<Piece>)> {
        self.files.shared.as_ref().zip(self.shared.as_ref())
    }

    /// The package of split debug files, and its sections.
    pub(crate) fn package(&self) -> Option<(&Elf, &DwarfPackageSections<Piece>)> {
        self.files.package.as_ref().zip(self.package.as_ref())
    }

    /// The name of the function at `address`, from the symbol tables, which the first lookup sorts.
    pub(crate) fn symbol(&self, address: u64) -> Option<String> {
        let tables = self.tables();
        self.symtab.get_or_init(|| Symtab::new(&tables)).find(&tables, address)
    }

    /// The full name of the function at `address` that debug information calls `plain`.
    pub(crate) fn full_name(&self, address: u64, plain: &str) -> Option<String> {
        let tables = self.tables();
        self.symtab.get_or_init(|| Symtab::new(&tables)).find_full(&tables, address, plain)
    }

    /// Whether any file of the module was found.
    pub(crate) fn is_found(&self) -> bool {
        self.files.binary.is_some() || self.files.debug.is_some()
    }

    /// Where names come from, for the user.
    pub(crate) fn source(&self) -> Source {
        if let Some(elf) = self.files.dwarf() {
            return Source::DebugInfo(elf.path().to_owned());
        }
        if let Some(table) = self.tables().first() {
            let path = table.elf.path().to_owned();
            let is_full = !table.is_dynamic && self.files.mini.is_none();
            return if is_full { Source::SymbolTable(path) } else { Source::ExportedOnly(path) };
        }
        match (&self.files.binary, &self.files.missing) {
            (Some(elf), _) => Source::NoSymbols(elf.path().to_owned()),
            (None, Some(missing)) => missing.clone(),
            (None, None) => Source::Missing { build_id: Vec::new() },
        }
    }

    /// Full tables hold what the dynamic one does; the one in `.gnu_debugdata` leaves that out.
    fn find_tables(&self) -> Vec<(TableFile, bool)> {
        let is_filled = |table: &(TableFile, bool)| self.table(*table).is_some_and(|table| !table.is_empty());
        let full = [(TableFile::Debug, false), (TableFile::Binary, false)];
        let rest = [(TableFile::Mini, false), (TableFile::Binary, true)];
        let full: Vec<_> = full.into_iter().filter(is_filled).collect();
        if full.is_empty() { rest.into_iter().filter(is_filled).collect() } else { full }
    }

    fn table(&self, (file, is_dynamic): (TableFile, bool)) -> Option<Table<'_>> {
        let elf = match file {
            TableFile::Debug => &self.files.debug,
            TableFile::Binary => &self.files.binary,
            TableFile::Mini => &self.files.mini,
        };
        Some(Table { elf: elf.as_ref()?, is_dynamic })
    }

    fn tables(&self) -> Vec<Table<'_>> {
        self.tables.iter().filter_map(|table| self.table(*table)).collect()
    }
}

/// The sections that lookups read: not locations, macros, types or names of variables.
const MAIN_SECTIONS: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

fn main_sections(elf: &Elf) -> DwarfSections<Piece> {
    // Unpacking dominates where sections are compressed, and each is on its own.
    let mut pieces: HashMap<&str, Piece> =
        MAIN_SECTIONS.par_iter().map(|id| (id.name(), elf.piece(id.name()))).collect();
    let Ok(sections) = DwarfSections::load(|id| Ok::<_, Never>(pieces.remove(id.name()).unwrap_or_default()));
    sections
}

/// The sections of one split debug file.
pub(crate) fn split_sections(elf: &Elf) -> DwarfSections<Piece> {
    let Ok(sections) = DwarfSections::load(|id| {
        let is_needed = MAIN_SECTIONS.contains(&id);
        let name = id.dwo_name().filter(|_| is_needed);
        Ok::<_, Never>(name.map(|name| elf.piece(name)).unwrap_or_default())
    });
    sections
}

/// All sections of a package: its index refers to every one, and a unit with a part that is missing counts as damaged.
fn package_sections(elf: &Elf) -> DwarfPackageSections<Piece> {
    let sections = DwarfPackageSections::load(|id| {
        Ok::<_, gimli::Error>(id.dwo_name().map(|name| elf.piece(name)).unwrap_or_default())
    });
    sections.expect("the closure gives a section, empty or not, for every id")
}

/// An error that cannot happen.
type Never = std::convert::Infallible;
