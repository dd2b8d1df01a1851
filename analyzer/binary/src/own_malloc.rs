//! Finds an allocator that is linked into a program, from the program's symbols.

use crate::elf::{Elf, LE, Symbols};
use crate::functions::is_defined_function;
use object::read::elf::Sym;

/// An allocator that is linked into a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnMalloc {
    /// The name of the allocator's function by which edleak recognized the allocator.
    pub symbol: String,
}

impl Elf<'_> {
    /// The allocator that is linked into the program. `None`: the program's symbols show no allocator. An
    /// allocator in a shared library does not count, because it does not hide calls from edleak: the loader
    /// finds the symbols of edleak's preloaded library first.
    pub fn own_malloc(&self) -> Option<OwnMalloc> {
        let dynamic = self.symbols(true)?;
        if own_malloc_in(dynamic, &["malloc"]).is_some() {
            return Some(OwnMalloc { symbol: "malloc".into() });
        }
        let table = self.symbols(false).filter(|table| !table.is_empty()).unwrap_or(dynamic);
        let symbol = own_malloc_in(table, &OWN_MALLOCS)?;
        Some(OwnMalloc { symbol: symbol.into() })
    }
}

impl Elf<'_> {
    /// The name of the allocator that is linked into a program, if the program has no full symbol table.
    /// Without a full symbol table, edleak recognizes the allocator by the texts of its error messages.
    pub fn nameless_allocator(&self) -> Option<&'static str> {
        const MESSAGES: [(&str, &str); 3] =
            [("jemalloc", "<jemalloc>: "), ("mimalloc", "mimalloc: "), ("tcmalloc", "tcmalloc: ")];
        if self.has_symbols(false) {
            return None;
        }
        let holds = |message: &str| {
            self.loaded_data().any(|bytes| memchr::memmem::find(bytes, message.as_bytes()).is_some())
        };
        MESSAGES.iter().find(|(_, message)| holds(message)).map(|(name, _)| *name)
    }
}

/// The name of the first function in `table` that has one of the names in `names`.
fn own_malloc_in(table: &Symbols<'_>, names: &[&'static str]) -> Option<&'static str> {
    table.iter().filter(|symbol| is_defined_function(symbol)).find_map(|symbol| {
        let name = symbol.name(LE, table.strings()).ok()?;
        names.iter().copied().find(|own| own.as_bytes() == name)
    })
}

/// The names that an allocator's `malloc` may have inside a program. The names are those of jemalloc (with
/// its default prefix, and the prefixes of Rust, ClickHouse and Redis), mimalloc, tcmalloc, snmalloc,
/// rpmalloc, Hoard, scudo, and musl's mallocng when a program links it statically.
const OWN_MALLOCS: [&str; 14] = [
    "malloc",
    "je_malloc",
    "_rjem_malloc",
    "_rjem_je_malloc",
    "__je_malloc",
    "mi_malloc",
    "tc_malloc",
    "TCMallocInternalMalloc",
    "sn_malloc",
    "__sn_rust_alloc",
    "sn_rust_alloc",
    "rpmalloc",
    "xxmalloc",
    "scudo_malloc",
];
