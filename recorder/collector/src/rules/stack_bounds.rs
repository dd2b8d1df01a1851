//! Publishes the writable mappings of the target, so that a walk of a stack does not read beyond the end of
//! the mapping in which the stack is.
//!
//! A walk never reads beyond the end of the mapping in which it began. The library itself knows where the
//! stacks of the main thread and of threads from libc end. The stack of a coroutine, however, can be in any
//! mapping, so the collector publishes the start and the end of every writable mapping.

use crate::sys::maps::{self, Line};
use crate::sys::shm::Session;
use edleak_session::stack::{CUT, MAX_BOUNDS, MAX_STACKS};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The collector reads the target's memory map at least once in each period of this length, because new
/// mappings may contain new stacks.
const PERIOD: Duration = Duration::from_secs(1);
/// If the walk of a stack ended before the outermost frame, the stack may be in a new mapping, so the
/// collector reads the memory map before [`PERIOD`] is over. But the collector spends at most 1/`SHARE` of
/// its time on reading memory maps.
const SHARE: u32 = 50;

/// The first address of a range, and the address after its last byte.
type Range = (u64, u64);

/// The writable mappings of a target that the collector has published.
#[derive(Default)]
pub(crate) struct StackBounds {
    published: Vec<Range>,
    read_at: Option<Instant>,
    cost: Duration,
    /// Number of stacks for which the collector has checked whether the walk ended before the outermost
    /// frame.
    stacks: usize,
    saw_cut: bool,
}

impl StackBounds {
    /// If a reading is due, reads the memory map and publishes the writable mappings. If the process has
    /// ended, the function does not change the published mappings.
    pub(crate) fn refresh(&mut self, session: &Session, pid: u32, now: Instant) {
        self.look_for_cuts(session);
        let since = self.read_at.map(|at| now.saturating_duration_since(at));
        let is_due = since.is_none_or(|since| since >= PERIOD || self.saw_cut && since >= self.cost * SHARE);
        if !is_due {
            return;
        }
        let Some(map) = maps::text_of(pid) else { return };
        self.publish(session, writable(&map));
        self.saw_cut = false;
        self.cost = now.elapsed();
        self.read_at = Some(now);
    }

    fn look_for_cuts(&mut self, session: &Session) {
        let made = (session.header().stacks.stack.load(Ordering::Acquire) as usize).min(MAX_STACKS);
        let new = session.stack_infos().get(self.stacks..made).unwrap_or_default();
        self.saw_cut |= new.iter().any(|info| info.frames.load(Ordering::Relaxed) & CUT != 0);
        self.stacks = made;
    }

    /// Publishes the ranges of the target's writable mappings; only the entries that have changed are
    /// replaced. While the collector replaces an entry, the end in this entry is 0, so a walk ignores the
    /// entry. So a walk of a stack never combines the start of the replaced mapping with the end of the new
    /// mapping.
    fn publish(&mut self, session: &Session, ranges: Vec<Range>) {
        let same = ranges.iter().zip(&self.published).take_while(|(new, old)| new == old).count();
        if same == ranges.len() && same == self.published.len() {
            return;
        }
        let count = &session.header().bounds;
        count.store(same as u32, Ordering::Release);
        let places = session.bounds().get(same..).unwrap_or_default();
        let stale = ranges.len().max(self.published.len()) - same;
        places.iter().take(stale).for_each(|place| place.end.store(0, Ordering::Release));
        for (place, (start, _)) in places.iter().zip(&ranges[same..]) {
            place.start.store(*start, Ordering::Release);
        }
        for (place, (_, end)) in places.iter().zip(&ranges[same..]) {
            place.end.store(*end, Ordering::Release);
        }
        count.store(ranges.len() as u32, Ordering::Release);
        self.published = ranges;
    }
}

/// The mappings that the process can read and write, sorted by address; adjacent mappings are merged. If
/// there are too many mappings for the session, the list does not contain mappings of files, because no stack
/// is in a mapped file.
fn writable(map: &str) -> Vec<Range> {
    let all = ranges(map, |_| true);
    let mut kept = if all.len() > MAX_BOUNDS { ranges(map, |name| !name.starts_with('/')) } else { all };
    kept.truncate(MAX_BOUNDS);
    kept
}

fn ranges(map: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for Line { start, end, permissions, name, .. } in maps::lines(map) {
        if !permissions.starts_with("rw") || name.starts_with("/memfd:edleak") || !is_wanted(name) {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => ranges.push((start, end)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_session::stack::find_bound;

    const MAPS: &str = "\
        1000-2000 r-xp 00000000 08:01 12 /usr/bin/a b\n\
        3000-4000 rw-p 00002000 08:01 12 /usr/bin/a b\n\
        4000-5000 rw-p 00000000 00:00 0 \n\
        6000-7000 ---p 00000000 00:00 0 \n\
        7000-9000 rw-p 00000000 00:00 0 \n\
        a000-b000 rw-s 00000000 00:01 7                          /memfd:edleak-session (deleted)\n\
        c000-d000 rw-p 00000000 00:00 0                          [stack]\n\
        nonsense\n";

    #[test]
    fn mappings_that_a_stack_can_lie_in_are_found() {
        assert_eq!(writable(MAPS), [(0x3000, 0x5000), (0x7000, 0x9000), (0xc000, 0xd000)]);
    }

    #[test]
    fn too_many_mappings_leave_out_those_of_files() {
        let file = |i: u64| format!("{:x}-{:x} rw-p 0 08:01 1 /lib/x\n", i << 16, (i << 16) + 4096);
        let maps: String = (1..=MAX_BOUNDS as u64 + 10).map(file).collect();
        assert_eq!(writable(&maps).len(), 0);
        assert_eq!(writable(&(maps + "fffff000000-fffff001000 rw-p 0 00:00 0\n")).len(), 1);
    }

    #[test]
    fn published_bounds_are_those_read_last() {
        let session = Session::create(16, 0).expect("memory files can be made");
        let mut bounds = StackBounds::default();
        for ranges in [
            vec![(16, 32), (64, 96)],
            vec![(16, 32), (48, 50), (64, 96)],
            vec![(16, 40)],
            vec![],
            vec![(8, 9), (10, 20)],
        ] {
            bounds.publish(&session, ranges.clone());
            let count = session.header().bounds.load(Ordering::Relaxed) as usize;
            let published = &session.bounds()[..count];
            for address in 0..128 {
                let expected = ranges.iter().find(|range| (range.0..range.1).contains(&address));
                assert_eq!(find_bound(published, address), expected.map(|range| range.1), "{address}");
            }
        }
    }
}
