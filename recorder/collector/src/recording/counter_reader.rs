//! Reads all counters of a session for one slice. Also makes the shards (sets of counters) of ended threads
//! free for new threads.

use crate::recording::stacks::cells;
use crate::sys::process;
use crate::sys::shm::Session;
use edleak_format::Counters;
use edleak_session::layout::owner_tid;
use std::sync::atomic::Ordering;

/// Reads the counters of one session for each slice of a recording.
pub(crate) struct CounterReader {
    /// For each shard: whether a thread has ever owned the shard. Reading an unused shard would allocate the
    /// memory pages of this shard.
    used: Vec<bool>,
    /// The counters in the latest slice, indexed by the session id of the site.
    sites: Vec<Counters>,
    /// The counters in the latest slice, indexed by the number of the watched stack.
    stacks: Vec<Counters>,
}

impl CounterReader {
    /// Creates a reader for the counters of a session. `shards` is the number of shards in the session.
    pub(crate) fn new(shards: usize) -> CounterReader {
        CounterReader { used: vec![false; shards], sites: Vec::new(), stacks: Vec::new() }
    }

    /// The counters of the sites in the latest slice, indexed by session id.
    pub(crate) fn sites(&self) -> &[Counters] {
        &self.sites
    }

    /// The counters of the watched stacks in the latest slice.
    pub(crate) fn stacks(&self) -> &[Counters] {
        &self.stacks
    }

    /// Reads the counters of every site id that is in use, and of the first `stacks` watched stacks.
    ///
    /// The function first reads the counters of frees, and then the counters of allocations. The target
    /// counts an allocation before malloc returns its address. So for every free that the collector reads,
    /// the collector also reads the allocation of the freed memory, and the live count is never negative.
    pub(crate) fn read(&mut self, session: &Session, stacks: usize) {
        let sites = session.sites_in_use();
        self.sites.clear();
        self.sites.resize(sites, Counters::ZERO);
        self.stacks.clear();
        self.stacks.resize(stacks, Counters::ZERO);
        let shared_in_use = session.header().shared_in_use.load(Ordering::Acquire) != 0;
        let shared = self.used.len() - 1;
        for (index, (used, shard)) in self.used.iter_mut().zip(session.shards()).enumerate() {
            *used |= shard.owner.load(Ordering::Acquire) != 0 || (index == shared && shared_in_use);
        }
        let used = || self.used.iter().enumerate().filter_map(|(index, &used)| used.then_some(index));
        for shard in used() {
            for (sum, counters) in self.sites.iter_mut().zip(session.counters(shard, sites)) {
                add_frees(sum, counters);
            }
        }
        if stacks > 0 {
            for (stack, cell) in cells(session) {
                self.stacks.get_mut(stack).into_iter().for_each(|sum| add_frees(sum, &cell.counters));
            }
            for (stack, cell) in cells(session) {
                self.stacks.get_mut(stack).into_iter().for_each(|sum| add_allocs(sum, &cell.counters));
            }
        }
        for shard in used() {
            for (sum, counters) in self.sites.iter_mut().zip(session.counters(shard, sites)) {
                add_allocs(sum, counters);
            }
        }
    }

    /// Makes the shards of ended threads free for new threads, so that new threads do not have to share a
    /// shard. A shard keeps its counts when it becomes free, and the next thread that uses this shard adds to
    /// these counts.
    ///
    /// The function works only if the shards contain the kernel's thread ids. With ids of another kind, the
    /// function could free the shard of a living thread. Two threads would then write into one shard at the
    /// same time, and counts would be lost.
    pub(crate) fn reclaim(&self, session: &Session, pid: u32) {
        if session.header().tids_known.load(Ordering::Relaxed) == 0 {
            return;
        }
        for shard in session.shards() {
            let owner = shard.owner.load(Ordering::Acquire);
            let tid = owner_tid(owner);
            if owner != 0 && tid != 0 && !process::has_thread(pid, tid) {
                // If a new thread with the same thread pointer has taken the shard meanwhile, the
                // compare-and-exchange fails, and the new thread keeps the shard.
                let _ = shard.owner.compare_exchange(owner, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

fn add_frees(sum: &mut Counters, counters: &edleak_session::counters::Counters) {
    sum.frees = sum.frees.wrapping_add(counters.frees.load(Ordering::Acquire));
    sum.freed_bytes = sum.freed_bytes.wrapping_add(counters.freed_bytes.load(Ordering::Acquire));
}

fn add_allocs(sum: &mut Counters, counters: &edleak_session::counters::Counters) {
    sum.allocs = sum.allocs.wrapping_add(counters.allocs.load(Ordering::Acquire));
    sum.allocated_bytes = sum.allocated_bytes.wrapping_add(counters.allocated_bytes.load(Ordering::Acquire));
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_session::layout::owner_word;
    use edleak_session::site::MAX_SITES;

    #[test]
    fn counters_of_all_used_shards_are_summed() {
        let session = Session::create(16, 0).expect("memory files can be made");
        session.header().next_site.store(5, Ordering::Relaxed);
        for (shard, bytes) in [(0, 100), (3, 20)] {
            session.shards()[shard].owner.store(owner_word(0x7000 + shard as u64 * 64, 1), Ordering::Relaxed);
            session.counters(shard, 5)[4].add_allocation_owned(bytes);
            session.counters(shard, 5)[4].add_free_owned(bytes / 2);
        }
        session.counters(9, 5)[4].add_allocation_owned(1_000_000); // a shard without an owner
        let mut counter_reader = CounterReader::new(16);
        counter_reader.read(&session, 0);
        assert_eq!(counter_reader.sites().len(), 5);
        assert_eq!(
            counter_reader.sites()[4],
            Counters { allocated_bytes: 120, allocs: 2, freed_bytes: 60, frees: 2 }
        );
        session.header().shared_in_use.store(1, Ordering::Relaxed);
        session.counters(15, 5)[3].add_allocation_shared(7);
        counter_reader.read(&session, 0);
        assert_eq!(counter_reader.sites()[3].allocated_bytes, 7);
    }

    #[test]
    fn shards_of_dead_threads_are_taken_back_and_keep_their_counts() {
        let pid = std::process::id();
        let session = Session::create(16, 0).expect("memory files can be made");
        session.header().tids_known.store(1, Ordering::Relaxed);
        session.header().next_site.store(4, Ordering::Relaxed);
        let alive = owner_word(0x7000, pid);
        session.shards()[0].owner.store(alive, Ordering::Relaxed);
        // no thread of this process has this id
        session.shards()[1].owner.store(owner_word(0x8000, 1), Ordering::Relaxed);
        session.shards()[2].owner.store(owner_word(0x9000, 0), Ordering::Relaxed); // the thread id is unknown
        session.counters(1, 4)[2].add_allocation_owned(64);
        let mut counter_reader = CounterReader::new(16);
        counter_reader.read(&session, 0);
        counter_reader.reclaim(&session, pid);
        let owners: Vec<_> = session.shards()[..3].iter().map(|s| s.owner.load(Ordering::Relaxed)).collect();
        assert_eq!(owners, [alive, 0, owner_word(0x9000, 0)]);
        counter_reader.read(&session, 0);
        assert_eq!(counter_reader.sites()[2].allocated_bytes, 64);
    }

    #[test]
    fn target_that_claims_too_many_sites_gets_the_table_size() {
        let session = Session::create(16, 0).expect("memory files can be made");
        session.header().next_site.store(u32::MAX, Ordering::Relaxed);
        let mut counter_reader = CounterReader::new(16);
        counter_reader.read(&session, 0);
        assert_eq!(counter_reader.sites().len(), MAX_SITES);
    }
}
