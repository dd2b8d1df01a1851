//! What the target is told about its code: which callers to step over, which to watch, and the rules to walk by.
//!
//! Everything is compiled from the files of its modules, once per file however often it is loaded, and published into the
//! session as sorted tables. A table in use is replaced by first declaring it empty; a target that reads meanwhile finds
//! nothing and asks again at the next new site.

use crate::elf::{Elf, FileBytes};
use crate::modules::Loaded;
use crate::shm::Session;
use crate::unwind::UnwindTable;
use crate::watch::WatchSet;
use crate::wrappers::{WrapperSet, wrapper_ranges};
use edleak_session::rule::Kind;
use edleak_session::site::{Action, MAX_SITES, SiteSlot};
use edleak_session::stack::{MAX_ROWS, MAX_TABLES};
use edleak_session::wrapper::MAX_RANGES;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What the user asked for; the same for all recordings of a run.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Functions to step over.
    pub wrappers: WrapperSet,
    /// Sites to watch.
    pub watch: WatchSet,
}

/// A piece of code and what to do when it allocates: return addresses in `start < address <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    start: u64,
    end: u64,
    action: Action,
}

/// What one file says, in offsets from its first byte.
struct FileCode {
    wrappers: Vec<Piece>,
    watched: Vec<Piece>,
    rules: UnwindTable,
    link_base: u64,
}

/// Files that were or are being compiled in this run, by path as their process sees it and build ID.
type Cache = Mutex<HashMap<(String, Vec<u8>), Arc<OnceLock<FileCode>>>>;

/// What one target has been told.
pub struct Guide {
    wishes: Arc<Wishes>,
    cache: Arc<Cache>,
    code: Vec<Arc<OnceLock<FileCode>>>,
    pieces: Vec<Piece>,
    walks: bool,
}

impl Guide {
    /// Nothing has been told yet.
    pub fn new(wishes: Arc<Wishes>) -> Guide {
        let walks = !wishes.watch.is_empty();
        Guide { wishes, cache: Arc::default(), code: Vec::new(), pieces: Vec::new(), walks }
    }

    /// The same wishes and what was compiled for them, for another target of the same run.
    pub fn for_another(&self) -> Guide {
        Guide {
            wishes: Arc::clone(&self.wishes),
            cache: Arc::clone(&self.cache),
            code: Vec::new(),
            pieces: Vec::new(),
            walks: !self.wishes.watch.is_empty(),
        }
    }

    /// Compiles files that the target is going to load, in the background, while it is being started.
    pub fn prepare(&self, files: Vec<PathBuf>) {
        let (wishes, cache) = (Arc::clone(&self.wishes), Arc::clone(&self.cache));
        std::thread::spawn(move || {
            for file in files {
                let Ok(file) = file.canonicalize() else { continue };
                let build_id = match FileBytes::open(&file) {
                    Ok(bytes) => Elf::parse(&bytes).ok().and_then(|elf| elf.build_id().map(<[u8]>::to_vec)),
                    Err(_) => continue,
                };
                let key = (file.display().to_string(), build_id.unwrap_or_default());
                entry(&cache, key).get_or_init(|| FileCode::compile(&file, &wishes));
            }
        });
    }

    /// Tells the target about modules it was not told about before, and about sites it has met in them already.
    pub fn publish(&mut self, session: &Session, modules: &[Loaded]) {
        for loaded in modules.get(self.code.len()..).unwrap_or_default() {
            let shared = entry(&self.cache, (loaded.module.path.clone(), loaded.module.build_id.clone()));
            let code = shared.get_or_init(|| FileCode::compile(&loaded.file, &self.wishes));
            let base = loaded.module.load_bias.wrapping_add(code.link_base);
            let at_home =
                |piece: &Piece| Piece { start: base + piece.start, end: base + piece.end, ..*piece };
            let mut watched: Vec<Piece> = code.watched.iter().map(at_home).collect();
            watched.extend(self.wishes.watch.addresses_in(&loaded.module).map(|address| Piece {
                start: address.wrapping_sub(1),
                end: address,
                action: Action::WATCH,
            }));
            watched.sort_by_key(|piece| (piece.start, piece.end));
            // Another module lay there before; its code is gone.
            self.pieces.retain(|piece| piece.end <= loaded.module.start || piece.start >= loaded.module.end);
            self.pieces.extend(overlay(code.wrappers.iter().map(at_home), &watched));
            self.code.push(shared);
        }
        self.pieces.sort_by_key(|piece| piece.start);
        self.pieces.truncate(MAX_RANGES);
        let header = session.header();
        header.watch_all.store(u32::from(self.wishes.watch.is_everything()), Ordering::Relaxed);
        header.wrapper_ranges.store(0, Ordering::Release);
        for (range, piece) in session.wrappers().iter().zip(&self.pieces) {
            range.start.store(piece.start, Ordering::Relaxed);
            range.end.store(piece.end, Ordering::Relaxed);
            range.action.store(piece.action.0, Ordering::Relaxed);
        }
        header.wrapper_ranges.store(self.pieces.len() as u32, Ordering::Release);
        self.tell_known_sites(session);
        if self.walks {
            self.publish_rules(session, modules);
        }
    }

    /// What is to be done at a return address.
    pub fn action_at(&self, address: u64) -> Action {
        let pc = address.wrapping_sub(1);
        let after = self.pieces.partition_point(|piece| piece.start <= pc);
        let piece = after.checked_sub(1).and_then(|index| self.pieces.get(index));
        match piece {
            Some(piece) if pc < piece.end => piece.action,
            _ if self.wishes.watch.is_everything() => Action::WATCH,
            _ => Action::COUNT,
        }
    }

    /// Makes sure that the target can walk its stacks from now on.
    pub fn enable_walks(&mut self, session: &Session, modules: &[Loaded]) {
        if !self.walks {
            self.walks = true;
            self.publish_rules(session, modules);
        }
    }

    /// Sites that the target met before it was told about their code.
    fn tell_known_sites(&self, session: &Session) {
        // By id rather than by slot: most slots are empty, and looking at them would give them memory.
        let known = (session.header().next_site.load(Ordering::Acquire) as usize).min(MAX_SITES);
        for info in &session.infos()[..known] {
            let address = info.address.load(Ordering::Acquire);
            let action = self.action_at(address);
            if action != Action::COUNT
                && let Some(slot) = slot_of(session, address)
                && slot.action() == Action::COUNT
            {
                slot.set_action(action);
            }
        }
    }

    fn publish_rules(&self, session: &Session, modules: &[Loaded]) {
        let compiled = self.code.iter().filter_map(|code| code.get());
        let mut tables: Vec<_> =
            modules.iter().zip(compiled).filter(|(loaded, _)| loaded.module.unloaded_ns == 0).collect();
        tables.sort_by_key(|(loaded, _)| loaded.module.start);
        session.header().rule_tables.store(0, Ordering::Release);
        let (mut count, mut rows_at) = (0, 0);
        for (loaded, code) in tables.into_iter().take(MAX_TABLES) {
            let rows = &code.rules.rows;
            if rows_at + rows.len() > MAX_ROWS {
                continue; // no room: stacks are cut where they pass through this module
            }
            let base = loaded.module.load_bias.wrapping_add(code.link_base);
            for (cell, row) in session.rule_rows()[rows_at..].iter().zip(rows) {
                let word = u64::from(row.start) | u64::from(row.rule.0) << 32;
                cell.offset_and_rule.store(word, Ordering::Relaxed);
            }
            let table = &session.rule_tables()[count];
            table.start.store(base, Ordering::Relaxed);
            table.end.store(loaded.module.end, Ordering::Relaxed);
            table.rows_at.store(rows_at as u32, Ordering::Relaxed);
            table.rows.store(rows.len() as u32, Ordering::Relaxed);
            rows_at += rows.len();
            count += 1;
        }
        session.header().rule_tables.store(count as u32, Ordering::Release);
    }
}

impl FileCode {
    fn compile(file: &Path, wishes: &Wishes) -> FileCode {
        let empty = || FileCode {
            wrappers: Vec::new(),
            watched: Vec::new(),
            rules: UnwindTable::default(),
            link_base: 0,
        };
        let Ok(bytes) = FileBytes::open(file) else { return empty() };
        let Ok(elf) = Elf::parse(&bytes) else { return empty() };
        let rules = UnwindTable::compile(&elf);
        let wrappers = wrapper_ranges(&elf, &rules, &wishes.wrappers)
            .into_iter()
            .map(|range| Piece {
                start: u64::from(range.start),
                end: u64::from(range.end),
                action: Action::step(range.rule),
            })
            .collect();
        let watched = wishes
            .watch
            .functions_in(&elf)
            .into_iter()
            .map(|(start, end)| Piece { start: u64::from(start), end: u64::from(end), action: Action::WATCH })
            .collect();
        FileCode { wrappers, watched, link_base: elf.link_base(), rules }
    }
}

/// The place of a file's code, whether compiled, being compiled, or not yet begun.
fn entry(cache: &Cache, key: (String, Vec<u8>)) -> Arc<OnceLock<FileCode>> {
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(cache.entry(key).or_default())
}

/// Lays `top` over `below`: where both have something to say, `top` is heard. Both are sorted.
fn overlay(below: impl Iterator<Item = Piece>, top: &[Piece]) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::new();
    for piece in top {
        // Two names of one function, or two patterns that match it.
        match merged.last_mut() {
            Some(last) if piece.start < last.end => last.end = last.end.max(piece.end),
            _ => merged.push(*piece),
        }
    }
    let top = merged.clone();
    for piece in below {
        let mut start = piece.start;
        let first = top.partition_point(|over| over.end <= piece.start);
        for over in top.iter().skip(first).take_while(|over| over.start < piece.end) {
            if start < over.start {
                merged.push(Piece { start, end: over.start, ..piece });
            }
            start = start.max(over.end);
        }
        if start < piece.end {
            merged.push(Piece { start, ..piece });
        }
    }
    merged
}

/// The slot of a return address in the site table, if the target has met it.
pub fn slot_of(session: &Session, address: u64) -> Option<&SiteSlot> {
    use edleak_session::site::{MAX_PROBES, first_slot};
    let slots = session.slots();
    let first = first_slot(address);
    (0..MAX_PROBES)
        .map(|probe| &slots[(first + probe) & (slots.len() - 1)])
        .take_while(|slot| slot.key.load(Ordering::Acquire) != 0)
        .find(|slot| slot.key.load(Ordering::Acquire) == address)
}

/// Whether an action steps over its caller.
pub fn is_step(action: Action) -> bool {
    action.as_step().is_some_and(|rule| matches!(rule.kind(), Kind::Rsp | Kind::Rbp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, end: u64, action: Action) -> Piece {
        Piece { start, end, action }
    }

    #[test]
    fn what_is_watched_is_heard_over_what_is_stepped_over() {
        const STEP: Action = Action(1);
        const WATCH: Action = Action::WATCH;
        let below = [piece(0, 10, STEP), piece(20, 30, STEP), piece(40, 50, STEP)];
        let top = [piece(5, 8, WATCH), piece(6, 9, WATCH), piece(18, 32, WATCH), piece(60, 61, WATCH)];
        let mut merged = overlay(below.into_iter(), &top);
        merged.sort_by_key(|piece| piece.start);
        let expected = [
            piece(0, 5, STEP),
            piece(5, 9, WATCH),
            piece(9, 10, STEP),
            piece(18, 32, WATCH),
            piece(40, 50, STEP),
            piece(60, 61, WATCH),
        ];
        assert_eq!(merged, expected);
    }
}
