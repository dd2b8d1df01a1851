//! The functions that a symbol table names. Reports and the options `--watch` and `--wrapper` all take
//! function names from this file, so that they agree.
//!
//! The name of a symbol is used only for the addresses that the symbol covers. In a stripped library, an
//! address may be in a function without a symbol. The nearest exported function before such an address is the
//! wrong function. A symbol without a size, as in hand-written assembly, covers all addresses up to the next
//! symbol.

use crate::elf::{Elf, LE};
use object::elf;
use object::read::elf::Sym;

/// Maximum length of a name in bytes; a longer name is treated as damaged.
const MAX_NAME_BYTES: usize = 64 << 10;

/// A symbol that names code; its start and end are link-time addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct CodeSymbol<'data> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The rank of the symbol's name: 0 for a global, 1 for a weak, 2 for a local symbol. If several names
    /// have the same address, the name with the lowest rank is used.
    pub(crate) rank: u8,
    pub(crate) name: &'data [u8],
}

/// A function. The fields `start` and `end` are offsets from the first byte of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function<'data> {
    /// Offset of the function's first byte.
    pub start: u32,
    /// Offset one past the function's last byte.
    pub end: u32,
    /// The function's name in the symbol table, which is the mangled name for C++ and Rust.
    pub name: &'data str,
}

/// The functions of a module. A function with several names has one entry for each name.
#[derive(Clone, Debug, Default)]
pub struct FunctionTable<'data> {
    /// The functions, sorted by offset.
    pub functions: Vec<Function<'data>>,
    /// `true`: the list has every function of the file. `false`: the list has only the exported functions.
    pub is_full: bool,
}

impl<'data> FunctionTable<'data> {
    /// The functions that the file's own symbol table names.
    pub fn of(elf: &Elf<'data>) -> FunctionTable<'data> {
        let is_full = elf.has_symbols(false);
        FunctionTable::new(elf, elf.code_symbols(!is_full), is_full)
    }

    /// Makes a table from `symbols`. The symbols come from the file `binary` or from one of its debug files.
    pub(crate) fn new(binary: &Elf<'_>, symbols: Vec<CodeSymbol<'data>>, is_full: bool) -> Self {
        let function = |symbol: CodeSymbol<'data>| {
            let (start, end) = (binary.offset_of(symbol.start)?, binary.offset_of(symbol.end)?);
            Some(Function { start, end, name: std::str::from_utf8(symbol.name).ok()? })
        };
        FunctionTable { functions: symbols.into_iter().filter_map(function).collect(), is_full }
    }
}

impl<'data> Elf<'data> {
    /// Whether a symbol table has any symbol: the dynamic table if `is_dynamic`, else the full table.
    pub(crate) fn has_symbols(&self, is_dynamic: bool) -> bool {
        self.symbols(is_dynamic).is_some_and(|table| !table.is_empty())
    }

    /// The code symbols of the full or the dynamic symbol table. The symbols are sorted by address. If a
    /// symbol has no size, the function computes its end from the next symbol or from its section.
    pub(crate) fn code_symbols(&self, is_dynamic: bool) -> Vec<CodeSymbol<'data>> {
        let Some(table) = self.symbols(is_dynamic) else { return Vec::new() };
        let strings = table.strings();
        let mut symbols = Vec::new();
        for (index, symbol) in table.enumerate() {
            let names_code = || match symbol.st_type() {
                elf::STT_FUNC | elf::STT_GNU_IFUNC => true,
                // The symbol has no type: it may be a label in assembly code. Only the section that
                // contains the label shows whether the label names code or data.
                elf::STT_NOTYPE => {
                    let section = table.symbol_section(LE, symbol, index).ok().flatten();
                    section.is_some_and(|section| self.is_code(section))
                }
                _ => false,
            };
            if !is_defined(symbol) || !names_code() {
                continue;
            }
            let Ok(name) = symbol.name(LE, strings) else { continue };
            if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with(b"$") {
                continue; // the symbols `$x` and `$d` only mark where code and data begin
            }
            let rank = match symbol.st_bind() {
                elf::STB_WEAK => 1,
                elf::STB_LOCAL => 2,
                _ => 0,
            };
            let start = symbol.st_value(LE);
            symbols.push(CodeSymbol { start, end: start.saturating_add(symbol.st_size(LE)), rank, name });
        }
        self.close_open_ends(&mut symbols);
        symbols
    }

    /// The offset and the name of each function that other modules can call by name.
    pub fn exported_functions(&self) -> Vec<(u32, &'data str)> {
        let symbols = self.code_symbols(true);
        let hidden = self.hidden_symbols();
        let exported =
            symbols.into_iter().filter(|symbol| symbol.rank < 2 && !hidden.contains(&symbol.start));
        exported
            .filter_map(|symbol| {
                Some((self.offset_of(symbol.start)?, std::str::from_utf8(symbol.name).ok()?))
            })
            .collect()
    }

    /// Addresses of the dynamic symbols that are hidden from other modules.
    fn hidden_symbols(&self) -> Vec<u64> {
        let Some(table) = self.symbols(true) else { return Vec::new() };
        let is_hidden = |symbol: &&elf::Sym64<object::LittleEndian>| {
            matches!(symbol.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL)
        };
        table.iter().filter(is_hidden).map(|symbol| symbol.st_value(LE)).collect()
    }

    /// Offsets of IFUNC symbols. An IFUNC symbol names a resolver. While the loader loads the module, the
    /// loader calls the resolver, and the resolver returns the function to use.
    pub fn load_time_choices(&self) -> Vec<u32> {
        let tables = [false, true].into_iter().filter_map(|is_dynamic| self.symbols(is_dynamic));
        let symbols = tables.flat_map(|table| table.iter());
        let chosen = symbols.filter(|symbol| symbol.st_type() == elf::STT_GNU_IFUNC && is_defined(symbol));
        chosen.filter_map(|symbol| self.offset_of(symbol.st_value(LE))).collect()
    }

    /// Sorts the symbols. A symbol without a size is extended to the next symbol, or to the end of its
    /// section.
    fn close_open_ends(&self, symbols: &mut [CodeSymbol<'_>]) {
        symbols.sort_unstable_by_key(|symbol| (symbol.start, symbol.end, symbol.rank));
        if symbols.iter().all(|symbol| symbol.end > symbol.start) {
            return;
        }
        let mut sections: Vec<(u64, u64)> = self.code_sections().collect();
        sections.sort_unstable();
        let mut next_start = u64::MAX;
        for at in (0..symbols.len()).rev() {
            let start = symbols[at].start;
            if symbols[at].end == start {
                // If several symbols without a size have the same address, all of them get the same end.
                let after = sections.partition_point(|section| section.0 <= start);
                let section_end = after.checked_sub(1).map_or(start, |index| sections[index].1.max(start));
                symbols[at].end = section_end.min(next_start);
            }
            if at > 0 && symbols[at - 1].start < start {
                next_start = start;
            }
        }
    }
}

/// Whether this file contains the code or data that a symbol names. `false`: another module must
/// define the symbol.
fn is_defined(symbol: &elf::Sym64<object::LittleEndian>) -> bool {
    !matches!(symbol.st_shndx(LE), elf::SHN_UNDEF | elf::SHN_ABS | elf::SHN_COMMON)
        && symbol.st_value(LE) != 0
}

/// Whether a function is defined in this file.
pub(crate) fn is_defined_function(symbol: &elf::Sym64<object::LittleEndian>) -> bool {
    symbol.st_type() == elf::STT_FUNC && is_defined(symbol)
}
