//! Learns the modules, sites and watched stacks that are new since the previous slice.

use super::{Recording, attached};
use crate::recording::stacks::NewStack;
use crate::rules::modules::Event;
use crate::sys::maps;
use edleak_format::{
    EarlierFrees, Error, ModuleId, Record, Site, SiteId, SiteKind, Stack, ThreadStart, TraceWriter,
};
use edleak_session::event::{self, LOADED, MAX_EVENTS, ModuleEvent};
use edleak_session::site::OTHER;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

impl Recording {
    pub(super) fn read_events(&mut self, now_ns: u64) -> Result<(), Error> {
        let waiting = event::waiting(&self.session.header().events_written, self.events_read, MAX_EVENTS);
        if waiting == 0 {
            return Ok(());
        }
        let first_new = self.modules.all().len();
        let mut is_any_back = false;
        for offset in 0..waiting {
            let number = self.events_read.wrapping_add(offset);
            let event = &self.session.events()[number as usize % MAX_EVENTS];
            let bias = event.load_bias.load(Ordering::Relaxed);
            if event.kind.load(Ordering::Acquire) == LOADED {
                let index = self.modules.add_loaded(&event_of(event, number.wrapping_add(1)), now_ns);
                if let Some(index) = index.filter(|&index| index < first_new) {
                    is_any_back = true;
                    self.publisher.bring_back(&self.modules.all()[index]);
                    let record = Record::Module(self.modules.all()[index].module.clone());
                    self.record(&record)?;
                }
            } else if let Some(module) = self.modules.unloaded(bias, number.wrapping_add(1), now_ns) {
                let record = Record::Module(module.clone());
                self.record(&record)?;
            }
        }
        self.events_read = self.events_read.wrapping_add(waiting);
        self.session.header().events_read.store(self.events_read, Ordering::Release);
        if is_any_back {
            self.publish_rules();
        }
        self.new_modules(first_new)
    }

    /// The module that contained a return address after `events` module events. The target may load a module
    /// and allocate in it after the collector has read the events of this slice. The collector then reads the
    /// newer events first: without them, the address would seem to lie in the module that was there before.
    pub(super) fn module_at(&mut self, address: u64, events: u32) -> Result<Option<ModuleId>, Error> {
        if self.is_ahead(events) {
            self.read_events(self.began.elapsed().as_nanos() as u64)?;
        }
        Ok(self.modules.at(address, events))
    }

    /// Whether the target had written more module events than the collector has read, when it had written
    /// `events`.
    fn is_ahead(&self, events: u32) -> bool {
        events.wrapping_sub(self.events_read) as i32 > 0
    }

    fn new_modules(&mut self, first_new: usize) -> Result<(), Error> {
        let new: Vec<_> = self.modules.all().get(first_new..).unwrap_or_default().to_vec();
        if new.is_empty() {
            return Ok(());
        }
        for loaded in &new {
            self.record(&Record::Module(loaded.module.clone()))?;
        }
        self.publish_rules();
        Ok(())
    }

    /// Records new sites in the trace, and the modules that contain these sites.
    pub(super) fn learn_sites(&mut self, now_ns: u64) -> Result<(), Error> {
        let mut ids = std::mem::take(&mut self.late_sites);
        for id in OTHER + self.trace_ids.len() as u32..self.session.sites_in_use() as u32 {
            ids.push(id);
            self.trace_ids.push(SiteId(self.sites));
            self.sites += 1;
        }
        let mut map_is_fresh = false;
        for id in ids {
            let info = &self.session.infos()[id as usize];
            let address = info.address.load(Ordering::Acquire);
            if id == OTHER {
                self.record_site(id, SiteKind::Other, 0, None)?;
                continue;
            }
            if address == 0 {
                self.late_sites.push(id); // a thread is still inserting the site
                continue;
            }
            let events = info.events_before.load(Ordering::Relaxed);
            let mut module = self.module_at(address, events)?;
            if module.is_none() && !map_is_fresh {
                map_is_fresh = true;
                self.look_at_map(now_ns)?;
                module = self.modules.at(address, events);
            }
            self.record_site(id, SiteKind::Caller, address, module)?;
        }
        Ok(())
    }

    /// Writes into the trace which sites start threads, unless the trace already contains this fact.
    pub(super) fn learn_thread_starts(&mut self) -> Result<(), Error> {
        while let Some(noted) = self.session.header().thread_starts.get(self.thread_starts) {
            let id = noted.load(Ordering::Acquire);
            let Some(&site) = id.checked_sub(OTHER).and_then(|index| self.trace_ids.get(index as usize))
            else {
                break; // no further site, or the collector learns the site only at the next slice
            };
            self.thread_starts += 1;
            self.record(&Record::ThreadStart(ThreadStart { site }))?;
        }
        Ok(())
    }

    fn record_site(
        &mut self,
        id: u32,
        kind: SiteKind,
        address: u64,
        module: Option<ModuleId>,
    ) -> Result<(), Error> {
        // While the collector was replacing the rule tables, the target may have stored an outdated action
        // for this site. (The action tells how the target counts allocations of the site.) So the collector
        // sends the current action of the site to the target.
        self.publisher.tell(&self.session, address);
        if module.is_some() && module == self.image {
            self.image_sites.push((id - OTHER) as usize);
        }
        self.record(&Record::Site(Site {
            id: self.trace_ids[(id - OTHER) as usize],
            kind,
            parent: None,
            address,
            module,
            stack: None,
        }))
    }

    pub(super) fn learn_stacks(&mut self, now_ns: u64) -> Result<(), Error> {
        let ends_nowhere =
            |stack: &Stack| stack.is_cut && stack.frames.last().is_some_and(|f| f.module.is_none());
        // If the room for sites, stacks and modules in the trace were used up, the recording would end. So
        // the collector adds no more stacks when the trace is nearly full, and keeps the rest of the room for
        // slices.
        if self.writer.as_ref().is_some_and(TraceWriter::is_nearly_full) {
            self.stacks.close();
        }
        if self.stacks.is_closed() {
            return Ok(());
        }
        let mut new = self.new_stacks();
        if new.iter().any(|new| ends_nowhere(&new.stack)) {
            // The walk of a stack ended in a module that was mapped without a module event. Publish the
            // unwind rules of this module, so that later walks of stacks do not end in this module.
            self.look_at_map(now_ns)?;
            new = self.new_stacks();
        }
        if let Some(ahead) = new.iter().position(|new| self.is_ahead(new.events)) {
            // The collector learns these stacks at the next slice, after it has read their module events.
            new.truncate(ahead);
        }
        let most = self.writer.as_ref().map_or(0, TraceWriter::most_sites);
        for NewStack { stack, parent, .. } in new {
            if self.sites as usize >= most {
                self.stacks.close();
                break;
            }
            let id = SiteId(self.sites);
            self.sites += 1;
            self.stacks.name(id);
            self.note_watch(parent, now_ns)?;
            let frame = stack.frames.first().copied();
            let stack_id = stack.id;
            self.record(&Record::Stack(stack))?;
            self.record(&Record::Site(Site {
                id,
                kind: SiteKind::Stack,
                parent: Some(self.trace_ids[(parent - OTHER) as usize]),
                address: frame.map_or(0, |frame| frame.address),
                module: frame.and_then(|frame| frame.module),
                stack: Some(stack_id),
            }))?;
        }
        Ok(())
    }

    fn new_stacks(&self) -> Vec<NewStack> {
        let sites = OTHER..OTHER + self.trace_ids.len() as u32;
        self.stacks.learn(&self.session, &self.modules, sites)
    }

    /// Finds modules whose loading caused no event, for example with musl or with a program's own loader.
    fn look_at_map(&mut self, now_ns: u64) -> Result<(), Error> {
        let first_new = self.modules.add_maps(&maps::files_of(self.pid), now_ns);
        self.new_modules(first_new)
    }
}

fn event_of(event: &ModuleEvent, number: u32) -> Event {
    let bytes = |from: &[AtomicU8], length: &AtomicU32| -> Vec<u8> {
        let length = (length.load(Ordering::Relaxed) as usize).min(from.len());
        from[..length].iter().map(|byte| byte.load(Ordering::Relaxed)).collect()
    };
    Event {
        name: String::from_utf8_lossy(&bytes(&event.name, &event.name_len)).into_owned(),
        load_bias: event.load_bias.load(Ordering::Relaxed),
        end: event.end.load(Ordering::Relaxed),
        build_id: bytes(&event.build_id, &event.build_id_len),
        number,
    }
}

impl Recording {
    /// If a record is due or if `is_last` is true, writes into the trace how many allocations from the time
    /// before the recording the process has freed so far.
    pub(super) fn note_earlier_frees(&mut self, now_ns: u64, is_last: bool) -> Result<(), Error> {
        let frees = self.session.header().unknown_frees.load(Ordering::Relaxed);
        let Some(before) = &mut self.attached else { return Ok(()) };
        if attached::add(&mut before.earlier_frees, EarlierFrees { at_ns: now_ns, frees }, is_last) {
            let record = Record::Attached(before.clone());
            self.record(&record)?;
        }
        Ok(())
    }
}
