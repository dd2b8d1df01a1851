//! Keeps opened modules from one batch of addresses to the next. So edleak needs to find the files of a
//! module, decompress their sections and sort their symbol tables only once.

use super::binary_file::BinaryFile;
use super::debuginfod::Servers;
use super::elf::Piece;
use super::module::{self, Files, Options};
use super::outcome::Source;
use super::sections::{main_sections, package_sections};
use super::symbol_files::{Owners, Table, Tables};
use super::symtab::Symtab;
use edleak_format::Module;
use gimli::{DwarfPackageSections, DwarfSections};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The modules that were opened so far. If a file is mapped twice, or is unloaded and loaded again, the cache
/// opens the file only once.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    opened: Mutex<HashMap<Key, Arc<Opened>>>,
    /// The debuginfod servers; set only if the options allow debuginfod.
    servers: OnceLock<Servers>,
}

/// The key of a file: its path and its build ID. If two modules have equal keys, they are the same file.
pub(crate) type Key = (String, Vec<u8>);

impl Cache {
    /// The files of `module`. The function does not hold the lock of the cache while it opens the files,
    /// because several threads usually open different modules at the same time. If two threads open the same
    /// module at the same time, both get the files that the first of these threads stores.
    pub(crate) fn open(&self, module: &Module, options: &Options) -> Arc<Opened> {
        let key = key_of(module);
        let known = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let servers = options.debuginfod.then(|| self.servers.get_or_init(Servers::of_environment));
            let opened = Arc::new(Opened::of(module::find(module, options, servers)));
            self.opened.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(opened).clone()
        })
    }

    /// A message about failed requests to debuginfod servers. `None`: no request failed.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.servers.get()?.complaint()
    }
}

pub(crate) fn key_of(module: &Module) -> Key {
    (module.path.clone(), module.build_id.clone())
}

/// The files of one module. Several threads can look up addresses in the files at the same time.
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
    /// Reads the sections of `files`.
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

    /// The supplementary file, which several debug files share (dwz), and its sections.
    pub(crate) fn shared(&self) -> Option<(&BinaryFile, &DwarfSections<Piece>)> {
        self.files.shared.as_ref().zip(self.shared.as_ref())
    }

    /// The package of split debug files, and its sections.
    pub(crate) fn package(&self) -> Option<(&BinaryFile, &DwarfPackageSections<Piece>)> {
        self.files.package.as_ref().zip(self.package.as_ref())
    }

    /// The name of the function at `address`, from the symbol tables. The first call sorts the symbol
    /// tables of the module.
    pub(crate) fn symbol(&self, address: u64) -> Option<String> {
        let tables = self.tables();
        self.symtab.get_or_init(|| Symtab::new(&tables)).find(&tables, address)
    }

    /// The full name of the function at `address`. Use this function if the debug information has only the
    /// short name `plain`.
    pub(crate) fn full_name(&self, address: u64, plain: &str) -> Option<String> {
        let tables = self.tables();
        self.symtab.get_or_init(|| Symtab::new(&tables)).find_full(&tables, address, plain)
    }

    /// Whether any file of the module was found.
    pub(crate) fn is_found(&self) -> bool {
        self.files.binary.is_some() || self.files.debug.is_some()
    }

    /// Where the module's names come from, for messages to the user.
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
