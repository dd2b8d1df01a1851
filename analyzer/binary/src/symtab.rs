//! Finds the function that contains an address, with the symbol tables of a module. edleak uses symbol
//! tables for code without debug information.

use crate::demangle::{demangle, is_mangled};
use crate::symbol_files::Table;

/// Maximum number of symbols that a lookup checks. Symbols may overlap, so the last symbol that begins before
/// an address may end before this address, while a previous symbol contains the address.
const MAX_STEPS_BACK: usize = 64;

/// Maximum number of names of one address that a lookup compares to find the best name. If an address has
/// more names than this number, the lookup ignores the rest.
const MAX_ALIASES: usize = 32;

/// The functions of one module, sorted by address.
#[derive(Debug, Default)]
pub(crate) struct Symtab {
    symbols: Vec<Symbol>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Symbol {
    start: u64,
    end: u64,
    /// The rank of the symbol's name: 0 for a global, 1 for a weak, 2 for a local symbol. If several names
    /// have the same address, the name with the lowest rank is used.
    rank: u8,
    /// The index of the symbol's table in the list that was given to `new`.
    table: u8,
    /// Where the name begins and ends in the file of the symbol's table, in bytes from the start of the file.
    name: (usize, usize),
}

impl Symtab {
    /// Collects the functions of `tables`.
    pub(crate) fn new(tables: &[Table<'_>]) -> Symtab {
        let mut symbols = Vec::new();
        for (index, table) in (0..).zip(tables) {
            let Ok(elf) = table.file.elf() else { continue };
            let bytes = elf.data().as_ptr().addr();
            symbols.extend(elf.code_symbols(table.is_dynamic).into_iter().map(|symbol| {
                let at = symbol.name.as_ptr().addr() - bytes;
                let name = (at, at + symbol.name.len());
                Symbol { start: symbol.start, end: symbol.end, rank: symbol.rank, table: index, name }
            }));
        }
        symbols.sort_unstable();
        symbols.dedup();
        Symtab { symbols }
    }

    /// The demangled name of the function at `address`. `tables` must be the list that was given to `new`.
    pub(crate) fn find(&self, tables: &[Table<'_>], address: u64) -> Option<String> {
        self.best(tables, address, |_| true)
    }

    /// The full name of the function at `address`. Use `find_full` if the debug information has only `plain`,
    /// a name without namespaces. gcc writes such names for members of anonymous namespaces. If several
    /// functions share the code at `address`, `find_full` takes the name that contains `plain`.
    pub(crate) fn find_full(&self, tables: &[Table<'_>], address: u64, plain: &str) -> Option<String> {
        let base = plain.split('<').next().unwrap_or_default().trim_start_matches('~');
        let part = format!("{}{base}", base.len());
        // A mangled name has two letters for an operator and does not contain the text `operator`, so for an
        // operator the function accepts every mangled name.
        let has_part = |name: &[u8]| {
            base.starts_with("operator") || name.windows(part.len()).any(|window| window == part.as_bytes())
        };
        self.best(tables, address, |name| is_mangled(name) && has_part(name))
    }

    fn best(&self, tables: &[Table<'_>], address: u64, is_wanted: impl Fn(&[u8]) -> bool) -> Option<String> {
        let after = self.symbols.partition_point(|symbol| symbol.start <= address);
        let found = self.symbols[..after]
            .iter()
            .enumerate()
            .rev()
            .take(MAX_STEPS_BACK)
            .find(|(_, symbol)| symbol.end > address)?;
        let start = found.1.start;
        let first = self.symbols[..found.0].partition_point(|symbol| symbol.start < start);
        let name = self.symbols[first..after]
            .iter()
            .filter(|symbol| symbol.start == start && symbol.end > address)
            .take(MAX_ALIASES)
            .filter_map(|symbol| Some((symbol.rank, name_of(tables, symbol)?)))
            .filter(|(_, name)| is_wanted(name))
            .min_by_key(|(rank, name)| (*rank, underscores(name), name.len(), *name))?
            .1;
        Some(demangle(&String::from_utf8_lossy(name)).into_owned())
    }
}

/// The number of underscores at the start of a function name. If a function has several names, edleak
/// prefers the name with the fewest leading underscores: people say `malloc`, not `__libc_malloc`. The `_`
/// at the start of a mangled name does not count, because every mangled name has it.
fn underscores(name: &[u8]) -> usize {
    if is_mangled(name) {
        return 0;
    }
    name.iter().take_while(|byte| **byte == b'_').count()
}

fn name_of<'a>(tables: &[Table<'a>], symbol: &Symbol) -> Option<&'a [u8]> {
    let name = tables.get(usize::from(symbol.table))?.file.bytes().get(symbol.name.0..symbol.name.1)?;
    (!name.is_empty()).then_some(name)
}
