//! Makes the symbols to store in a trace. With these symbols, a report has names even if the binaries of the
//! recorded program no longer exist.

use crate::resolve::{Request, Resolution, Symbolizer};
use edleak_format::{AddressSymbols, Module, ModuleId, ModuleSymbols, SymbolFrame, Trace};
use std::collections::{BTreeMap, BTreeSet};

/// Every address that `trace` names, in its sites and its stacks.
pub(crate) fn addresses_of(trace: &Trace) -> Vec<Request> {
    let sites = trace.sites().iter().filter(|site| site.address != 0);
    let sites = sites.map(|site| Request { address: site.address, module: site.module, is_exact: false });
    let frames = trace.stacks().iter().flat_map(|stack| &stack.frames).map(|frame| Request::from(*frame));
    let distinct: BTreeSet<Request> = sites.chain(frames).collect();
    distinct.into_iter().collect()
}

/// The symbols to embed in `trace`: the frames of every address in its sites and stacks.
pub fn build_trace(symbolizer: &Symbolizer, trace: &Trace) -> (Vec<ModuleSymbols>, Resolution) {
    build(symbolizer, trace.modules(), trace.symbols(), &addresses_of(trace))
}

/// The symbols to embed: the frames of each address in `requests` that can be resolved. The second value of
/// the result tells, for each module, from which file its symbols come.
///
/// The result also contains the symbols that are already embedded in the trace. So no symbol is lost if the
/// user embeds symbols again when the binaries no longer exist.
pub fn build(
    symbolizer: &Symbolizer,
    modules: &[Module],
    embedded: &[ModuleSymbols],
    requests: &[Request],
) -> (Vec<ModuleSymbols>, Resolution) {
    let resolution = symbolizer.resolve(modules, embedded, requests);
    let mut built: BTreeMap<ModuleId, BTreeMap<u64, Vec<SymbolFrame>>> = BTreeMap::new();
    for symbols in embedded {
        let kept = symbols.addresses.iter().map(|address| (address.offset, address.frames.clone()));
        built.entry(symbols.module).or_default().extend(kept);
    }
    for (request, resolved) in requests.iter().zip(&resolution.resolved) {
        if let Some(module) = request.module.filter(|_| !resolved.frames.is_empty()) {
            built.entry(module).or_default().insert(resolved.offset, resolved.frames.to_vec());
        }
    }
    let symbols = built
        .into_iter()
        .map(|(module, addresses)| ModuleSymbols {
            module,
            addresses: addresses
                .into_iter()
                .map(|(offset, frames)| AddressSymbols { offset, frames })
                .collect(),
        })
        .collect();
    (symbols, resolution)
}
