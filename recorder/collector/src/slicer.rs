//! One slice: every counter of a session at one instant, and the shards of threads that are gone.

use crate::process;
use crate::shm::Session;
use edleak_format::Counters;
use edleak_session::layout::owner_tid;
use edleak_session::site::MAX_SITES;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads the counters of one session, slice after slice.
pub struct Slicer {
    /// Shards that were ever owned. Others are untouched, and reading them would give them memory.
    used: Vec<bool>,
    /// By site id of the session.
    counters: Vec<Counters>,
}

impl Slicer {
    /// For a session with this many shards.
    pub fn new(shards: usize) -> Slicer {
        Slicer { used: vec![false; shards], counters: Vec::new() }
    }

    /// Reads all counters of the site ids in use.
    ///
    /// All free counters come first and all alloc counters after them: an allocation is counted before its address leaves
    /// malloc, so whatever free has been seen, its allocation will be, and live is never negative.
    pub fn read(&mut self, session: &Session) -> &[Counters] {
        let sites = (session.header().next_site.load(Ordering::Acquire) as usize).min(MAX_SITES);
        self.counters.clear();
        self.counters.resize(sites, Counters::ZERO);
        let shared_in_use = session.header().shared_in_use.load(Ordering::Acquire) != 0;
        let shared = self.used.len() - 1;
        for (index, (used, shard)) in self.used.iter_mut().zip(session.shards()).enumerate() {
            *used |= shard.owner.load(Ordering::Acquire) != 0 || (index == shared && shared_in_use);
        }
        let used = || self.used.iter().enumerate().filter_map(|(index, &used)| used.then_some(index));
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        for shard in used() {
            for (sum, counters) in self.counters.iter_mut().zip(session.counters(shard, sites)) {
                sum.frees = sum.frees.wrapping_add(load(&counters.frees));
                sum.freed_bytes = sum.freed_bytes.wrapping_add(load(&counters.freed_bytes));
            }
        }
        for shard in used() {
            for (sum, counters) in self.counters.iter_mut().zip(session.counters(shard, sites)) {
                sum.allocs = sum.allocs.wrapping_add(load(&counters.allocs));
                sum.allocated_bytes = sum.allocated_bytes.wrapping_add(load(&counters.allocated_bytes));
            }
        }
        &self.counters
    }

    /// Takes back the shards of threads that are gone, so that later threads need not share one. Their counts stay.
    ///
    /// Only with thread ids that are the kernel's: a shard taken from a living thread would have two writers.
    pub fn reclaim(&self, session: &Session, pid: u32) {
        if session.header().tids_known.load(Ordering::Relaxed) == 0 {
            return;
        }
        for shard in session.shards() {
            let owner = shard.owner.load(Ordering::Acquire);
            let tid = owner_tid(owner);
            if owner != 0 && tid != 0 && !process::has_thread(pid, tid) {
                // An heir with the same thread pointer may have taken it meanwhile; then this fails, as it should.
                let _ = shard.owner.compare_exchange(owner, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_session::layout::owner_word;

    #[test]
    fn counters_of_all_used_shards_are_summed() {
        let session = Session::create(16, 0).expect("memory files can be made");
        session.header().next_site.store(5, Ordering::Relaxed);
        for (shard, bytes) in [(0, 100), (3, 20)] {
            session.shards()[shard].owner.store(owner_word(0x7000 + shard as u64 * 64, 1), Ordering::Relaxed);
            session.counters(shard, 5)[4].add_owned(bytes);
            session.counters(shard, 5)[4].sub_owned(bytes / 2);
        }
        session.counters(9, 5)[4].add_owned(1_000_000); // nobody owns it
        let mut slicer = Slicer::new(16);
        let counters = slicer.read(&session);
        assert_eq!(counters.len(), 5);
        assert_eq!(counters[4], Counters { allocated_bytes: 120, allocs: 2, freed_bytes: 60, frees: 2 });
        session.header().shared_in_use.store(1, Ordering::Relaxed);
        session.counters(15, 5)[3].add_shared(7);
        assert_eq!(slicer.read(&session)[3].allocated_bytes, 7);
    }

    #[test]
    fn shards_of_dead_threads_are_taken_back_and_keep_their_counts() {
        let pid = std::process::id();
        let session = Session::create(16, 0).expect("memory files can be made");
        session.header().tids_known.store(1, Ordering::Relaxed);
        session.header().next_site.store(4, Ordering::Relaxed);
        let alive = owner_word(0x7000, pid);
        session.shards()[0].owner.store(alive, Ordering::Relaxed);
        session.shards()[1].owner.store(owner_word(0x8000, 1), Ordering::Relaxed); // no thread of ours
        session.shards()[2].owner.store(owner_word(0x9000, 0), Ordering::Relaxed); // id not known
        session.counters(1, 4)[2].add_owned(64);
        let mut slicer = Slicer::new(16);
        slicer.read(&session);
        slicer.reclaim(&session, pid);
        let owners: Vec<_> = session.shards()[..3].iter().map(|s| s.owner.load(Ordering::Relaxed)).collect();
        assert_eq!(owners, [alive, 0, owner_word(0x9000, 0)]);
        assert_eq!(slicer.read(&session)[2].allocated_bytes, 64);
    }

    #[test]
    fn a_target_that_claims_absurdly_many_sites_gets_what_there_is() {
        let session = Session::create(16, 0).expect("memory files can be made");
        session.header().next_site.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(Slicer::new(16).read(&session).len(), MAX_SITES);
    }
}
