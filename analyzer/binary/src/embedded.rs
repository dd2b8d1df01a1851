//! An index of the symbols that are stored in a trace.

use edleak_format::{ModuleId, ModuleSymbols, SymbolFrame};
use std::collections::HashMap;

/// The embedded frames of one module: maps the offset of an address in the module to the frames of
/// this address.
pub(crate) type ByOffset<'a> = HashMap<u64, &'a [SymbolFrame]>;

/// Builds an index of embedded symbols.
pub(crate) fn index(embedded: &[ModuleSymbols]) -> HashMap<ModuleId, ByOffset<'_>> {
    let mut modules: HashMap<ModuleId, ByOffset<'_>> = HashMap::new();
    for symbols in embedded {
        let addresses = symbols.addresses.iter().filter(|address| !address.frames.is_empty());
        let frames = addresses.map(|address| (address.offset, address.frames.as_slice()));
        modules.entry(symbols.module).or_default().extend(frames);
    }
    modules
}
