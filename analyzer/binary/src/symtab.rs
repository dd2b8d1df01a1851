//! Function names from symbol tables, for code without debug information.
//!
//! A symbol names the addresses it covers and no others: in a stripped library the nearest exported function before an
//! address is usually not the one it belongs to. Only a symbol without a size (hand-written assembly) reaches to the next one.

use super::demangle::{demangle, is_mangled};
use super::elf::Elf;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind};

/// Symbols may overlap; a lookup walks back over at most this many that end before the address.
const MAX_STEPS_BACK: usize = 64;

/// Names for one place are compared to choose the best; beyond this many the choice does not matter.
const MAX_ALIASES: usize = 32;

/// A longer name is damage.
const MAX_NAME_BYTES: usize = 64 << 10;

/// The functions of one module, by address.
#[derive(Debug, Default)]
pub(crate) struct Symtab {
    symbols: Vec<Symbol>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Symbol {
    start: u64,
    end: u64,
    /// 0 global, 1 weak, 2 local: the name to prefer where several stand for one place.
    rank: u8,
    /// Which table of the module's, in the order given to `new`.
    table: u8,
    /// Where the name is in its file.
    name: (usize, usize),
}

/// A file of a module, and which of its tables to read.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) elf: &'a Elf,
    pub(crate) is_dynamic: bool,
}

impl Table<'_> {
    /// Whether there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        let Ok(file) = self.elf.parse() else { return true };
        let mut entries = if self.is_dynamic { file.dynamic_symbols() } else { file.symbols() };
        entries.next().is_none()
    }
}

impl Symtab {
    /// Collects the functions of `tables`.
    pub(crate) fn new(tables: &[Table<'_>]) -> Symtab {
        let mut symbols = Vec::new();
        for (index, table) in (0..).zip(tables) {
            collect(*table, index, &mut symbols);
        }
        symbols.sort_unstable();
        symbols.dedup();
        Symtab { symbols }
    }

    /// The demangled name of the function at `address`; `tables` as given to `new`.
    pub(crate) fn find(&self, tables: &[Table<'_>], address: u64) -> Option<String> {
        self.best(tables, address, |_| true)
    }

    /// The full name of the function at `address` that debug information calls just `plain`, as gcc does for members of
    /// anonymous namespaces. Only a name that contains the plain one will do: code may be shared by several functions.
    pub(crate) fn find_full(&self, tables: &[Table<'_>], address: u64, plain: &str) -> Option<String> {
        let base = plain.split('<').next().unwrap_or_default().trim_start_matches('~');
        let part = format!("{}{base}", base.len());
        // Operators are mangled by codes of their own.
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

/// `malloc` is what people call `__libc_malloc`; but the `_` of a mangled name says nothing.
fn underscores(name: &[u8]) -> usize {
    if is_mangled(name) {
        return 0;
    }
    name.iter().take_while(|byte| **byte == b'_').count()
}

fn name_of<'a>(tables: &[Table<'a>], symbol: &Symbol) -> Option<&'a [u8]> {
    let name = tables.get(usize::from(symbol.table))?.elf.bytes().get(symbol.name.0..symbol.name.1)?;
    (!name.is_empty()).then_some(name)
}

fn collect(table: Table<'_>, index: u8, symbols: &mut Vec<Symbol>) {
    let Ok(file) = table.elf.parse() else { return };
    let first = symbols.len();
    // An iterator of either kind; both end where the table does.
    let entries = if table.is_dynamic { file.dynamic_symbols() } else { file.symbols() };
    for entry in entries {
        let Some(section) = entry.section_index() else { continue };
        let is_function = match entry.kind() {
            SymbolKind::Text => true,
            // A label of assembly code. The same kind names data, hence the look at the section.
            SymbolKind::Unknown => file.section_by_index(section).is_ok_and(|section| is_code(&section)),
            _ => false,
        };
        if !is_function {
            continue;
        }
        let Ok(name) = entry.name_bytes() else { continue };
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with(b"$") {
            continue; // `$x`, `$d`: marks between code and data, not functions
        }
        let rank = if entry.is_weak() {
            1
        } else if entry.is_global() {
            0
        } else {
            2
        };
        let at = name.as_ptr().addr() - table.elf.bytes().as_ptr().addr();
        let start = entry.address();
        let end = start.saturating_add(entry.size());
        symbols.push(Symbol { start, end, rank, table: index, name: (at, at + name.len()) });
    }
    close_open_ends(&file, &mut symbols[first..]);
}

/// Not by kind: in a file of debug information only, .text has no bytes and counts as uninitialized data.
fn is_code<'data>(section: &impl ObjectSection<'data>) -> bool {
    match section.flags() {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.contains(object::elf::SHF_EXECINSTR),
        _ => false,
    }
}

/// Lets each symbol without a size reach to the next one, or to the end of its section.
fn close_open_ends(file: &object::File<'_>, symbols: &mut [Symbol]) {
    symbols.sort_unstable();
    let mut sections: Vec<(u64, u64)> = file
        .sections()
        .filter(is_code)
        .map(|section| (section.address(), section.address().saturating_add(section.size())))
        .collect();
    sections.sort_unstable();
    let mut next_start = u64::MAX;
    for at in (0..symbols.len()).rev() {
        let start = symbols[at].start;
        if symbols[at].end == start {
            // Of several open symbols at one place, each reaches as far as the others.
            let after = sections.partition_point(|section| section.0 <= start);
            let section_end = after.checked_sub(1).map_or(start, |index| sections[index].1.max(start));
            symbols[at].end = section_end.min(next_start);
        }
        if at > 0 && symbols[at - 1].start < start {
            next_start = start;
        }
    }
}
