//! Auto-watch of one recording: watches sites that look like leaks, and stops watching sites whose stacks
//! cost too much processor time.

use super::Recording;
use super::auto_watch_state::Watching;
use crate::rules::publisher::{Change, slot_of};
use crate::watch::budget::{Budget, Watched};
use edleak_format::{Error, Record, WatchEnd};
use edleak_session::site::{Action, OTHER};
use edleak_session::stack::CUT;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// If a program mostly sleeps, auto-watch computes its budget as if the program used 1/20 of a processor.
/// With the default budget of 2 %, recording the stacks of a program that mostly sleeps then takes at most
/// 1/1000 of a processor.
const LEAST_USE: u64 = 20;

/// To compile the unwind rules of a module, the collector needs this number of nanoseconds for each byte of
/// the module. Measured with the program file of a compiler (33 MB): 1.1 s.
const RULES_NS_PER_BYTE: u64 = 33;
/// The collector compiles unwind rules only if this work takes at most 1/5 of the time that the program has
/// run so far. The time in which the program waited for a processor does not count as running time.
const RULES_SHARE: u64 = 5;

impl Recording {
    /// Watches the sites that look like leaks, as far as the budget allows. Stops watching sites whose stacks
    /// cost too much processor time.
    pub(super) fn watch_suspects(&mut self) {
        let Some(mut watching) = self.watching.take() else { return };
        if let Some(suspects) = watching.auto_watch.suspects(self.schedule.period().as_secs_f64()) {
            watching.suspects = suspects;
        }
        let used_ns = self.processor.map_or(0, |[(from_ns, first), (to_ns, last)]| {
            last.used_ns.saturating_sub(first.used_ns).max((to_ns - from_ns) / LEAST_USE)
        });
        let watched = self.watched_sites(&watching.budget);
        for site in watching.budget.charge(&watched, used_ns) {
            self.publisher.unpick(&self.session, self.address_of(site));
        }
        self.pick_suspects(&mut watching, used_ns);
        self.watching = Some(watching);
    }

    fn pick_suspects(&mut self, watching: &mut Watching, used_ns: u64) {
        let Watching { auto_watch, budget, suspects, rules } = watching;
        let price = |site: usize| auto_watch.allocs_per_slice(site);
        // If the budget does not allow the collector to watch any site that looks like a leak, the collector
        // compiles no unwind rules, because a small program may never need these rules.
        if !suspects.iter().any(|&site| budget.can_begin(site, price(site), used_ns)) || !self.can_walk(rules)
        {
            return;
        }
        for &site in &*suspects {
            if budget.begin(site, price(site), used_ns)
                && !self.publisher.pick(&self.session, self.address_of(site))
            {
                budget.exclude(site);
            }
        }
    }

    /// Whether the target has unwind rules, without which it cannot walk stacks. When a site looks like a
    /// leak for the first time, this function begins to compile the unwind rules in the background.
    fn can_walk(&mut self, rules: &mut Option<(Change, usize)>) -> bool {
        if self.publisher.walks() {
            return true;
        }
        let modules = self.modules.all();
        if rules.is_none() && !self.do_rules_pay() {
            return false;
        }
        // If the program has loaded more modules since the collector began to compile the unwind rules, the
        // collector compiles the rules of these modules in the background, too. If the thread that takes
        // slices compiled the rules, the next slices would be late.
        let (change, _) = match rules.take() {
            Some((change, known)) if known == modules.len() || !change.is_prepared() => {
                rules.insert((change, known))
            }
            _ => rules.insert((self.publisher.prepare_walks(modules), modules.len())),
        };
        if !change.is_prepared() {
            return false;
        }
        *rules = None;
        self.publisher.enable_walks(&self.session, modules);
        self.bounds.refresh(&self.session, self.pid, Instant::now());
        true
    }

    /// Whether the program has run long enough to justify the time for compiling the unwind rules of its
    /// modules. A program that builds up its data looks like a leak in the first one or two seconds.
    /// Compiling the unwind rules of a large program also takes one or two seconds. So the collector does not
    /// compile the unwind rules of a large program in the first one or two seconds of the program.
    fn do_rules_pay(&self) -> bool {
        let loaded = self.modules.all().iter().filter(|loaded| loaded.module.unloaded_ns == 0);
        let bytes: u64 = loaded.map(|loaded| loaded.module.end.saturating_sub(loaded.module.start)).sum();
        let ran_ns = self.processor.map_or(0, |[(from_ns, first), (to_ns, last)]| {
            // The time in which the program waits for a processor does not count as running time, because it
            // is long on a busy machine.
            (to_ns - from_ns).saturating_sub(last.waited_ns.saturating_sub(first.waited_ns))
        });
        ran_ns / RULES_SHARE >= bytes.saturating_mul(RULES_NS_PER_BYTE)
    }

    fn address_of(&self, site: usize) -> u64 {
        let info = self.session.infos().get(site + OTHER as usize);
        info.map_or(0, |info| info.address.load(Ordering::Acquire))
    }

    /// The sites that auto-watch has picked, with the counters of their stacks.
    fn watched_sites(&self, budget: &Budget) -> Vec<Watched> {
        let mut all: Vec<Watched> =
            budget.watched().map(|site| Watched { site, allocs: 0, stacks: 0, frames: 0.0 }).collect();
        if all.is_empty() {
            return Vec::new();
        }
        for (info, counters) in self.session.stack_infos().iter().zip(self.counter_reader.stacks()) {
            let site = info.site.load(Ordering::Relaxed).wrapping_sub(OTHER) as usize;
            if let Ok(index) = all.binary_search_by_key(&site, |watched| watched.site) {
                let watched = &mut all[index];
                let frames = f64::from(info.frames.load(Ordering::Relaxed) & !CUT);
                watched.allocs = watched.allocs.saturating_add(counters.allocs);
                watched.stacks += 1;
                watched.frames += frames * counters.allocs as f64;
            }
        }
        for watched in &mut all {
            watched.frames /= (watched.allocs as f64).max(1.0);
        }
        all
    }

    /// Notes that a watched site has a stack in the trace. If the collector no longer watches this site, the
    /// function also writes the end of the watch into the trace.
    pub(super) fn note_watch(&mut self, site: u32, now_ns: u64) -> Result<(), Error> {
        if self.watches.of_sites.contains_key(&site) {
            return Ok(());
        }
        self.watches.of_sites.insert(site, true);
        self.note_if_ended(site, true, now_ns)
    }

    /// Writes into the trace each site whose watch has ended since the previous slice, and each site that is
    /// watched again since the previous slice.
    pub(super) fn note_ended_watches(&mut self, now_ns: u64) -> Result<(), Error> {
        let changes = self.publisher.changes();
        if changes == std::mem::replace(&mut self.watches.changes, changes) {
            return Ok(());
        }
        let sites: Vec<(u32, bool)> = self.watches.of_sites.iter().map(|(site, was)| (*site, *was)).collect();
        sites.into_iter().try_for_each(|(site, was)| self.note_if_ended(site, was, now_ns))
    }

    fn note_if_ended(&mut self, site: u32, was: bool, now_ns: u64) -> Result<(), Error> {
        let address = self.address_of((site - OTHER) as usize);
        let is = slot_of(&self.session, address).is_some_and(|slot| slot.action() == Action::WATCH);
        if is == was {
            return Ok(());
        }
        self.watches.of_sites.insert(site, is);
        let id = self.trace_ids[(site - OTHER) as usize];
        self.record(&Record::WatchEnd(WatchEnd { site: id, at_ns: if is { 0 } else { now_ns.max(1) } }))
    }
}
