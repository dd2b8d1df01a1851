//! Publishes the rules for the target's code: which functions are wrappers, so that their frames are skipped;
//! which callers to watch; and the unwind rules, with which the library walks stacks.
//!
//! The publisher compiles the rules from the files of the modules, and writes them into the session as sorted
//! tables. To replace a table, the publisher first sets the length of the table to 0. If the target searches
//! a table at a moment when the length of the table is 0, the target finds no entry, and searches the table
//! again when it meets its next new site.

use crate::detour::Prefixes;
use crate::detour::entries::FileEntries;
use crate::rules::code_options::CodeOptions;
use crate::rules::code_range::{CodeRange, insert_request, overlay};
use crate::rules::compiled::{Compiled, FileCode, Shared};
use crate::rules::modules::Loaded;
use crate::sys::shm::Session;
use crate::watch::request::{RequestRange, WatchSet};
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_session::caller;
use edleak_session::site::{Action, SiteSlot};
use edleak_session::stack::{MAX_ROWS, MAX_TABLES};
use edleak_session::wrapper::MAX_RANGES;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// The rules that the collector publishes for one target.
pub(crate) struct Publisher {
    code_options: Arc<CodeOptions>,
    watch: Arc<WatchSet>,
    compiled: Arc<Compiled>,
    code: Vec<Shared<FileCode>>,
    code_ranges: Vec<CodeRange>,
    /// The code ranges that the user has excluded from watching, sorted by address.
    refused: Vec<RequestRange>,
    /// The return addresses that auto-watch has picked and that are watched.
    picked: HashSet<u64>,
    /// Whether auto-watch may pick sites. When a client of the control socket ends auto-watch, the collector
    /// sets this field to `false`.
    may_pick: bool,
    /// Number of times that the set of watched sites has changed.
    changes: usize,
    walks: bool,
    /// For the index of each module: the index of the module's first row in the table of unwind rules.
    rows_at: HashMap<usize, usize>,
    rows_used: usize,
    publications: usize,
}

/// A change of the set of watched sites. The collector prepares the change of the watched sites in the
/// background, because a search through the symbols of every module takes long.
pub(crate) struct Change {
    watch: Arc<WatchSet>,
    worker: Option<JoinHandle<()>>,
}

impl Change {
    /// Whether the collector has completely prepared this change of the watched sites.
    pub(crate) fn is_prepared(&self) -> bool {
        self.worker.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// The padding at the end of a table can have this number of different lengths. The target recognizes a new
/// table by its length, so the collector adds padding to the end of each table, and two successive tables get
/// padding of different lengths.
const PADDING: usize = 8;

impl Publisher {
    /// Makes a publisher that has published no rules yet.
    pub(crate) fn new(code_options: Arc<CodeOptions>) -> Publisher {
        Publisher::with(code_options, Arc::default())
    }

    /// Makes a publisher for another target of the same run. The new publisher shares the user's options and
    /// the compiled rules with this publisher.
    pub(crate) fn for_another(&self) -> Publisher {
        Publisher::with(Arc::clone(&self.code_options), Arc::clone(&self.compiled))
    }

    /// Makes a publisher for a forked child of the target. The child has the same modules, so the publisher
    /// takes over the compiled modules of the parent. If a client has requested watches after the start of
    /// the recording, these watches do not apply to the child.
    pub(crate) fn for_child(&self) -> Publisher {
        let mut child = self.for_another();
        if !self.walks && !child.walks {
            (child.code, child.code_ranges) = (self.code.clone(), self.code_ranges.clone());
            child.refused = self.refused.clone();
        }
        child
    }

    /// Whether the forked child of this publisher can use the rules in the session of its parent, so that it
    /// needs no rules of its own. The child can use its parent's rules if the publisher has taken over all of
    /// `modules` from the publisher of the parent process, and the child walks no stacks.
    pub(crate) fn is_for_child_of(&self, modules: &[Loaded]) -> bool {
        !self.walks && !modules.is_empty() && self.code.len() == modules.len() && self.publications == 0
    }

    fn with(code_options: Arc<CodeOptions>, compiled: Arc<Compiled>) -> Publisher {
        let watch = Arc::new(code_options.watch.clone());
        Publisher {
            walks: !watch.is_empty(),
            code_options,
            watch,
            compiled,
            code: Vec::new(),
            code_ranges: Vec::new(),
            refused: Vec::new(),
            picked: HashSet::new(),
            may_pick: true,
            changes: 0,
            rows_at: HashMap::new(),
            rows_used: 0,
            publications: 0,
        }
    }

    /// The set of watched sites that applies now.
    pub(crate) fn watch(&self) -> &WatchSet {
        &self.watch
    }

    /// Number of sites that auto-watch has picked and that are watched.
    pub(crate) fn picked(&self) -> usize {
        self.picked.len()
    }

    /// A number that becomes larger whenever the set of watched sites may have changed.
    pub(crate) fn changes(&self) -> usize {
        self.changes
    }

    /// Whether the library in the target walks stacks.
    pub(crate) fn walks(&self) -> bool {
        self.walks
    }

    /// Compiles the rules of files that the target will load. Another thread compiles the rules, so that the
    /// target can start at the same time. If the collector cannot create this thread, [`Publisher::publish`]
    /// compiles the rules of the files later.
    pub(crate) fn prepare(&self, files: Vec<PathBuf>) {
        let (code_options, watch, compiled) =
            (Arc::clone(&self.code_options), Arc::clone(&self.watch), Arc::clone(&self.compiled));
        let _ = std::thread::Builder::new().spawn(move || {
            for file in files {
                let Ok(file) = file.canonicalize() else { continue };
                let build_id = match FileBytes::open(&file) {
                    Ok(bytes) => Elf::parse(&bytes).ok().and_then(|elf| elf.build_id().map(<[u8]>::to_vec)),
                    Err(_) => continue,
                };
                let key = (file.display().to_string(), build_id.unwrap_or_default());
                compiled.asked(&key, &file, &watch);
                compiled.code(key, &file, &code_options);
            }
        });
    }

    /// Compiles the rules of a running process's modules before the recording of this process begins. A
    /// thread that begins a recording in the process must wait until the rules are compiled, so compiling the
    /// rules earlier saves the thread this wait.
    pub(crate) fn compile_ahead(&self, modules: &[Loaded]) {
        for loaded in modules {
            let key = (loaded.module.path.clone(), loaded.module.build_id.clone());
            self.compiled.asked(&key, &loaded.file, &self.watch);
            self.compiled.code(key, &loaded.file, &self.code_options);
        }
    }

    /// Publishes the rules of modules that were not published before. If the target already has sites in the
    /// newly published modules, the function also updates the actions of these sites.
    pub(crate) fn publish(&mut self, session: &Session, modules: &[Loaded]) {
        for loaded in modules.get(self.code.len()..).unwrap_or_default() {
            self.learn(loaded);
        }
        self.code_ranges.sort_by_key(|code_range| code_range.start);
        self.refused.sort_by_key(|asked| asked.start);
        self.code_ranges.truncate(MAX_RANGES - PADDING);
        self.publications += 1;
        let header = session.header();
        header.watch_all.store(u32::from(self.watch.is_everything()), Ordering::Relaxed);
        header.wrapper_ranges.store(0, Ordering::Release);
        // The target recognizes a new table of code ranges by its length, so add padding that changes the
        // length of the table.
        let padding = CodeRange { start: u64::MAX, end: u64::MAX, action: Action::COUNT };
        let padded =
            self.code_ranges.iter().chain(std::iter::repeat_n(&padding, self.publications % PADDING));
        let mut count = 0;
        for (range, code_range) in session.wrappers().iter().zip(padded) {
            range.start.store(code_range.start, Ordering::Relaxed);
            range.end.store(code_range.end, Ordering::Relaxed);
            range.action.store(code_range.action.0, Ordering::Relaxed);
            count += 1;
        }
        header.wrapper_ranges.store(count, Ordering::Release);
        self.tell_known_sites(session);
        if self.walks {
            self.publish_rules(session, modules);
        }
    }

    /// Adds the rules of one module to this publisher.
    fn learn(&mut self, loaded: &Loaded) {
        if let Some(shared) = self.lay(loaded) {
            self.code.push(shared);
        }
    }

    /// Restores the code ranges of a known module that the target has loaded again. The next call of
    /// [`Publisher::publish`] publishes the restored code ranges.
    pub(crate) fn bring_back(&mut self, loaded: &Loaded) {
        self.lay(loaded);
    }

    /// Replaces all code ranges between the start and the end of the module with the ranges that the
    /// collector compiled from the module's file.
    fn lay(&mut self, loaded: &Loaded) -> Option<Shared<FileCode>> {
        let key = (loaded.module.path.clone(), loaded.module.build_id.clone());
        let functions = self.compiled.asked(&key, &loaded.file, &self.watch);
        let shared = self.compiled.code(key, &loaded.file, &self.code_options);
        let code = shared.get()?;
        let base = loaded.module.load_bias.wrapping_add(code.link_base);
        let functions = functions.get().map_or(&[][..], Vec::as_slice);
        let mut asked: Vec<RequestRange> = functions
            .iter()
            .map(|asked| RequestRange { start: base + asked.start, end: base + asked.end, ..*asked })
            .collect();
        for single in self.watch.addresses_in(&loaded.module) {
            insert_request(&mut asked, single);
        }
        let (watched, refused): (Vec<_>, Vec<_>) = asked.into_iter().partition(|asked| asked.is_for);
        let with =
            |action| move |asked: &RequestRange| CodeRange { start: asked.start, end: asked.end, action };
        let watched: Vec<CodeRange> = watched.iter().map(with(Action::WATCH)).collect();
        let at_home = |code_range: &CodeRange| CodeRange {
            start: base + code_range.start,
            end: base + code_range.end,
            ..*code_range
        };
        let mut code_ranges = overlay(code.wrappers.iter().map(at_home), &watched);
        if self.watch.is_everything() {
            code_ranges.sort_by_key(|code_range| code_range.start);
            code_ranges = overlay(refused.iter().map(with(Action::COUNT)), &code_ranges);
        }
        // If an unloaded module was at the addresses of the new module before, remove the code ranges of the
        // unloaded module.
        let is_outside = |start, end| end <= loaded.module.start || start >= loaded.module.end;
        self.code_ranges.retain(|code_range| is_outside(code_range.start, code_range.end));
        self.refused.retain(|asked| is_outside(asked.start, asked.end));
        self.code_ranges.extend(code_ranges);
        self.refused.extend(refused);
        Some(shared)
    }

    /// Begins to prepare a change of the set of watched sites. [`Publisher::make`] applies the change; if the
    /// preparation is not done yet, [`Publisher::make`] completes it.
    pub(crate) fn prepare_change(&self, watch: WatchSet, modules: &[Loaded]) -> Change {
        let walks = !watch.is_empty();
        self.compile(Arc::new(watch), modules, walks)
    }

    fn compile(&self, watch: Arc<WatchSet>, modules: &[Loaded], walks: bool) -> Change {
        let (set, compiled, code_options) =
            (Arc::clone(&watch), Arc::clone(&self.compiled), Arc::clone(&self.code_options));
        let files: Vec<_> = modules
            .iter()
            .map(|loaded| ((loaded.module.path.clone(), loaded.module.build_id.clone()), loaded.file.clone()))
            .collect();
        let worker = std::thread::Builder::new().spawn(move || {
            for (key, file) in files {
                compiled.asked(&key, &file, &set);
                if let Some(code) = compiled.code(key, &file, &code_options).get()
                    && walks
                {
                    code.rules();
                }
            }
        });
        Change { watch, worker: worker.ok() }
    }

    /// Applies a change of the set of watched sites, both to sites that the target already has and to sites
    /// that the target adds later. Returns by how much the number of watched sites has changed.
    pub(crate) fn make(&mut self, change: Change, session: &Session, modules: &[Loaded]) -> usize {
        self.changes += 1;
        let old = std::mem::replace(&mut self.watch, change.watch);
        self.code.clear();
        self.code_ranges.clear();
        self.refused.clear();
        self.walks |= !self.watch.is_empty();
        if self.walks {
            // Publish the unwind rules before the new sites are watched. Without unwind rules, a walk of a
            // stack at a newly watched site would end before the outermost frame.
            for loaded in modules {
                self.learn(loaded);
            }
            self.publish_rules(session, modules);
        }
        let before = self.watched_sites(session);
        for loaded in modules.get(self.code.len()..).unwrap_or_default() {
            self.learn(loaded);
        }
        // If several modules were loaded at the same address one after the other, only the module that was
        // loaded last is mapped now.
        let mut latest: Vec<&Loaded> = modules.iter().filter(|loaded| loaded.latest_event > 0).collect();
        latest.sort_by_key(|loaded| loaded.latest_event);
        latest.into_iter().for_each(|loaded| drop(self.lay(loaded)));
        self.publish(session, modules);
        if old.version() != self.code_options.watch.version() {
            self.compiled.forget(old.version());
        }
        before.abs_diff(self.watched_sites(session))
    }

    /// The prefixes of allocators' functions that the user has added.
    pub(crate) fn prefixes(&self) -> &Prefixes {
        &self.code_options.allocators
    }

    /// The allocator functions that a module defines; `None`: the collector did not read the module's file.
    pub(crate) fn entries_of(&self, module: usize) -> Option<&FileEntries> {
        Some(&self.code.get(module)?.get()?.entries)
    }

    /// Counts the functions and return addresses in loaded modules that the watch requests with the serial
    /// numbers `serials` name.
    pub(crate) fn meant(&self, serials: &[u32], modules: &[Loaded]) -> usize {
        let loaded = modules.iter().filter(|loaded| loaded.module.unloaded_ns == 0);
        loaded.map(|loaded| self.count_meant(serials, loaded)).sum()
    }

    fn count_meant(&self, serials: &[u32], loaded: &Loaded) -> usize {
        let is_meant = |asked: &RequestRange| serials.contains(&asked.serial);
        let key = (loaded.module.path.clone(), loaded.module.build_id.clone());
        let functions = self.compiled.asked(&key, &loaded.file, &self.watch);
        let functions = functions.get().map_or(0, |all| all.iter().filter(|one| is_meant(one)).count());
        functions + self.watch.addresses_in(&loaded.module).filter(is_meant).count()
    }

    /// The watch requests that match no function and no address in any module, not even in an unloaded
    /// module.
    pub(crate) fn unmatched(&self, modules: &[Loaded]) -> Vec<String> {
        let count =
            |serial: u32| modules.iter().map(|loaded| self.count_meant(&[serial], loaded)).sum::<usize>();
        let unmatched = self.watch.wanted().filter(|(_, serial)| count(*serial) == 0);
        unmatched.map(|(request, _)| request.to_string()).collect()
    }

    /// Returns the action (count, skip or watch) that the rules give to a return address.
    fn action_at(&self, address: u64) -> Action {
        let pc = address.wrapping_sub(1);
        let after = self.code_ranges.partition_point(|code_range| code_range.start <= pc);
        let code_range = after.checked_sub(1).and_then(|index| self.code_ranges.get(index));
        match code_range {
            Some(code_range) if pc < code_range.end => code_range.action,
            _ if self.watch.is_everything() || self.picked.contains(&address) => Action::WATCH,
            _ => Action::COUNT,
        }
    }

    /// Watches a site that looks like a leak, unless the user asked not to watch this site. Returns `true` if
    /// this call begins the watch of the site.
    pub(crate) fn pick(&mut self, session: &Session, address: u64) -> bool {
        let pc = address.wrapping_sub(1);
        let after = self.refused.partition_point(|asked| asked.start <= pc);
        let refused = after.checked_sub(1).and_then(|index| self.refused.get(index));
        if self.may_pick
            && refused.is_none_or(|asked| pc >= asked.end)
            && let Some(slot) = slot_of(session, address)
            && slot.action() == Action::COUNT
        {
            self.picked.insert(address);
            self.changes += 1;
            change(session, address, slot, Action::WATCH);
            return true;
        }
        false
    }

    /// Ends the watch of a site that auto-watch has picked. If the user also asked to watch the site, edleak
    /// still watches the site.
    pub(crate) fn unpick(&mut self, session: &Session, address: u64) {
        if self.picked.remove(&address) {
            self.changes += 1;
            self.tell(session, address);
        }
    }

    /// Ends auto-watch: the next [`Publisher::make`] ends the watches of all picked sites.
    pub(crate) fn end_picking(&mut self) {
        self.may_pick = false;
        self.picked.clear();
    }

    /// Compiles the unwind rules of all modules in another thread. [`Publisher::enable_walks`] publishes the
    /// compiled unwind rules.
    pub(crate) fn prepare_walks(&self, modules: &[Loaded]) -> Change {
        self.compile(Arc::clone(&self.watch), modules, true)
    }

    /// Publishes the unwind rules of all modules, so that the library in the target can walk stacks from now
    /// on.
    pub(crate) fn enable_walks(&mut self, session: &Session, modules: &[Loaded]) {
        if !self.walks {
            self.walks = true;
            self.publish_rules(session, modules);
        }
    }

    /// Updates the actions of all sites that the target already has: the target may have stored a site before
    /// the collector published or changed the rules for this site.
    fn tell_known_sites(&mut self, session: &Session) {
        let refused = std::mem::take(&mut self.refused);
        self.picked.retain(|&address| {
            let pc = address.wrapping_sub(1);
            let after = refused.partition_point(|asked| asked.start <= pc);
            after == 0 || refused[after - 1].end <= pc
        });
        self.refused = refused;
        for address in known_addresses(session) {
            self.tell(session, address);
        }
    }

    /// Updates the action of one site that the target already has.
    pub(crate) fn tell(&self, session: &Session, address: u64) {
        if let Some(slot) = slot_of(session, address) {
            let (now, wanted) = (slot.action(), self.action_at(address));
            if now != wanted && now != Action::LOADER {
                change(session, address, slot, wanted);
            } else if now != Action::COUNT && self.publications > 1 {
                // A thread of the target may have been about to remove this caller from the caller cache when
                // a signal handler interrupted the thread. If the signal handler leaves the library with
                // longjmp, the thread never completes the removal of the caller. So the collector also
                // removes the caller from the caller cache.
                caller::withdraw_if(session.callers(), address, |caller| caller.site().is_some());
            }
        }
    }

    fn watched_sites(&self, session: &Session) -> usize {
        let slots = known_addresses(session).filter_map(|address| slot_of(session, address));
        slots.filter(|slot| slot.action() == Action::WATCH).count()
    }

    /// Publishes the unwind rules of loaded modules. The collector adds new rows to the unwind table after
    /// the rows in use and does not change the rows in use, so a walk of a stack can read the unwind table at
    /// any time. Only during the short time in which the collector writes the table of modules, a walk of a
    /// stack finds no rules.
    fn publish_rules(&mut self, session: &Session, modules: &[Loaded]) {
        let is_loaded = |module: usize| modules[module].module.unloaded_ns == 0;
        let rows_of = |module: usize| {
            let code = self.code.get(module).and_then(|code| code.get());
            code.map_or(&[][..], |code| code.rules().rows.as_slice())
        };
        let known = self.code.len().min(modules.len());
        let missing = (0..known)
            .filter(|&module| is_loaded(module) && !self.rows_at.contains_key(&module))
            .map(|module| rows_of(module).len())
            .sum::<usize>();
        if missing == 0 && self.rows_at.keys().all(|&module| is_loaded(module)) {
            return;
        }
        if self.rows_used + missing > MAX_ROWS {
            session.header().rule_tables.store(0, Ordering::Release);
            self.rows_used = 0;
            self.rows_at.clear();
        }
        for module in (0..known).filter(|&module| is_loaded(module)) {
            let rows = rows_of(module);
            if self.rows_at.contains_key(&module) || self.rows_used + rows.len() > MAX_ROWS {
                continue; // the rows do not fit into the session, so walks of stacks end at this module
            }
            for (cell, row) in session.rule_rows()[self.rows_used..].iter().zip(rows) {
                let word = u64::from(row.start) | u64::from(row.rule.0) << 32;
                cell.offset_and_rule.store(word, Ordering::Relaxed);
            }
            self.rows_at.insert(module, self.rows_used);
            self.rows_used += rows.len();
        }
        self.rows_at.retain(|&module, _| is_loaded(module));
        let mut tables: Vec<_> = self
            .rows_at
            .iter()
            .map(|(&module, &rows_at)| {
                let loaded = &modules[module].module;
                let base = self.code[module].get().map_or(0, |code| code.link_base);
                (loaded.load_bias.wrapping_add(base), loaded.end, rows_at, rows_of(module).len())
            })
            .collect();
        tables.sort_unstable();
        tables.truncate(MAX_TABLES - PADDING);
        // Change the length of the table of modules with padding, because the target recognizes a new table
        // by its length.
        tables.extend(std::iter::repeat_n((u64::MAX, u64::MAX, 0, 0), self.publications % PADDING));
        session.header().rule_tables.store(0, Ordering::Release);
        for (table, (start, end, rows_at, rows)) in session.rule_tables().iter().zip(&tables) {
            table.start.store(*start, Ordering::Relaxed);
            table.end.store(*end, Ordering::Relaxed);
            table.rows_at.store(*rows_at as u32, Ordering::Relaxed);
            table.rows.store(*rows as u32, Ordering::Relaxed);
        }
        session.header().rule_tables.store(tables.len() as u32, Ordering::Release);
    }
}

/// The return addresses of the sites that the target has. The function reads the return addresses of the
/// sites from the list that is indexed by site id, and not from the site table. Most slots of the site table
/// are empty, and reading an empty slot would allocate memory for the page of this slot.
fn known_addresses(session: &Session) -> impl Iterator<Item = u64> {
    let addresses =
        session.infos()[..session.sites_in_use()].iter().map(|info| info.address.load(Ordering::Acquire));
    addresses.filter(|&address| address != 0)
}

/// The slot of a return address in the site table; `None`: the target has no site with this address.
pub(crate) fn slot_of(session: &Session, address: u64) -> Option<&SiteSlot> {
    edleak_session::site::find(session.slots(), address)
}

/// Changes the action for a return address.
fn change(session: &Session, address: u64, slot: &SiteSlot, action: Action) {
    slot.set_action(action);
    caller::withdraw(session.callers(), address);
}
