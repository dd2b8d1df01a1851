//! The symbol tables with the names of a module's functions: the module's own table, the table of its debug
//! file, and the table in `.gnu_debugdata`.

use crate::binary_file::BinaryFile;
use crate::functions::FunctionTable;
use crate::module::{self, Options};

/// One symbol table of a file. `is_dynamic` tells whether the table is the file's dynamic symbol table or its
/// full symbol table.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) file: &'a BinaryFile,
    pub(crate) is_dynamic: bool,
}

/// A module's debug file, its own file, and the file that was unpacked from `.gnu_debugdata`. `None`: the
/// file is missing.
pub(crate) type Owners<'a> = [Option<&'a BinaryFile>; 3];

/// The symbol tables that together contain all known function names. For each table: the index of its file
/// in [`Owners`], and a flag (`true`: the dynamic table of the file, `false`: the full table).
#[derive(Clone, Debug)]
pub(crate) struct Tables(Vec<(usize, bool)>);

impl Tables {
    /// Chooses the symbol tables that edleak reads to get the names of functions. If a file has a full
    /// table, its dynamic table is not needed, because the full table contains the same symbols. The table
    /// in `.gnu_debugdata` does not contain the symbols of the dynamic table, so edleak reads both tables.
    pub(crate) fn choose(owners: Owners<'_>) -> Tables {
        let [debug, own, mini] = [0, 1, 2];
        let is_filled = |(owner, is_dynamic): &(usize, bool)| {
            let file = owners[*owner];
            file.is_some_and(|file| file.elf().is_ok_and(|elf| elf.has_symbols(*is_dynamic)))
        };
        let full: Vec<_> = [(debug, false), (own, false)].into_iter().filter(is_filled).collect();
        if !full.is_empty() {
            return Tables(full);
        }
        Tables([(mini, false), (own, true)].into_iter().filter(is_filled).collect())
    }

    /// The chosen tables. Call this function with the same `owners` as `choose`.
    pub(crate) fn of<'a>(&self, owners: Owners<'a>) -> Vec<Table<'a>> {
        let table = |&(owner, is_dynamic): &(usize, bool)| Some(Table { file: owners[owner]?, is_dynamic });
        self.0.iter().filter_map(table).collect()
    }
}

/// The files whose symbol tables name the functions of one module.
#[derive(Debug)]
pub struct SymbolFiles {
    binary: BinaryFile,
    debug: Option<BinaryFile>,
    mini: Option<BinaryFile>,
}

impl SymbolFiles {
    /// Finds the files from which a report would take the function names. `path` is the path of the module in
    /// the process that loaded the module.
    pub fn find(path: &str, binary: BinaryFile, options: &Options) -> SymbolFiles {
        // The program that makes a debug file copies the binary's full symbol table into it. So if the
        // binary still has its full symbol table, the debug file has no additional names.
        let has_all = binary.elf().is_ok_and(|elf| elf.has_symbols(false));
        if has_all {
            return SymbolFiles { binary, debug: None, mini: None };
        }
        let debug = module::find_debug(path, &binary, options);
        let mini = if debug.is_none() { module::unpack_mini(&binary) } else { None };
        SymbolFiles { binary, debug, mini }
    }

    /// The module's own file.
    pub fn binary(&self) -> &BinaryFile {
        &self.binary
    }

    /// Returns the module's own file, and closes the debug file and the unpacked file.
    pub fn into_binary(self) -> BinaryFile {
        self.binary
    }

    /// A number that stands for the set of functions that edleak finds. The build ID does not suffice: for a
    /// stripped file, edleak finds more functions if the debug file is installed, but the build ID stays the
    /// same.
    pub fn version(&self) -> u64 {
        let debug = self.debug.as_ref().map_or(0, |debug| debug.bytes().len());
        self.binary.bytes().len() as u64 | (debug as u64).rotate_left(32)
    }

    /// The functions of the module.
    pub fn functions(&self) -> FunctionTable<'_> {
        let owners = [self.debug.as_ref(), Some(&self.binary), self.mini.as_ref()];
        let tables = Tables::choose(owners).of(owners);
        let Ok(binary) = self.binary.elf() else { return FunctionTable::default() };
        let is_full = tables.iter().any(|table| !table.is_dynamic);
        let mut symbols = Vec::new();
        for table in &tables {
            let Ok(elf) = table.file.elf() else { continue };
            symbols.append(&mut elf.code_symbols(table.is_dynamic));
        }
        if tables.len() > 1 {
            symbols.sort_unstable();
            symbols.dedup();
        }
        FunctionTable::new(&binary, symbols, is_full)
    }
}
