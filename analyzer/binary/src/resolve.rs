//! Turns a batch of addresses into frames. The batch is divided among threads: each thread gets neighbouring
//! addresses of one module. Each address is looked up only once.

use super::bounded::Guard;
use super::cache::{Cache, Opened, key_of};
use super::dwarf::Lines;
use super::embedded::{self, ByOffset};
use super::module::Options;
use super::outcome::{Outcome, Source};
use edleak_format::{Module, ModuleId, ModuleSymbols, StackFrame, SymbolFrame, Trace};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use typed_arena::Arena;

/// The smallest number of addresses that edleak gives to one thread. With fewer addresses for each
/// thread, a second thread would not save time, because each thread must first read the headers of all
/// units of debug information.
const MIN_RUN: usize = 256;

/// An address to look up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Request {
    /// The address in the target.
    pub address: u64,
    /// The module that contains the address. `None`: the module is unknown.
    pub module: Option<ModuleId>,
    /// `true`: the address is that of an instruction. `false`: the address is a return address, so the lookup
    /// uses the byte before the address.
    pub is_exact: bool,
}

impl From<StackFrame> for Request {
    fn from(frame: StackFrame) -> Self {
        Request { address: frame.address, module: frame.module, is_exact: false }
    }
}

/// The frames that were found for one address.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolved {
    /// The frames from the innermost to the outermost: the inlined functions, and then the function that
    /// contains the code. The list is empty if no frame was found.
    pub frames: Arc<[SymbolFrame]>,
    /// The address minus the module's load bias. If the module is unknown, `offset` is the address itself.
    pub offset: u64,
}

/// A batch of resolved addresses.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Resolution {
    /// One result for each request, in the order of the requests.
    pub resolved: Vec<Resolved>,
    /// One outcome for each module in the batch, sorted by module id.
    pub outcomes: Vec<Outcome>,
    /// Number of different addresses that belong to no known module.
    pub without_module: usize,
}

impl Resolution {
    /// Number of different addresses without a function name. In place of a name, reports show
    /// `module+offset` or the address.
    pub fn unresolved(&self) -> usize {
        self.without_module + self.outcomes.iter().map(|outcome| outcome.unresolved).sum::<usize>()
    }
}

/// Resolves batches of addresses. A symbolizer keeps the opened files from one batch to the next.
#[derive(Debug, Default)]
pub struct Symbolizer {
    options: Options,
    cache: Cache,
}

impl Symbolizer {
    /// Makes a symbolizer that has not opened any file.
    pub fn new(options: Options) -> Self {
        Symbolizer { options, cache: Cache::default() }
    }

    /// A message of one line about failed requests to the debuginfod servers. `None`: no request failed. Call
    /// this function once, after the last batch, because the message covers all batches.
    pub fn complaint(&self) -> Option<String> {
        self.cache.complaint()
    }

    /// Resolves `requests`, which are addresses in the modules of `trace`. For each address, the function
    /// first looks in the symbols that are embedded in the trace, and then in files.
    pub fn resolve_trace(&self, trace: &Trace, requests: &[Request]) -> Resolution {
        self.resolve(trace.modules(), trace.symbols(), requests)
    }

    /// Resolves `requests`, which are addresses in `modules`. For each address, the function first looks in
    /// `embedded`, the symbols that are embedded in the trace, and then in files.
    pub fn resolve(
        &self,
        modules: &[Module],
        embedded: &[ModuleSymbols],
        requests: &[Request],
    ) -> Resolution {
        let modules: HashMap<ModuleId, &Module> = modules.iter().map(|module| (module.id, module)).collect();
        let embedded = embedded::index(embedded);
        let mut without_module = BTreeSet::new();
        let mut groups: BTreeMap<ModuleId, Group<'_>> = BTreeMap::new();
        let mut places = Vec::with_capacity(requests.len());
        for request in requests {
            let Some(module) = request.module.and_then(|id| modules.get(&id)) else {
                without_module.insert(request.address);
                places.push(Place { offset: request.address, within: None });
                continue;
            };
            let offset = request.address.wrapping_sub(module.load_bias);
            let group = groups.entry(module.id).or_insert_with(|| Group::new(module));
            let lookup = if request.is_exact { offset } else { offset.wrapping_sub(1) };
            group.lookups.insert(Lookup { address: lookup, offset });
            places.push(Place { offset, within: Some((module.id, lookup)) });
        }

        for group in groups.values_mut() {
            if let Some(symbols) = embedded.get(&group.module.id) {
                group.take_embedded(symbols);
            }
        }
        let opened = self.open_all(&groups);
        let mut runs: Vec<Run<'_>> = Vec::new();
        for (id, group) in &groups {
            runs.extend(opened.get(id).into_iter().flat_map(|opened| group.runs(opened)));
        }
        let answers: Vec<Answers> = runs.par_iter().map(|run| run.look_up(&self.options)).collect();
        drop(runs);
        for answer in answers {
            if let Some(group) = groups.get_mut(&answer.module) {
                group.found.extend(answer.found);
                group.missing_dwo.extend(answer.missing_dwo);
            }
        }

        let nothing: Arc<[SymbolFrame]> = Arc::new([]);
        let resolved = places
            .into_iter()
            .map(|place| {
                let found = place.within.and_then(|(id, lookup)| groups.get(&id)?.found.get(&lookup));
                Resolved { frames: found.unwrap_or(&nothing).clone(), offset: place.offset }
            })
            .collect();
        let outcomes = groups.iter().map(|(id, group)| group.outcome(opened.get(id))).collect();
        Resolution { resolved, outcomes, without_module: without_module.len() }
    }

    /// Opens the files of every module whose symbols are not all embedded. If several module ids have the
    /// same file, the function opens the file only once.
    fn open_all(&self, groups: &BTreeMap<ModuleId, Group<'_>>) -> HashMap<ModuleId, Arc<Opened>> {
        let mut distinct: BTreeMap<_, Vec<&Group<'_>>> = BTreeMap::new();
        for group in groups.values().filter(|group| !group.is_complete()) {
            distinct.entry(key_of(group.module)).or_default().push(group);
        }
        let distinct: Vec<Vec<&Group<'_>>> = distinct.into_values().collect();
        distinct
            .par_iter()
            .flat_map_iter(|same| {
                let opened = same.first().map(|group| self.cache.open(group.module, &self.options));
                same.iter().filter_map(move |group| Some((group.module.id, opened.clone()?)))
            })
            .collect()
    }
}

/// Where a request leads: its offset, and, if its module is known, the module and the address to look up in
/// the module's file. If the module is unknown, the offset is the address itself.
struct Place {
    offset: u64,
    within: Option<(ModuleId, u64)>,
}

/// One lookup: the address to look up in a module's file, and the offset to look up in the embedded symbols.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Lookup {
    address: u64,
    offset: u64,
}

/// The lookups for one module, and in `found` the results so far. The key of a result is the address that was
/// looked up.
struct Group<'a> {
    module: &'a Module,
    lookups: BTreeSet<Lookup>,
    found: HashMap<u64, Arc<[SymbolFrame]>>,
    missing_dwo: BTreeSet<u64>,
}

impl<'a> Group<'a> {
    fn new(module: &'a Module) -> Self {
        Group { module, lookups: BTreeSet::new(), found: HashMap::new(), missing_dwo: BTreeSet::new() }
    }

    fn take_embedded(&mut self, symbols: &ByOffset<'_>) {
        for lookup in &self.lookups {
            if let Some(frames) = symbols.get(&lookup.offset) {
                self.found.insert(lookup.address, Arc::from(*frames));
            }
        }
    }

    /// The addresses that have no result so far and must be looked up in files, in ascending order.
    fn open_lookups(&self) -> Vec<u64> {
        let mut addresses: Vec<u64> = self
            .lookups
            .iter()
            .map(|lookup| lookup.address)
            .filter(|address| !self.found.contains_key(address))
            .collect();
        addresses.dedup();
        addresses
    }

    fn is_complete(&self) -> bool {
        self.lookups.iter().all(|lookup| self.found.contains_key(&lookup.address))
    }

    fn runs<'o>(&self, opened: &'o Opened) -> Vec<Run<'o>> {
        let addresses = self.open_lookups();
        let run = addresses.len().div_ceil(rayon::current_num_threads()).max(MIN_RUN);
        let module = self.module.id;
        addresses.chunks(run).map(|run| Run { module, opened, addresses: run.to_vec() }).collect()
    }

    fn outcome(&self, opened: Option<&Arc<Opened>>) -> Outcome {
        let addresses: BTreeSet<u64> = self.lookups.iter().map(|lookup| lookup.address).collect();
        let is_named = |address: &u64| {
            self.found
                .get(address)
                .and_then(|frames| frames.last())
                .is_some_and(|frame| frame.function.is_some())
        };
        Outcome {
            module: self.module.id,
            path: self.module.path.clone(),
            source: opened.map_or(Source::Embedded, |opened| opened.source()),
            is_unverified: opened.is_some_and(|opened| self.module.build_id.is_empty() && opened.is_found()),
            addresses: addresses.len(),
            unresolved: addresses.iter().filter(|address| !is_named(address)).count(),
            missing_dwo: self.missing_dwo.len(),
        }
    }
}

/// Addresses of one module, in ascending order, that one thread looks up.
pub(super) struct Run<'o> {
    pub(super) module: ModuleId,
    pub(super) opened: &'o Opened,
    pub(super) addresses: Vec<u64>,
}

pub(super) struct Answers {
    module: ModuleId,
    pub(super) found: Vec<(u64, Arc<[SymbolFrame]>)>,
    missing_dwo: BTreeSet<u64>,
}

impl Run<'_> {
    pub(super) fn look_up(&self, options: &Options) -> Answers {
        let guard = Guard::new(self.addresses.len());
        let files = Arena::new();
        let mut lines = Lines::new(self.opened, &options.debug_dirs, &guard, &files);
        let found = self
            .addresses
            .iter()
            .filter_map(|&address| {
                let frames = lines.as_mut().map(|lines| lines.frames(address)).unwrap_or_default();
                let frames = with_symbol(frames, self.opened, address);
                (!frames.is_empty()).then(|| (address, Arc::from(frames)))
            })
            .collect();
        let missing_dwo = lines.map(Lines::into_missing_dwo).unwrap_or_default();
        Answers { module: self.module, found, missing_dwo }
    }
}

/// Adds a name from the symbol table, if the debug information has no name for the function that contains the
/// code.
fn with_symbol(mut frames: Vec<SymbolFrame>, opened: &Opened, address: u64) -> Vec<SymbolFrame> {
    match frames.last_mut() {
        Some(SymbolFrame { function: Some(_), .. }) => {}
        Some(last) => last.function = opened.symbol(address),
        None => {
            let function = opened.symbol(address);
            frames.extend(function.map(|name| SymbolFrame {
                function: Some(name),
                file: None,
                line: 0,
                is_inlined: false,
            }));
        }
    }
    frames
}
