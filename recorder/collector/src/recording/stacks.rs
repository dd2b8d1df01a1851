//! Reads the stacks of watched sites, in the form in which the trace stores them. In the trace, each stack is
//! a separate site, and the parent of this site is the watched site. For each stack, the trace also stores
//! when the survivors of this stack were allocated. A survivor is an allocation that is still live. A
//! teardown is the phase in which an ending program frees everything.

use crate::rules::modules::Modules;
use crate::sys::shm::Session;
use edleak_format::{Epoch, SiteId, Stack, StackFrame, StackId, Survivors};
use edleak_session::stack::{CUT, Cell, MAX_ADDRESSES, MAX_CELLS, MAX_FRAMES, MAX_STACKS};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Maximum number of birth epochs that the trace stores for a stack. A birth epoch is a span of time; a long
/// recording is divided into 16 to 32 birth epochs.
const MOST_EPOCHS: u64 = 32;
/// Length of an epoch at the start of a recording, in nanoseconds. The epochs become longer during the
/// recording: their length doubles again and again.
const FIRST_EPOCH_NS: u64 = 20_000_000;

/// The birth epochs of a recording: spans of time. The allocations of each span of time are counted
/// separately. The target knows only the number of the current epoch, so the collector keeps the start times
/// of all epochs here.
#[derive(Clone, Debug)]
pub(crate) struct Epochs {
    starts: Vec<u64>,
    length_ns: u64,
}

impl Default for Epochs {
    fn default() -> Epochs {
        Epochs { starts: vec![0], length_ns: FIRST_EPOCH_NS }
    }
}

impl Epochs {
    /// Begins a new epoch if the current epoch is over. Returns whether a new epoch began. The length of an
    /// epoch doubles as the recording becomes longer. So even a long recording has few epochs: each doubling
    /// of the recording's length adds 16 epochs. For the trace, the collector combines the epochs of the
    /// session into longer epochs of equal length. Each epoch of the session is inside exactly one epoch of
    /// the trace.
    pub(crate) fn advance(&mut self, session: &Session, now_ns: u64) -> bool {
        self.grow(now_ns);
        let current = self.starts.last().copied().unwrap_or(0);
        if now_ns / self.length_ns == current / self.length_ns {
            return false;
        }
        self.starts.push(now_ns / self.length_ns * self.length_ns);
        session.header().epoch.store(self.starts.len() as u32 - 1, Ordering::Relaxed);
        true
    }

    /// Doubles the epoch length until at most [`MOST_EPOCHS`] epochs of this length fit into the recording.
    /// Call this function before a snapshot. After lost slices, the epoch length may be too short for the
    /// recording, so that the snapshot would have hundreds of epochs for each stack.
    pub(crate) fn grow(&mut self, now_ns: u64) {
        while now_ns / self.length_ns >= MOST_EPOCHS {
            self.length_ns *= 2;
        }
    }

    fn start_of(&self, epoch: u32) -> u64 {
        self.starts.get(epoch as usize).or(self.starts.last()).copied().unwrap_or(0)
    }

    /// The end of an epoch: the start of the next epoch, or `now_ns` for the newest epoch.
    fn end_of(&self, epoch: u32, now_ns: u64) -> u64 {
        self.starts.get(epoch as usize + 1).copied().unwrap_or(now_ns).min(now_ns)
    }
}

/// A stack that the collector sees for the first time.
pub(crate) struct NewStack {
    /// The stack in the form in which the trace stores it.
    pub(crate) stack: Stack,
    /// The session id of the watched site.
    pub(crate) parent: u32,
    /// Number of module events before the target stored the stack.
    pub(crate) events: u32,
}

/// The stacks that the target has stored in one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchedStacks {
    /// For each stack, in the order of the session: the trace id of its site.
    sites: Vec<SiteId>,
    /// Whether the collector adds no more stacks to the trace, because the trace is nearly full.
    is_closed: bool,
}

impl WatchedStacks {
    /// The new stacks whose watched site is in `sites`, in the order in which the session stores them. For
    /// each new stack, the caller must then call [`WatchedStacks::name`] with the stack's site in the trace.
    pub(crate) fn learn(&self, session: &Session, modules: &Modules, sites: Range<u32>) -> Vec<NewStack> {
        let made = made(session);
        let mut new = Vec::new();
        // The session stores the return addresses of each stack separately, so all stacks together have at
        // most `MAX_ADDRESSES` frames.
        let mut room = MAX_ADDRESSES;
        for index in self.sites.len()..made {
            let info = &session.stack_infos()[index];
            let parent = info.site.load(Ordering::Acquire);
            if !sites.contains(&parent) {
                break; // the stack is incomplete, or its site is not in `sites` yet; retry at the next slice
            }
            let at = (info.frames_at.load(Ordering::Relaxed) as usize).min(MAX_ADDRESSES);
            let frames = info.frames.load(Ordering::Relaxed);
            let count = ((frames & !CUT) as usize).min(MAX_FRAMES).min(MAX_ADDRESSES - at).min(room);
            room -= count;
            let events = info.events_before.load(Ordering::Relaxed);
            let frames_of = session.stack_frames()[at..at + count].iter().map(|frame| {
                let address = frame.load(Ordering::Relaxed);
                StackFrame { address, module: modules.at(address, events) }
            });
            new.push(NewStack {
                stack: Stack {
                    id: StackId(index as u32),
                    frames: frames_of.collect(),
                    is_cut: frames & CUT != 0,
                },
                parent,
                events,
            });
        }
        new
    }

    /// Stops adding stacks to the trace. After this call, if a stack has no site in the trace, its
    /// allocations count at the watched site to which the stack belongs.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether the collector adds no more stacks to the trace, because the trace is nearly full.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Number of stacks whose counters the collector reads for a slice.
    pub(crate) fn in_slice(&self, session: &Session) -> usize {
        if self.is_closed { made(session) } else { self.sites.len() }
    }

    /// Number of stacks that have no site in the trace and will never get one.
    pub(crate) fn without_site(&self, session: &Session) -> usize {
        self.in_slice(session).saturating_sub(self.sites.len())
    }

    /// Assigns the trace site `site` to the first stack that has no site in the trace yet.
    pub(crate) fn name(&mut self, site: SiteId) {
        self.sites.push(site);
    }

    /// For each stack, in the order of the session: the trace id of its site.
    pub(crate) fn sites(&self) -> &[SiteId] {
        &self.sites
    }

    /// The survivors (live allocations) at this instant, for each stack and for each epoch in which they were
    /// made. The new snapshot reuses the memory of `used`, an old snapshot. If each snapshot allocated new
    /// memory, 200,000 cells would cost 2,000 page faults in each slice.
    pub(crate) fn snapshot(
        &self,
        session: &Session,
        epochs: &Epochs,
        now_ns: u64,
        used: Option<Snapshot>,
    ) -> Snapshot {
        let mut snapshot = used.unwrap_or_default();
        snapshot.cells.clear();
        (snapshot.now_ns, snapshot.length_ns, snapshot.live_count) = (now_ns, epochs.length_ns, 0);
        for (stack, cell) in cells(session).filter(|&(stack, _)| stack < self.sites.len()) {
            let counters = &cell.counters;
            // Read frees before allocations, as in a slice, so that the live count and the live bytes are
            // never negative.
            let (frees, freed) =
                (counters.frees.load(Ordering::Acquire), counters.freed_bytes.load(Ordering::Acquire));
            let allocs = counters.allocs.load(Ordering::Acquire);
            let allocated = counters.allocated_bytes.load(Ordering::Acquire);
            let live_count = allocs.saturating_sub(frees);
            snapshot.live_count = snapshot.live_count.saturating_add(live_count);
            snapshot.cells.push(CellState {
                stack: stack as u32,
                epoch: cell.epoch.load(Ordering::Relaxed),
                freed_in: cell.freed_in.load(Ordering::Relaxed),
                live_bytes: allocated.saturating_sub(freed),
                live_count,
                allocs,
            });
        }
        snapshot
    }
}

/// The counters of one cell (of one stack for one birth epoch) at one instant.
#[derive(Clone, Copy, Debug)]
struct CellState {
    stack: u32,
    epoch: u32,
    freed_in: u32,
    live_bytes: u64,
    live_count: u64,
    allocs: u64,
}

/// The survivors (live allocations) at one instant, stored as a copy of the cells in the session. In the form
/// in which the trace stores survivors, the same survivors would take ten times as much memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    now_ns: u64,
    length_ns: u64,
    live_count: u64,
    cells: Vec<CellState>,
}

impl Snapshot {
    /// Calls `visit` once for each stack. `visit` gets the stack's survivors (live allocations), counted by
    /// the epoch in which they were allocated. The epochs have equal length and reach from the start of the
    /// recording to this snapshot. If there are more than `most` stacks, the function visits only the `most`
    /// stacks with the most live bytes.
    pub(crate) fn each<E>(
        &self,
        sites: &[SiteId],
        epochs: &Epochs,
        most: usize,
        mut visit: impl FnMut(Survivors) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_wanted = self.largest(sites.len(), most);
        let stack_of = |index: &u32| self.cells[*index as usize].stack;
        // Sort only the cells of those stacks that `visit` gets. Sorting all cells would take as long as all
        // other work for a slice.
        let mut order: Vec<u32> =
            (0..self.cells.len() as u32).filter(|index| is_wanted(stack_of(index) as usize)).collect();
        order.sort_unstable_by_key(stack_of);
        let mut cells = order.as_slice();
        for (stack, &site) in sites.iter().enumerate() {
            let count = cells.iter().take_while(|index| stack_of(index) as usize == stack).count();
            let (own, rest) = cells.split_at(count);
            cells = rest;
            if is_wanted(stack) {
                visit(self.survivors(site, own.iter().map(|&index| &self.cells[index as usize]), epochs))?;
            }
        }
        Ok(())
    }

    /// Returns a function that tells whether a stack is among the `most` stacks with the most live bytes.
    fn largest(&self, stacks: usize, most: usize) -> impl Fn(usize) -> bool + use<> {
        let mut wanted = Vec::new();
        if stacks > most {
            let mut live = vec![(0u64, 0u32); stacks];
            live.iter_mut().zip(0..).for_each(|(live, stack)| live.1 = stack);
            for cell in &self.cells {
                if let Some(live) = live.get_mut(cell.stack as usize) {
                    live.0 = live.0.saturating_add(cell.live_bytes);
                }
            }
            wanted = vec![false; stacks];
            live.select_nth_unstable_by(most, |a, b| b.cmp(a));
            live.iter().take(most).for_each(|(_, stack)| wanted[*stack as usize] = true);
        }
        move |stack| wanted.get(stack).copied().unwrap_or(true)
    }

    fn survivors<'c>(
        &self,
        site: SiteId,
        cells: impl Iterator<Item = &'c CellState>,
        epochs: &Epochs,
    ) -> Survivors {
        let count = self.now_ns / self.length_ns.max(1) + 1;
        let empty = |index: u64| Epoch {
            from_ns: index * self.length_ns,
            to_ns: ((index + 1) * self.length_ns).min(self.now_ns),
            live_bytes: 0,
            live_count: 0,
            allocs: 0,
        };
        let mut survivors = Survivors {
            site,
            epochs: (0..count).map(empty).collect(),
            last_free_ns: 0,
            max_age_at_free_ns: 0,
        };
        for cell in cells {
            let born = epochs.start_of(cell.epoch);
            if let Some(freed_in) = cell.freed_in.checked_sub(1) {
                let freed = epochs.end_of(freed_in, self.now_ns);
                survivors.last_free_ns = survivors.last_free_ns.max(freed);
                survivors.max_age_at_free_ns = survivors.max_age_at_free_ns.max(freed.saturating_sub(born));
            }
            let Some(epoch) = survivors.epochs.get_mut((born / self.length_ns.max(1)) as usize) else {
                continue;
            };
            epoch.allocs = epoch.allocs.saturating_add(cell.allocs);
            epoch.live_count = epoch.live_count.saturating_add(cell.live_count);
            epoch.live_bytes = epoch.live_bytes.saturating_add(cell.live_bytes);
        }
        survivors
    }
}

/// The survivors (live allocations) at the latest slice, and the survivors at the end of an epoch before that
/// slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshots {
    /// The survivors (live allocations) at the latest slice.
    pub(crate) latest: Arc<Snapshot>,
    kept: Arc<Snapshot>,
    /// Number of live allocations at the end of each of the latest epochs; the newest epoch is the first.
    live: [u64; EPOCHS_OF_A_TEARDOWN],
}

/// Maximum number of epochs in which a teardown (an ending program frees everything) can run. edleak assumes
/// that a teardown lasts at most 1/10 of the recording. An epoch lasts between 1/32 and 1/16 of the
/// recording.
const EPOCHS_OF_A_TEARDOWN: usize = 5;

/// Whether `live` is at least 15/16 of `most`.
fn is_most(live: u64, most: u64) -> bool {
    live >= most - most / 16
}

impl Snapshots {
    /// Keeps the latest survivors (live allocations) as the state before a possible teardown, in which an
    /// ending program frees everything. The caller calls [`Snapshots::keep`] at the end of each epoch. If the
    /// number of live allocations has fallen, a teardown may have begun. As long as the number of live
    /// allocations stays lower, the function keeps the survivors from before the fall, because survivors from
    /// the middle of a teardown would hide part of a leak. If the number of live allocations stays low for
    /// longer than a teardown can last, the program has freed this memory in normal work, and the function
    /// keeps the latest survivors again.
    pub(crate) fn keep(&mut self) {
        self.live.rotate_right(1);
        self.live[0] = self.latest.live_count;
        if is_most(self.live[0], self.live.into_iter().max().unwrap_or(0)) {
            self.kept = Arc::clone(&self.latest);
        }
    }

    /// The newest survivors (live allocations) from the time before the ending program began to free
    /// everything. If the number of survivors at the latest slice is at least 15/16 of the number of kept
    /// survivors ([`Snapshots::keep`]), the function returns the survivors at the latest slice; otherwise, it
    /// returns the kept survivors. If the number of live allocations fell in normal work and not in a
    /// teardown, the returned survivors are a few epochs old, which does no harm.
    pub(crate) fn before_teardown(&self) -> &Arc<Snapshot> {
        if is_most(self.latest.live_count, self.kept.live_count) { &self.latest } else { &self.kept }
    }
}

/// Number of stacks that the target has stored in the session.
fn made(session: &Session) -> usize {
    (session.header().stacks.stack.load(Ordering::Acquire) as usize).min(MAX_STACKS)
}

/// The cells (counters of one stack for one epoch) that are in use, each with the index of the cell's stack.
pub(crate) fn cells(session: &Session) -> impl Iterator<Item = (usize, &Cell)> {
    let made = (session.header().stacks.cell.load(Ordering::Acquire) as usize).min(MAX_CELLS);
    // The index 0 means "no cell". Reading the unused cell 0 would allocate a memory page for this cell.
    session.cells().get(1..made).unwrap_or_default().iter().filter_map(|cell| {
        let stack = cell.stack.load(Ordering::Acquire).checked_sub(1)?;
        Some((stack as usize, cell))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frees_by_destructors_are_absent_from_the_snapshot_before() {
        let mut snapshots = Snapshots::default();
        for (live_count, expected) in [(10, 10), (20, 20), (30, 30), (29, 29), (18, 29), (0, 29)] {
            snapshots.latest = Arc::new(Snapshot { live_count, ..Snapshot::default() });
            assert_eq!(snapshots.before_teardown().live_count, expected, "after {live_count}");
            if live_count > 18 {
                snapshots.keep();
            }
        }
    }

    #[test]
    fn a_teardown_over_four_epochs_keeps_the_snapshot_before_it_and_work_does_not() {
        let mut snapshots = Snapshots::default();
        let mut survivors_after = |live_count: u64| {
            snapshots.latest = Arc::new(Snapshot { live_count, ..Snapshot::default() });
            snapshots.keep();
            snapshots.before_teardown().live_count
        };
        let ends = [100, 80, 60, 30, 5].map(&mut survivors_after);
        assert_eq!(ends, [100; 5]);
        // For longer than a teardown can last, the program has run on with only five live allocations, so the
        // fall was no teardown.
        assert_eq!([5; EPOCHS_OF_A_TEARDOWN - 1].map(&mut survivors_after).last(), Some(&5));
    }

    #[test]
    fn survivors_of_every_stack_are_told_and_of_the_largest_where_there_are_too_many() {
        let sites: Vec<SiteId> = (10..14).map(SiteId).collect();
        let cell = |stack, epoch, freed_in, live_bytes, allocs| CellState {
            stack,
            epoch,
            freed_in,
            live_bytes,
            live_count: live_bytes / 10,
            allocs,
        };
        let snapshot = Snapshot {
            now_ns: 250,
            length_ns: 100,
            live_count: 8,
            cells: vec![
                cell(2, 0, 0, 40, 7),
                cell(0, 1, 2, 10, 3),
                cell(2, 1, 3, 20, 2),
                cell(1, 0, 0, 0, 0),
                cell(3, 2, 0, 10, 1),
            ],
        };
        let epochs = Epochs { starts: vec![0, 100, 200], length_ns: 100 };
        let told = |most| {
            let mut all = Vec::new();
            let done: Result<(), ()> = snapshot.each(&sites, &epochs, most, |survivors| {
                all.push(survivors);
                Ok(())
            });
            done.expect("nothing fails here");
            all
        };
        let all = told(4);
        assert_eq!(all.iter().map(|one| one.site).collect::<Vec<_>>(), sites);
        let live = |at: usize| all[at].epochs.iter().map(|epoch| epoch.live_bytes).collect::<Vec<_>>();
        assert_eq!([live(0), live(1), live(2), live(3)], [[0, 10, 0], [0; 3], [40, 20, 0], [0, 0, 10]]);
        assert_eq!((all[2].last_free_ns, all[2].max_age_at_free_ns), (250, 150));
        assert_eq!((all[0].last_free_ns, all[0].max_age_at_free_ns), (200, 100));
        assert_eq!((all[2].epochs[0].allocs, all[2].epochs[2].to_ns), (7, 250));
        let largest: Vec<_> = told(2).iter().map(|one| one.site.0).collect();
        assert_eq!(largest, [12, 13]);
    }

    #[test]
    fn snapshot_after_a_long_gap_has_few_epochs() {
        let session = Session::create(16, 0).expect("memory files can be made");
        let (mut epochs, mut stacks) = (Epochs::default(), WatchedStacks::default());
        stacks.name(SiteId(7));
        let now_ns = 600_000_000_000;
        epochs.grow(now_ns);
        let snapshot = stacks.snapshot(&session, &epochs, now_ns, None);
        let done: Result<(), usize> =
            snapshot.each(stacks.sites(), &epochs, 1, |survivors| Err(survivors.epochs.len()));
        let count = done.expect_err("one stack has survivors");
        assert!((16..=32).contains(&(count as u64)), "{count}");
    }

    #[test]
    fn epochs_stay_few_and_equal_however_long_the_recording() {
        let session = Session::create(16, 0).expect("memory files can be made");
        let mut epochs = Epochs::default();
        let mut now = 0;
        while now < 7 * 86_400 * 1_000_000_000 {
            now += 10_000_000 + now / 50;
            epochs.advance(&session, now);
        }
        assert!(epochs.starts.len() < 700, "{}", epochs.starts.len());
        assert!((16..=32).contains(&(now / epochs.length_ns)), "{}", now / epochs.length_ns);
        assert!(epochs.starts.is_sorted());
        assert_eq!(session.header().epoch.load(Ordering::Relaxed) as usize, epochs.starts.len() - 1);
    }
}
