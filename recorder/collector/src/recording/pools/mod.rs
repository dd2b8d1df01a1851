//! Counts the objects of pools by site. A thread of the collector reads the events of pools from a ring, and
//! computes the counters of each site from these events.
//!
//! A busy pool hands out ten million objects a second, so the ring is full after a few milliseconds. The
//! thread that takes slices may need more than a few milliseconds to write a slice, so a separate thread
//! reads the ring.

pub(crate) mod ledger;
mod poisoned;

use crate::recording::domain_marks::CountersAtMarks;
use crate::recording::mark_slices;
use crate::recording::unpublished::Unpublished;
use crate::sys::shm::{Session, wait, wake};
use edleak_format::{Counters, SiteId};
use edleak_session::mark::{MAX_NAME_BYTES, MarkName};
use edleak_session::pool::{CLOSED, MAX_EVENTS, NOTICED, Operation, PoolRing};
use ledger::Ledger;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Longest time that the reader thread sleeps at once while the target has not added its first event.
const LONGEST_SLEEP: Duration = Duration::from_secs(2);
/// If the thread finds this number of events or more when it reads the ring, it reads the ring again
/// immediately.
const MANY: usize = MAX_EVENTS / 64;
/// If the thread finds events, but fewer than [`MANY`], when it reads the ring, it reads the ring again after
/// this time.
const SOON: Duration = Duration::from_millis(1);
/// If the thread finds no event when it reads the ring, it reads the ring again after this time.
const PAUSE: Duration = Duration::from_millis(5);
/// Each time the collector has read this number of events, it tells the target that the room of these events
/// in the ring is free again.
const AT_A_TIME: usize = 1024;

/// The objects that the pools of one process have handed out.
#[derive(Default)]
pub(crate) struct Pools {
    /// The objects of the pools, and the counters of the sites.
    pub(crate) ledger: Ledger,
    read: u32,
    unpublished: Unpublished,
    passed_over: u64,
    at_marks: CountersAtMarks,
}

impl Pools {
    /// The counters that have changed up to the mark whose slice is at the position `slice` in the ring of
    /// marks. The result contains only sites that are in the trace.
    pub(crate) fn at_mark(&mut self, slice: u64) -> Vec<(SiteId, Counters)> {
        let sites = self.ledger.sites();
        let in_trace = |(owner, counters): (usize, Counters)| Some((sites.get(owner)?.in_trace?, counters));
        self.at_marks.take(slice).into_iter().filter_map(in_trace).collect()
    }

    /// Reads the published events that are in the ring now, and returns their number. If `is_over` is true,
    /// no thread of the target runs any more. Then the function skips events that are not published yet,
    /// because no thread will publish them.
    pub(crate) fn read(&mut self, session: &Session, is_over: bool) -> usize {
        let ring = session.pools();
        let written = ring.state.written.0.load(Ordering::Acquire);
        let waiting = (written.wrapping_sub(self.read) as usize).min(MAX_EVENTS);
        for index in 0..waiting {
            match ring.get(self.read) {
                Some(event) if event.operation == Operation::Mark => {
                    self.at_marks.note(event.address, self.ledger.by_owner());
                }
                Some(event) => self.ledger.apply(&event, |index| name_at(&ring, index)),
                None if is_over || self.unpublished.is_overdue(self.read) => self.passed_over += 1,
                None => {
                    self.publish_read(&ring);
                    return index;
                }
            }
            self.read = self.read.wrapping_add(1);
            if index % AT_A_TIME == AT_A_TIME - 1 {
                self.publish_read(&ring);
            }
        }
        self.publish_read(&ring);
        waiting
    }

    fn publish_read(&self, ring: &PoolRing<'_>) {
        ring.state.read.0.store(self.read, Ordering::Release);
    }

    /// The totals and losses of pools, as the trace stores them.
    pub(crate) fn totals(&self, session: &Session) -> edleak_format::Pools {
        let state = session.pools().state;
        let lost = state.lost.0.load(Ordering::Relaxed);
        edleak_format::Pools {
            pools: self.ledger.pools(),
            lost_events: lost.saturating_add(self.passed_over).saturating_add(self.ledger.refused()),
            lost_resets: state.lost_of_many.0.load(Ordering::Relaxed),
            unknown_frees: self.ledger.unknown_frees(),
        }
    }
}

/// The name of a pool at an index in the session.
fn name_at(ring: &PoolRing<'_>, index: u64) -> String {
    let place = usize::try_from(index).ok().and_then(|index| ring.names.get(index));
    place.map_or_else(String::new, |place: &MarkName| {
        let length = (place.length.load(Ordering::Acquire) as usize).saturating_sub(1).min(MAX_NAME_BYTES);
        let bytes: Vec<u8> =
            place.bytes.iter().take(length).map(|byte| byte.load(Ordering::Relaxed)).collect();
        mark_slices::printable(&bytes)
    })
}

struct Shared {
    session: Arc<Session>,
    pools: Mutex<Pools>,
    is_over: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads events until the [`PoolReader`] is dropped. The function first sleeps until the target adds its
    /// first event.
    fn read(&self) {
        let noticed = &self.session.pools().state.noticed.0;
        while !self.is_over.load(Ordering::Acquire) {
            if noticed.load(Ordering::Acquire) == 0 {
                wait(noticed, 0, LONGEST_SLEEP);
                continue;
            }
            match self.lock().read(&self.session, false) {
                0 => wait(noticed, NOTICED, PAUSE),
                1..MANY => wait(noticed, NOTICED, SOON),
                _ => std::thread::yield_now(),
            }
        }
    }
}

/// The reader thread starts when the recording has this age, so the collector starts no thread for a child
/// that ends earlier. In the first 5 ms of a recording, even the fastest pool cannot fill the ring of events.
const START: Duration = Duration::from_millis(5);

/// Reads the events of one recording in a thread, until the value is dropped.
pub(crate) struct PoolReader {
    shared: Arc<Shared>,
    /// The time at which the thread starts; `None`: the collector has already started the thread.
    start: Option<Instant>,
    thread: Option<JoinHandle<()>>,
}

impl PoolReader {
    /// Creates a reader without a thread. [`PoolReader::tend`] starts the thread later. `inherited` contains
    /// the objects that a forked child inherits from its parent.
    pub(crate) fn new(session: &Arc<Session>, inherited: Option<Ledger>, now: Instant) -> PoolReader {
        let pools = Pools { ledger: inherited.unwrap_or_default(), ..Pools::default() };
        let shared = Arc::new(Shared {
            session: Arc::clone(session),
            pools: Mutex::new(pools),
            is_over: AtomicBool::new(false),
        });
        PoolReader { shared, start: Some(now + START), thread: None }
    }

    /// The time until the thread should start; `None`: the collector has already started the thread.
    pub(crate) fn due(&self, now: Instant) -> Option<Duration> {
        Some(self.start?.saturating_duration_since(now))
    }

    /// Starts the thread if its start time has come, or if the target has already added an event. If the
    /// system refuses to start the thread, the collector reads events only when it takes a slice.
    pub(crate) fn tend(&mut self, now: Instant) {
        let Some(start) = self.start else { return };
        let state = self.shared.session.pools().state;
        if now < start && state.noticed.0.load(Ordering::Acquire) == 0 {
            return;
        }
        self.start = None;
        let own = Arc::clone(&self.shared);
        let thread =
            Builder::new().name("edleak-pools".into()).stack_size(256 << 10).spawn(move || own.read());
        self.thread = thread.ok();
    }

    /// Locks the pools. While the caller holds the lock, the reader thread reads no events.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Pools> {
        self.shared.lock()
    }
}

impl Drop for PoolReader {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        let noticed = &self.shared.session.pools().state.noticed.0;
        noticed.store(CLOSED, Ordering::Release);
        wake(noticed);
        // If the thread panicked, it has already printed the reason, so ignore the result of `join`.
        self.thread.take().into_iter().for_each(|thread| _ = thread.join());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_session::pool::PoolEvent;

    fn event(operation: Operation, address: u64) -> PoolEvent {
        PoolEvent { operation, pool: 7, address, size: 10, direct: 3, caller: 4 }
    }

    fn session() -> Arc<Session> {
        Arc::new(Session::create(16, 0).expect("memory files can be made"))
    }

    #[test]
    fn an_unpublished_event_holds_the_later_ones_back_until_it_is_skipped() {
        let session = session();
        let (ring, mut pools) = (session.pools(), Pools::default());
        assert!(ring.push(event(Operation::Alloc, 1)));
        ring.state.written.0.fetch_add(1, Ordering::AcqRel);
        assert!(ring.push(event(Operation::Free, 1)));
        assert_eq!(pools.read(&session, false), 1);
        let totals = pools.totals(&session);
        assert_eq!((totals.pools, totals.lost_events), (1, 1), "a site that is not in the trace is a loss");
        pools.ledger.set_in_trace(0, edleak_format::SiteId(0));
        pools.unpublished = Unpublished::overdue(pools.read);
        assert_eq!(pools.read(&session, false), 2);
        let totals = pools.totals(&session);
        assert_eq!((totals.pools, totals.lost_events), (0, 1));
        ring.state.written.0.fetch_add(1, Ordering::AcqRel);
        assert_eq!(pools.read(&session, true), 1, "no thread runs that could publish it");
    }

    #[test]
    fn the_thread_reads_events_from_the_first_one_on_and_ends_with_its_reader() {
        let session = session();
        let mut reader = PoolReader::new(&session, None, Instant::now());
        let ring = session.pools();
        let name = edleak_session::mark::GivenName { bytes: b"requests", hash: 77, is_cut: false };
        let index = ring.name(name).expect("there is room") as u64;
        assert!(ring.push(PoolEvent { address: index, ..event(Operation::Name, 0) }));
        assert!(ring.push(event(Operation::Alloc, 1)));
        ring.state.noticed.0.store(NOTICED, Ordering::Release);
        wake(&ring.state.noticed.0);
        reader.tend(Instant::now());
        let deadline = Instant::now() + Duration::from_secs(60);
        while ring.state.read.0.load(Ordering::Acquire) != 2 {
            assert!(Instant::now() < deadline, "nothing reads the ring");
            std::thread::sleep(SOON);
        }
        assert_eq!(reader.lock().ledger.names(), ["", "requests"]);
        drop(reader);
        assert_eq!(ring.state.noticed.0.load(Ordering::Acquire), CLOSED);
        assert_eq!(Arc::strong_count(&session), 1, "the thread has ended");
    }
}
