//! The stacks of watched sites as the trace stores them: one child site per stack, and the birth times of its
//! survivors (the allocations that are still live). A teardown is the phase in which an ending program frees
//! everything.

use crate::recording::modules::Modules;
use crate::sys::shm::Session;
use edleak_format::{Epoch, SiteId, Stack, StackFrame, StackId, Survivors};
use edleak_session::stack::{CUT, Cell, MAX_ADDRESSES, MAX_CELLS, MAX_FRAMES, MAX_STACKS};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Maximum number of epochs in a recording; an old enough recording has at least half as many.
const MOST_EPOCHS: u64 = 32;
/// Length of each epoch at the start.
const FIRST_EPOCH_NS: u64 = 20_000_000;

/// The birth epochs of a recording. The target gets only the number of an epoch; its time is known here.
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
    /// Begins a new epoch if the current one is over. The epoch length doubles as the recording grows. So
    /// even a long recording has few epochs: 16 more for each doubling of its length. An epoch never crosses
    /// a boundary of the longer epochs in which it is reported.
    pub(crate) fn advance(&mut self, session: &Session, now_ns: u64) -> bool {
        while now_ns / self.length_ns >= MOST_EPOCHS {
            self.length_ns *= 2;
        }
        let current = self.starts.last().copied().unwrap_or(0);
        if now_ns / self.length_ns == current / self.length_ns {
            return false;
        }
        self.starts.push(now_ns / self.length_ns * self.length_ns);
        session.header().epoch.store(self.starts.len() as u32 - 1, Ordering::Relaxed);
        true
    }

    fn start_of(&self, epoch: u32) -> u64 {
        self.starts.get(epoch as usize).or(self.starts.last()).copied().unwrap_or(0)
    }

    /// The end of an epoch: the start of the next one.
    fn end_of(&self, epoch: u32, now_ns: u64) -> u64 {
        self.starts.get(epoch as usize + 1).copied().unwrap_or(now_ns).min(now_ns)
    }
}

/// A stack seen for the first time.
pub(crate) struct NewStack {
    /// The stack.
    pub stack: Stack,
    /// The session id of the watched site.
    pub parent: u32,
}

/// The stacks of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchedStacks {
    /// Site ids of the trace, by stack.
    sites: Vec<SiteId>,
}

impl WatchedStacks {
    /// The new stacks that belong to these sites, in order. Each is then given a site with
    /// [`WatchedStacks::name`].
    pub(crate) fn learn(&self, session: &Session, modules: &Modules, sites: Range<u32>) -> Vec<NewStack> {
        let made = (session.header().stacks.stack.load(Ordering::Acquire) as usize).min(MAX_STACKS);
        let mut new = Vec::new();
        // Stacks do not share addresses, so their total number is limited.
        let mut room = MAX_ADDRESSES;
        for index in self.sites.len()..made {
            let info = &session.stack_infos()[index];
            let parent = info.site.load(Ordering::Acquire);
            if !sites.contains(&parent) {
                break; // still being made, or of a newer site; the next slice learns it
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
            });
        }
        new
    }

    /// Assigns a site to the next stack.
    pub(crate) fn name(&mut self, site: SiteId) {
        self.sites.push(site);
    }

    /// The sites, by stack.
    pub(crate) fn sites(&self) -> &[SiteId] {
        &self.sites
    }

    /// The birth times of every stack's survivors, in epochs of equal length from the start until now.
    pub(crate) fn survivors(&self, session: &Session, epochs: &Epochs, now_ns: u64) -> Vec<Survivors> {
        let count = (now_ns / epochs.length_ns + 1) as usize;
        let empty = |index: usize| Epoch {
            from_ns: index as u64 * epochs.length_ns,
            to_ns: ((index as u64 + 1) * epochs.length_ns).min(now_ns),
            live_bytes: 0,
            live_count: 0,
            allocs: 0,
        };
        let mut all: Vec<_> = self
            .sites
            .iter()
            .map(|&site| Survivors {
                site,
                epochs: (0..count).map(empty).collect(),
                last_free_ns: 0,
                max_age_at_free_ns: 0,
            })
            .collect();
        for (stack, cell) in cells(session) {
            let Some(survivors) = all.get_mut(stack) else { continue };
            let born = epochs.start_of(cell.epoch.load(Ordering::Relaxed));
            if let Some(freed_in) = cell.freed_in.load(Ordering::Relaxed).checked_sub(1) {
                let freed = epochs.end_of(freed_in, now_ns);
                survivors.last_free_ns = survivors.last_free_ns.max(freed);
                survivors.max_age_at_free_ns = survivors.max_age_at_free_ns.max(freed.saturating_sub(born));
            }
            let Some(epoch) = survivors.epochs.get_mut((born / epochs.length_ns) as usize) else { continue };
            let counters = &cell.counters;
            // Read frees first, as in a slice, so that no difference is negative.
            let (frees, freed) =
                (counters.frees.load(Ordering::Acquire), counters.freed_bytes.load(Ordering::Acquire));
            let allocs = counters.allocs.load(Ordering::Acquire);
            epoch.allocs = epoch.allocs.saturating_add(allocs);
            epoch.live_count = epoch.live_count.saturating_add(allocs.saturating_sub(frees));
            let allocated = counters.allocated_bytes.load(Ordering::Acquire);
            epoch.live_bytes = epoch.live_bytes.saturating_add(allocated.saturating_sub(freed));
        }
        all
    }
}

/// The survivors at the latest slice and at one earlier end of an epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshots {
    /// At the latest slice.
    pub latest: Vec<Survivors>,
    kept: Vec<Survivors>,
    /// Number of live allocations at the end of each of the latest epochs, newest first.
    live: [u64; EPOCHS_OF_A_TEARDOWN],
}

/// A teardown lasts at most a tenth of the recording; an epoch lasts between 1/32 and 1/16 of it.
const EPOCHS_OF_A_TEARDOWN: usize = 5;

/// Number of live allocations of all sites.
fn live(all: &[Survivors]) -> u64 {
    all.iter().flat_map(|one| &one.epochs).map(|epoch| epoch.live_count).sum()
}

/// Whether `live` is at least 15/16 of `most`.
fn is_most(live: u64, most: u64) -> bool {
    live >= most - most / 16
}

impl Snapshots {
    /// Keeps the latest survivors at the end of an epoch, unless a teardown has begun since the kept ones.
    /// Survivors from the middle of a teardown would hide part of a leak. If the program has held less for
    /// longer than a teardown lasts, its normal work has freed the memory.
    pub(crate) fn keep(&mut self) {
        self.live.rotate_right(1);
        self.live[0] = live(&self.latest);
        if is_most(self.live[0], self.live.into_iter().max().unwrap_or(0)) {
            self.kept.clone_from(&self.latest);
        }
    }

    /// The newest survivors from before the program began to free everything at its end. The latest survivors
    /// are returned if they have nearly as many live allocations as the kept survivors. If the heap shrank in
    /// normal work, the kept survivors are a few epochs old, which does no harm.
    pub(crate) fn before_teardown(&self) -> &[Survivors] {
        if is_most(live(&self.latest), live(&self.kept)) { &self.latest } else { &self.kept }
    }
}

/// The cells that are in use, each with the index of its stack.
pub(crate) fn cells(session: &Session) -> impl Iterator<Item = (usize, &Cell)> {
    let made = (session.header().stacks.cell.load(Ordering::Acquire) as usize).min(MAX_CELLS);
    session.cells()[..made].iter().filter_map(|cell| {
        let stack = cell.stack.load(Ordering::Acquire).checked_sub(1)?;
        Some((stack as usize, cell))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frees_by_destructors_are_absent_from_the_snapshot_before() {
        let all = |live_count: u64| {
            let epochs =
                vec![Epoch { from_ns: 0, to_ns: 1, live_bytes: live_count, live_count, allocs: live_count }];
            vec![Survivors { site: SiteId(1), epochs, last_free_ns: 0, max_age_at_free_ns: 0 }]
        };
        let mut snapshots = Snapshots::default();
        for (live, expected) in [(10, 10), (20, 20), (30, 30), (29, 29), (18, 29), (0, 29)] {
            snapshots.latest = all(live);
            assert_eq!(snapshots.before_teardown()[0].epochs[0].live_count, expected, "after {live}");
            if live > 18 {
                snapshots.keep();
            }
        }
    }

    #[test]
    fn a_teardown_over_four_epochs_keeps_the_snapshot_before_it_and_work_does_not() {
        let mut snapshots = Snapshots::default();
        let mut survivors_after = |live_count: u64| {
            let epochs = vec![Epoch { from_ns: 0, to_ns: 1, live_bytes: 0, live_count, allocs: 0 }];
            snapshots.latest =
                vec![Survivors { site: SiteId(1), epochs, last_free_ns: 0, max_age_at_free_ns: 0 }];
            snapshots.keep();
            snapshots.before_teardown()[0].epochs[0].live_count
        };
        let ends = [100, 80, 60, 30, 5].map(&mut survivors_after);
        assert_eq!(ends, [100; 5]);
        // The program ran on with less memory for longer than a teardown lasts.
        assert_eq!([5; EPOCHS_OF_A_TEARDOWN - 1].map(&mut survivors_after).last(), Some(&5));
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
