//! Opened modules, kept for the next batch: files found, sections unpacked, symbol tables sorted, all of it once.

use super::binary_file::BinaryFile;
use super::debuginfod::Servers;
use super::elf::Piece;
use super::module::{self, Files, Options};
use super::outcome::Source;
use super::symbol_files::{Owners, Table, Tables};
use super::symtab::Symtab;
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
    tables: Tables,
    symtab: OnceLock<Symtab>,
}

impl Opened {
    /// Reads the sections of files that are there.
    pub(crate) fn of(files: Files) -> Opened {
        let sections = files.dwarf().map(main_sections).unwrap_or_default();
        let shared = files.shared.as_ref().map(main_sections);
        let package = files.package.as_ref().map(package_sections);
        let tables = Tables::choose(owners(&files));
        Opened { files, sections, shared, package, tables, symtab: OnceLock::new() }
    }

    /// The file with debug information, and its sections.
    pub(crate) fn dwarf(&self) -> Option<(&BinaryFile, &DwarfSections<Piece>)> {
        Some((self.files.dwarf()?, &self.sections))
    }

    /// The supplementary file (dwz), and its sections.
    pub(crate) fn shared(&self) -> Option<(&BinaryFile, &DwarfSections<Piece>)> {
        self.files.shared.as_ref().zip(self.shared.as_ref())
    }

    /// The package of split debug files, and its sections.
    pub(crate) fn package(&self) -> Option<(&BinaryFile, &DwarfPackageSections<Piece>)> {
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
            let path = table.file.path().to_owned();
            let is_full = !table.is_dynamic && self.files.mini.is_none();
            return if is_full { Source::SymbolTable(path) } else { Source::ExportedOnly(path) };
        }
        match (&self.files.binary, &self.files.missing) {
            (Some(elf), _) => Source::NoSymbols(elf.path().to_owned()),
            (None, Some(missing)) => missing.clone(),
            (None, None) => Source::Missing { build_id: Vec::new() },
        }
    }

    fn tables(&self) -> Vec<Table<'_>> {
        self.tables.of(owners(&self.files))
    }
}

fn owners(files: &Files) -> Owners<'_> {
    [files.debug.as_ref(), files.binary.as_ref(), files.mini.as_ref()]
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

fn main_sections(elf: &BinaryFile) -> DwarfSections<Piece> {
    // Unpacking dominates where sections are compressed, and each is on its own.
    let mut pieces: HashMap<&str, Piece> =
        MAIN_SECTIONS.par_iter().map(|id| (id.name(), elf.piece(id.name()))).collect();
    let Ok(sections) = DwarfSections::load(|id| Ok::<_, Never>(pieces.remove(id.name()).unwrap_or_default()));
    sections
}

/// The sections of one split debug file.
pub(crate) fn split_sections(elf: &BinaryFile) -> DwarfSections<Piece> {
    let Ok(sections) = DwarfSections::load(|id| {
        let is_needed = MAIN_SECTIONS.contains(&id);
        let name = id.dwo_name().filter(|_| is_needed);
        Ok::<_, Never>(name.map(|name| elf.piece(name)).unwrap_or_default())
    });
    sections
}

/// All sections of a package: its index refers to every one, and a unit with a part that is missing counts as damaged.
fn package_sections(elf: &BinaryFile) -> DwarfPackageSections<Piece> {
    let sections = DwarfPackageSections::load(|id| {
        Ok::<_, gimli::Error>(id.dwo_name().map(|name| elf.piece(name)).unwrap_or_default())
    });
    sections.expect("the closure gives a section, empty or not, for every id")
}

/// An error that cannot happen.
type Never = std::convert::Infallible;
