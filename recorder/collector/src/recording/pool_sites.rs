//! Records the objects of pools: gives each caller of a pool its ID in the trace, and writes the counters of
//! these callers into each slice.

use super::Recording;
use crate::recording::pools::ledger::{Ledger, PoolSite};
use crate::sys::shm::Session;
use edleak_format::{
    Error, Pool, PoolId, Record, Site, SiteId, SiteKind, Stack, StackFrame, StackId, TraceWriter,
};
use edleak_session::stack::MAX_STACKS;
use std::sync::atomic::Ordering;

impl Recording {
    /// Reads all published events of pools. If `is_over` is true, no thread of the target runs any more.
    pub(super) fn read_pools(&self, is_over: bool) {
        if let Some(pools) = &self.pools {
            pools.lock().read(&self.session, is_over);
        }
    }

    /// The objects of pools that a forked child inherits from this recording's process.
    pub(crate) fn pools_of_child(&self, child: &Session) -> Option<Ledger> {
        let mut pools = self.pools.as_ref()?.lock();
        pools.read(&self.session, false);
        let address = |session: &Session, id: u16| {
            session.infos().get(usize::from(id)).map_or(0, |info| info.address.load(Ordering::Acquire))
        };
        Some(pools.ledger.inherited(|id| address(child, id) == address(&self.session, id)))
    }

    /// Records new names of pools and new sites of pools in the trace.
    pub(super) fn learn_pool_sites(&mut self) -> Result<(), Error> {
        let Some(pools) = &self.pools else { return Ok(()) };
        let (names, new) = {
            let pools = pools.lock();
            let all = pools.ledger.sites().iter().enumerate();
            let new: Vec<_> =
                all.filter(|(_, site)| site.in_trace.is_none()).map(|(i, site)| (i, *site)).collect();
            let names = pools.ledger.names().get(self.pool_names..).unwrap_or_default();
            // If no pool has handed out an object, the trace gets no names of pools.
            (if pools.ledger.sites().is_empty() { Vec::new() } else { names.to_vec() }, new)
        };
        for name in names {
            let id = PoolId(self.pool_names as u32);
            self.pool_names += 1;
            self.record(&Record::Pool(Pool { id, name }))?;
        }
        for (owner, site) in new {
            let Some(frames) = self.pool_frames(&site)? else { continue };
            let most = self.writer.as_ref().map_or(0, TraceWriter::most_sites);
            let is_nearly_full = self.writer.as_ref().is_some_and(TraceWriter::is_nearly_full);
            if self.sites as usize >= most || is_nearly_full {
                return Ok(());
            }
            let id = SiteId(self.sites);
            self.sites += 1;
            let stack = StackId(MAX_STACKS as u32 + owner as u32);
            let last = frames.last().copied();
            self.record(&Record::Stack(Stack { id: stack, frames, is_cut: false }))?;
            self.record(&Record::Site(Site {
                id,
                kind: SiteKind::Pool(PoolId(site.name)),
                parent: None,
                address: last.map_or(0, |frame| frame.address),
                module: last.and_then(|frame| frame.module),
                stack: Some(stack),
            }))?;
            if let Some(pools) = &self.pools {
                pools.lock().ledger.set_in_trace(owner, id);
            }
        }
        Ok(())
    }

    /// The two frames of a pool site: the return address in the pool's own function, and the return address
    /// in the caller of this function. `None`: a thread of the target is still inserting one of the two
    /// return addresses into the site table.
    fn pool_frames(&mut self, site: &PoolSite) -> Result<Option<Vec<StackFrame>>, Error> {
        let mut frames: Vec<StackFrame> = Vec::with_capacity(2);
        for id in [site.direct, site.caller].into_iter().filter(|&id| id != 0) {
            let Some(info) = self.session.infos().get(usize::from(id)) else { return Ok(None) };
            let address = info.address.load(Ordering::Acquire);
            if address == 0 {
                // A site without an address has one of two causes. With the id `OTHER`, the site table had no
                // room for the site; with another id, a thread is still inserting the site.
                if u32::from(id) == edleak_session::site::OTHER { continue } else { return Ok(None) }
            }
            let events = info.events_before.load(Ordering::Relaxed);
            let module = self.module_at(address, events)?;
            // If the pool's function calls edleak as its last statement, the compiler may have turned this
            // call into a jump, so that the return addresses of both frames are equal.
            if frames.last().is_none_or(|frame| frame.address != address) {
                frames.push(StackFrame { address, module });
            }
        }
        Ok(Some(frames))
    }

    /// Copies the counters of each pool site into the slice, at the index of the site in the trace.
    pub(super) fn gather_pools(&mut self) {
        let Some(pools) = &self.pools else { return };
        let pools = pools.lock();
        for (id, counters) in pools.ledger.counters() {
            if let Some(place) = self.counters.get_mut(id.0 as usize) {
                *place = counters;
            }
        }
    }

    /// Records the totals and losses of pools in the trace if these numbers have changed.
    pub(super) fn record_pool_totals(&mut self) -> Result<(), Error> {
        let Some(pools) = &self.pools else { return Ok(()) };
        let now = pools.lock().totals(&self.session);
        if self.recorded_pools == Some(now) {
            return Ok(());
        }
        self.recorded_pools = Some(now);
        self.record(&Record::Pools(now))
    }
}
