//! Finds the cause of the growth of the whole process, from live memory (counted by edleak) and resident
//! memory (counted by the kernel).
//!
//! Resident memory can grow for three reasons: the program keeps more and more allocations, the allocator
//! keeps memory that the program freed, or memory grows that the program did not allocate with malloc. A
//! comparison of live bytes with resident bytes shows the reason for the growth. (Resident bytes are
//! RssAnon + VmSwap, so they include swapped memory.)
//!
//! | live bytes | resident − live | cause |
//! |---|---|---|
//! | grow | – | the program's live memory grows |
//! | flat | grows; live bytes were higher before, or turnover fragments the heap | the allocator retains |
//! | flat | grows, and malloc cannot account for it | memory grows outside malloc |
//!
//! If the slices contain the memory of each kind of mapping, the cause follows from the kinds that grow.
//! Memory of malloc is in the heap and in arenas; memory outside malloc is in other anonymous mappings and in
//! stacks. If the memory of each kind of mapping was not recorded, edleak decides only clear cases, and all
//! other cases are `Unclear`.
//!
//! A field with `from` in its name is the median of the second eighth of the recording, and a field with `to`
//! is the median of the last eighth. The first eighth of the recording counts as the start-up of the program.
//! edleak uses medians, because a single unusual slice does not change a median. Growth that ended in the
//! first half of the recording does not count, because the program may only have loaded tables.

mod sentence;

use crate::process_series::{FreeBytes, KindBytes, ProcessPoint, ProcessSeries};

/// Least growth that the report mentions, in bytes. One step of an arena of glibc (132 KiB) must not count as
/// growth.
const NOTICEABLE_BYTES: f64 = 512.0 * 1024.0;
/// Least growth that the report mentions, as a share of the resident memory.
const NOTICEABLE_SHARE: f64 = 0.03;
/// Least growth of live bytes that the report mentions, in bytes. Live bytes are counted exactly, unlike
/// resident bytes, so a smaller growth counts than in `NOTICEABLE_BYTES`.
const NOTICEABLE_LIVE_BYTES: f64 = 4096.0;
const NOTICEABLE_LIVE_SHARE: f64 = 0.05;
/// This limit replaces `NOTICEABLE_LIVE_SHARE` if live bytes in the last eighth of the recording fall at
/// least once to their value after the start-up, because such growth may be normal fluctuation.
const SCATTER_SHARE: f64 = 0.25;
/// Growth counts as stopped if less than this share of it is in the second half of the recording. (If growth
/// is steady, one half of it is in the second half of the recording.)
const LATE_SHARE: f64 = 0.15;
/// Resident memory that edleak adds to the target for the side table, as a share of the heap.
const SIDE_TABLE_SHARE: f64 = 0.125;
/// If the recording has fewer points than this, the kind of growth is `Unknown`.
const MIN_POINTS: usize = 4;

/// Anonymous memory that no recorded call mapped, minus the live allocations in this memory. (For each large
/// allocation, libc itself maps memory, and edleak does not see this call. So live allocations may be in this
/// memory.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnseenBytes {
    /// Size of this memory at the end of the record, in bytes: anonymous memory that no recorded call mapped,
    /// minus the live allocations in it.
    pub bytes: u64,
    /// Growth of this memory since the start-up of the program, in bytes: of anonymous memory that no
    /// recorded call mapped, minus the live allocations in it.
    pub grown_bytes: u64,
}

/// The cause of growth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrowthKind {
    /// The program's live memory grows.
    Live,
    /// The allocator retains memory that the program freed.
    Retained,
    /// Memory grows that the program did not allocate with malloc.
    Outside,
    /// Resident memory grows, and the recording does not show whether the allocator retains this memory or
    /// whether the memory is outside malloc.
    Unclear,
    /// The process does not grow.
    None,
    /// The recording is too short, or resident memory was not recorded.
    Unknown,
}

impl GrowthKind {
    /// The word that the JSON report uses for the cause of growth.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Retained => "retained",
            Self::Outside => "outside-malloc",
            Self::Unclear => "unclear",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// The kind of growth, and the numbers from which it was determined.
#[derive(Clone, PartialEq, Debug)]
pub struct ProcessGrowth {
    /// The cause of the growth of the process.
    pub kind: GrowthKind,
    /// Live bytes after the start-up (median of the second eighth of the recording).
    pub live_from_bytes: u64,
    /// Live bytes at the end (median of the last eighth of the recording).
    pub live_to_bytes: u64,
    /// Greatest live bytes of the recording.
    pub live_peak_bytes: u64,
    /// RssAnon + VmSwap in bytes after the start-up (median of the second eighth of the recording).
    pub resident_from_bytes: u64,
    /// RssAnon + VmSwap in bytes at the end (median of the last eighth of the recording).
    pub resident_to_bytes: u64,
    /// Bytes allocated from the first slice to the last.
    pub turnover_bytes: u64,
    /// Memory of each kind of mapping, after the start-up and at the end; `None` if it was not recorded at
    /// both times, or if `are_kinds_old`.
    pub kinds: Option<[KindBytes; 2]>,
    /// Whether the collector read the memory of each kind of mapping so seldom that the readings do not show
    /// the growth.
    pub are_kinds_old: bool,
    /// Whether resident memory still grew in the second half of the recording.
    pub resident_goes_on: bool,
    /// Anonymous memory that no recorded call mapped; `None`: the trace has no calls that map memory.
    pub unseen: Option<UnseenBytes>,
    /// Free memory inside the arenas of malloc at the end; `None`: not recorded.
    pub free: Option<FreeBytes>,
    /// A part of a sentence of the report that names an allocator whose allocations are not all counted.
    /// `None`: edleak counted all allocations of every allocator, or the memory of the other allocators
    /// does not explain the growth.
    pub uncounted: Option<String>,
}

/// Determines the cause of growth. `turnover_bytes` is the number of bytes allocated from the first slice to
/// the last.
pub fn growth_of(series: &ProcessSeries, turnover_bytes: u64) -> ProcessGrowth {
    let points = series.points();
    let eighth = points.len() / 8;
    let (first, last) = match eighth {
        0 => (&points[..points.len().min(1)], &points[points.len().saturating_sub(1)..]),
        _ => (&points[eighth..2 * eighth], &points[points.len() - eighth..]),
    };
    let mut growth = ProcessGrowth {
        kind: GrowthKind::Unknown,
        live_from_bytes: median(first, |p| p.live_bytes),
        live_to_bytes: median(last, |p| p.live_bytes),
        live_peak_bytes: series.peak_live_bytes(),
        resident_from_bytes: median(first, |p| p.resident_bytes),
        resident_to_bytes: median(last, |p| p.resident_bytes),
        turnover_bytes,
        kinds: kinds_of(first).zip(kinds_of(last)).map(|(from, to)| [from, to]),
        are_kinds_old: false,
        resident_goes_on: false,
        unseen: None,
        free: None,
        uncounted: None,
    };
    if !growth.are_kinds_current() {
        growth.kinds = None;
        growth.are_kinds_old = true;
    }
    growth.unseen = growth.unseen_bytes();
    let most_then = first.iter().map(|p| p.live_bytes).max();
    let is_above = last.iter().map(|p| p.live_bytes).min() > most_then;
    // A recording with fewer than eight points cannot be divided into eighths. For so short a recording,
    // the median in the middle of the recording is taken as 0, so all growth counts as growth in the
    // second half.
    let middle = median(&points[4 * eighth..5 * eighth], |p| p.live_bytes);
    let late = growth.live_to_bytes.saturating_sub(middle) as f64;
    let goes_on = late >= LATE_SHARE * growth.live_to_bytes.saturating_sub(growth.live_from_bytes) as f64;
    let middle = median(&points[4 * eighth..5 * eighth], |p| p.resident_bytes);
    let late = growth.resident_to_bytes.saturating_sub(middle) as f64;
    let all = growth.resident_to_bytes.saturating_sub(growth.resident_from_bytes) as f64;
    growth.resident_goes_on = all > 0.0 && late >= LATE_SHARE * all;
    if points.len() >= MIN_POINTS && growth.resident_to_bytes > 0 {
        growth.kind = kind_of(&growth, is_above, goes_on);
    }
    growth
}

/// Decides the kind of growth. `is_above`: in the last eighth, live bytes never fell to the live bytes after
/// the start-up. If live bytes fell to their value after the start-up, small growth is normal fluctuation.
/// `goes_on`: growth did not stop in the first half of the recording.
fn kind_of(growth: &ProcessGrowth, is_above: bool, goes_on: bool) -> GrowthKind {
    let by = |from: u64, to: u64| to as f64 - from as f64;
    let live = by(growth.live_from_bytes, growth.live_to_bytes);
    let resident = by(growth.resident_from_bytes, growth.resident_to_bytes);
    let noticeable = NOTICEABLE_BYTES.max(NOTICEABLE_SHARE * growth.resident_to_bytes as f64);
    // The growth of edleak's side table is not growth of the program, so the function subtracts it. The side
    // table grows with the greatest number of live bytes so far.
    let side_table = SIDE_TABLE_SHARE * by(growth.live_from_bytes, growth.live_peak_bytes).max(0.0);
    let unexplained = resident - live.max(0.0) - side_table;
    let share = if is_above { NOTICEABLE_LIVE_SHARE } else { SCATTER_SHARE };
    let live_grows = goes_on && live > NOTICEABLE_LIVE_BYTES.max(share * growth.live_to_bytes as f64);
    if unexplained < noticeable || (live_grows && live >= unexplained) {
        return if live_grows { GrowthKind::Live } else { GrowthKind::None };
    }
    if let Some([from, to]) = growth.kinds {
        let in_malloc = by(from.of_malloc(), to.of_malloc());
        let elsewhere = by(from.elsewhere(), to.elsewhere());
        // The function counts the growth of live memory as growth of malloc's memory, but only up to the
        // number of bytes by which malloc's memory grew. The rest of the growth of live memory is in large
        // allocations, each of which has a separate mapping.
        let live = live.max(0.0);
        let retained = (in_malloc - live).max(0.0);
        let outside = (elsewhere - (live - in_malloc.max(0.0)).max(0.0)).max(0.0);
        // The calls of other allocators may not all be counted, so the limit is only for libc's malloc.
        let is_of_libc = by(from.allocators, to.allocators) < retained / 2.0;
        let is_retained = retained >= outside && (!is_of_libc || growth.may_retain(retained));
        return if is_retained { GrowthKind::Retained } else { GrowthKind::Outside };
    }
    // If live bytes had a peak before the end, the allocator can still hold the memory that the program freed
    // after the peak.
    let was_freed = by(growth.live_to_bytes, growth.live_peak_bytes);
    // Fragmentation rarely takes more memory than twice the peak of live bytes. Fragmentation also needs many
    // allocations: together, they must have several times the bytes that fragmentation takes.
    let can_fragment = unexplained <= 2.0 * growth.live_peak_bytes as f64
        && growth.turnover_bytes as f64 >= 4.0 * unexplained;
    // If the memory of each kind of mapping was recorded, but too seldom, an allocator that returns no memory
    // to the kernel may hold even more.
    let may_retain = growth.are_kinds_old && growth.may_retain(unexplained);
    match () {
        () if was_freed >= unexplained / 2.0 => GrowthKind::Retained,
        () if can_fragment || may_retain => GrowthKind::Unclear,
        () => GrowthKind::Outside,
    }
}

impl ProcessGrowth {
    /// Whether the kinds of mappings show some of the growth of resident memory. The collector reads them
    /// less often than it takes slices. If the kinds did not grow at all, the readings are too old.
    fn are_kinds_current(&self) -> bool {
        let Some([from, to]) = self.kinds else { return true };
        let all = |kinds: &KindBytes| kinds.heap + kinds.arenas + kinds.anonymous + kinds.stacks;
        let resident = self.resident_to_bytes.saturating_sub(self.resident_from_bytes);
        resident < NOTICEABLE_BYTES as u64 || all(&to).saturating_sub(all(&from)) >= resident / 64
    }

    /// Whether growth outside malloc may also be memory that the program allocated earlier and touches only
    /// now. After the start-up, the process then has more live bytes than resident bytes. The recording
    /// cannot tell such memory from a leak outside malloc: the untouched memory may stay untouched.
    pub(super) fn may_be_touched_late(&self) -> bool {
        self.live_from_bytes > self.resident_from_bytes
    }

    /// Whether malloc may retain `bytes` bytes. malloc cannot retain more memory than it ever gave to the
    /// program; an allocation of one byte takes a block of 32 bytes.
    fn may_retain(&self, bytes: f64) -> bool {
        const BLOCK_BYTES: f64 = 32.0;
        let given = self.live_from_bytes as f64 + self.turnover_bytes as f64;
        bytes <= NOTICEABLE_BYTES + BLOCK_BYTES * given
    }

    /// The ratio of resident memory at the end to resident memory after the start-up.
    pub fn times(&self) -> f64 {
        self.resident_to_bytes as f64 / self.resident_from_bytes.max(1) as f64
    }

    /// Whether recorded calls mapped nearly all of the memory by which memory outside malloc grew.
    pub fn is_seen_outside(&self) -> bool {
        let noticeable = NOTICEABLE_BYTES.max(NOTICEABLE_SHARE * self.resident_to_bytes as f64);
        let stacks = self.grown().map_or(0, |grown| grown.stacks);
        let unseen = self.unseen.map(|unseen| unseen.grown_bytes.saturating_add(stacks));
        unseen.is_some_and(|unseen| (unseen as f64) < noticeable)
    }

    /// Whether allocations that are not counted may have caused the growth of the process. An allocator takes
    /// its memory from the heap, from mappings that the recorder assigns to an allocator, or by calls that
    /// the recorder does not see. If these three kinds of memory (the heap, the mappings of allocators, and
    /// memory that no recorded call mapped) together grew by no more than live memory, no uncounted
    /// allocations caused the growth.
    pub fn may_be_uncounted(&self) -> bool {
        let Some([from, to]) = self.kinds.filter(|kinds| kinds.iter().all(|kinds| kinds.has_calls)) else {
            return true;
        };
        let of_allocators = |kinds: &KindBytes| kinds.of_malloc().saturating_add(kinds.unseen) as f64;
        let live = self.live_to_bytes as f64 - self.live_from_bytes as f64;
        let beyond_live = of_allocators(&to) - of_allocators(&from) - live.max(0.0);
        beyond_live >= NOTICEABLE_BYTES.max(NOTICEABLE_SHARE * self.resident_to_bytes as f64)
    }

    /// Anonymous memory at the end that recorded calls mapped, without the memory of allocators; 0 if the
    /// trace has no calls that map memory.
    pub fn mapped_bytes(&self) -> u64 {
        let seen = self.kinds.filter(|kinds| kinds.iter().all(|kinds| kinds.has_calls)).map(|[_, to]| to);
        seen.map_or(0, |to| to.anonymous.saturating_sub(to.unseen).saturating_sub(to.allocators))
    }

    /// Call this function if edleak did not count all allocations of an allocator. `clause` is a part of a
    /// sentence for the report, which names the uncounted allocations. If the memory of the
    /// allocator may have grown, the cause becomes `Unclear`: the program may leak this memory, or the
    /// allocator may retain it.
    pub fn note_uncounted(&mut self, clause: String) {
        // The heap and the arenas are memory of libc's malloc, whose allocations are all counted.
        let is_of_libc = self.grown().is_some_and(|grown| {
            let of_libc = grown.heap.saturating_add(grown.arenas);
            grown.has_calls && of_libc > grown.allocators.saturating_add(grown.unseen)
        });
        if matches!(self.kind, GrowthKind::Retained | GrowthKind::Unclear) && !is_of_libc {
            self.kind = GrowthKind::Unclear;
            self.uncounted = Some(clause);
        }
    }

    fn unseen_bytes(&self) -> Option<UnseenBytes> {
        let [from, to] = self.kinds.filter(|kinds| kinds.iter().all(|kinds| kinds.has_calls))?;
        let beyond_malloc = |kinds: &KindBytes, live: u64| {
            kinds.unseen.saturating_sub(live.saturating_sub(kinds.of_malloc()))
        };
        let bytes = beyond_malloc(&to, self.live_to_bytes);
        let grown_bytes = bytes.saturating_sub(beyond_malloc(&from, self.live_from_bytes));
        Some(UnseenBytes { bytes, grown_bytes })
    }

    /// The growth of the memory of each kind of mapping, in bytes.
    pub(super) fn grown(&self) -> Option<KindBytes> {
        let [from, to] = self.kinds?;
        Some(KindBytes {
            heap: to.heap.saturating_sub(from.heap),
            arenas: to.arenas.saturating_sub(from.arenas),
            anonymous: to.anonymous.saturating_sub(from.anonymous),
            stacks: to.stacks.saturating_sub(from.stacks),
            shared: to.shared.saturating_sub(from.shared),
            allocators: to.allocators.saturating_sub(from.allocators),
            unseen: to.unseen.saturating_sub(from.unseen),
            has_calls: from.has_calls && to.has_calls,
        })
    }
}

/// For each kind of mapping, the median of its memory over the given points.
fn kinds_of(points: &[ProcessPoint]) -> Option<KindBytes> {
    let kinds: Vec<KindBytes> = points.iter().filter_map(|point| point.kinds).collect();
    if kinds.is_empty() {
        return None;
    }
    let median = |value: fn(&KindBytes) -> u64| {
        let mut values: Vec<u64> = kinds.iter().map(value).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    Some(KindBytes {
        heap: median(|kinds| kinds.heap),
        arenas: median(|kinds| kinds.arenas),
        anonymous: median(|kinds| kinds.anonymous),
        stacks: median(|kinds| kinds.stacks),
        shared: median(|kinds| kinds.shared),
        allocators: median(|kinds| kinds.allocators),
        unseen: median(|kinds| kinds.unseen),
        has_calls: kinds.iter().all(|kinds| kinds.has_calls),
    })
}

fn median(points: &[ProcessPoint], value: impl Fn(&ProcessPoint) -> u64) -> u64 {
    let mut values: Vec<u64> = points.iter().map(value).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// The growth of a process with 80 points; each closure gives the bytes at point i.
    fn growth(
        live: impl Fn(u64) -> u64,
        resident: impl Fn(u64) -> u64,
        turnover_bytes: u64,
    ) -> ProcessGrowth {
        let mut series = ProcessSeries::default();
        for i in 0..80 {
            series.push(ProcessPoint { live_bytes: live(i), resident_bytes: resident(i), kinds: None });
        }
        growth_of(&series, turnover_bytes)
    }

    #[test]
    fn growth_that_stopped_is_not_growth() {
        let loaded = |until: u64| {
            growth(|i| 10 * MB + i.min(until) * MB, |i| 20 * MB + i.min(until) * MB, 90 * MB).kind
        };
        assert_eq!((loaded(40), loaded(80)), (GrowthKind::None, GrowthKind::Live));
        // Growth that gets slower but never ends counts as growth that continues.
        let slackens =
            growth(|i| 10 * MB * (i + 2).ilog2() as u64, |i| 20 * MB * (i + 2).ilog2() as u64, 90 * MB);
        assert_eq!(slackens.kind, GrowthKind::Live);
    }

    #[test]
    fn a_leak_is_growth_of_live_memory() {
        let found = growth(|i| MB + i * MB / 4, |i| 5 * MB + i * MB / 3, 20 * MB);
        assert_eq!(found.kind, GrowthKind::Live);
        assert_eq!((found.live_from_bytes, found.live_to_bytes), (MB + 15 * MB / 4, MB + 75 * MB / 4));
        assert!(
            found.sentence().unwrap().starts_with("the program's live memory grows: live 4.5 MiB to 19 MiB")
        );
    }

    #[test]
    fn free_memory_is_told_by_arena_with_the_remedy() {
        let sentence = |main: u64, other: u64, others: u64| {
            let mut growth = growth_of(&ProcessSeries::default(), 0);
            growth.kind = GrowthKind::Retained;
            growth.free = Some(FreeBytes { main_bytes: main * MB, other_bytes: other * MB, others });
            growth.sentence().expect("a known cause")
        };
        let text = sentence(50, 350, 31);
        assert!(
            text.contains(
                ", 381 MiB of it free in its arenas, 334 MiB of them in 31 arenas other than the \
                 main one (try MALLOC_ARENA_MAX=2"
            ),
            "{text}"
        );
        let text = sentence(0, 350, 1);
        assert!(text.contains(", 334 MiB of it free in an arena other than the main one (try"), "{text}");
        let text = sentence(350, 50, 2);
        assert!(text.contains(", 381 MiB of it free in its arenas (try malloc_trim)"), "{text}");
        assert!(!sentence(0, 0, 0).contains("free in"));
    }

    #[test]
    fn freed_memory_that_stays_resident_is_the_allocators() {
        let live = |i: u64| if (20..40).contains(&i) { 60 * MB } else { MB };
        let found = growth(live, |i| if i < 20 { 3 * MB } else { 63 * MB }, 60 * MB);
        assert_eq!(found.kind, GrowthKind::Retained);
        assert_eq!(found.live_peak_bytes, 60 * MB);
    }

    #[test]
    fn turnover_in_a_process_that_doubles_is_unclear_without_kinds() {
        let found = growth(|_| 20 * MB, |i| 22 * MB + i * MB / 5, 800 * MB);
        assert_eq!(found.kind, GrowthKind::Unclear);
        assert!(found.sentence().unwrap().contains("cannot tell"));
    }

    /// The growth of a process with constant live bytes and growing resident bytes; `kinds` gives the bytes
    /// of each kind of mapping at point i.
    fn of_kinds(kinds: impl Fn(u64) -> KindBytes) -> ProcessGrowth {
        let mut series = ProcessSeries::default();
        for i in 0..80 {
            let resident_bytes = 22 * MB + i * MB / 5;
            series.push(ProcessPoint { live_bytes: 20 * MB, resident_bytes, kinds: Some(kinds(i)) });
        }
        growth_of(&series, 800 * MB)
    }

    #[test]
    fn kinds_of_mappings_decide() {
        let grown = |i: u64| i * MB / 5;
        let outside = of_kinds(|i| KindBytes { heap: 22 * MB, anonymous: grown(i), ..KindBytes::default() });
        assert_eq!((outside.kind, outside.resident_goes_on), (GrowthKind::Outside, true));
        assert!(
            outside.sentence().unwrap().contains("of anonymous memory that is neither the heap nor an arena")
        );
        let arenas = of_kinds(|i| KindBytes { heap: 22 * MB, arenas: grown(i), ..KindBytes::default() });
        assert_eq!(arenas.kind, GrowthKind::Retained);
        assert!(arenas.sentence().unwrap().contains("in arenas of its threads"));
        let heap = of_kinds(|i| KindBytes { heap: 22 * MB + grown(i), ..KindBytes::default() });
        assert_eq!(heap.kind, GrowthKind::Retained);
        let stacks = of_kinds(|i| KindBytes { heap: 22 * MB, stacks: grown(i), ..KindBytes::default() });
        assert_eq!(stacks.kind, GrowthKind::Outside);
        assert!(stacks.sentence().unwrap().contains("in stacks of threads"));
    }

    /// The program allocates 38 MB at once and touches them one after another. A program with a large block
    /// that it never touches, and with a leak outside malloc, has the same curves.
    #[test]
    fn memory_that_may_be_touched_late_is_named() {
        let found = growth(|_| 38 * MB, |i| 2 * MB + (i * MB / 2).min(37 * MB), 38 * MB);
        assert_eq!(found.kind, GrowthKind::Outside, "{found:?}");
        assert!(found.sentence().unwrap().contains("allocated earlier and touches only now"));
        let early = growth(|_| MB, |i| 2 * MB + (i * MB / 2).min(37 * MB), MB);
        assert!(!early.sentence().unwrap().contains("touches only now"), "{early:?}");
    }

    #[test]
    fn malloc_does_not_retain_more_than_it_ever_gave() {
        let with_sbrk = |turnover| {
            let mut series = ProcessSeries::default();
            for i in 0..80 {
                let heap = MB + i * MB / 5;
                let kinds = Some(KindBytes { heap, has_calls: true, ..KindBytes::default() });
                series.push(ProcessPoint { live_bytes: 1000, resident_bytes: heap + MB, kinds });
            }
            growth_of(&series, turnover)
        };
        let found = with_sbrk(8000);
        assert_eq!((found.kind, found.resident_goes_on), (GrowthKind::Outside, true));
        assert!(found.sentence().unwrap().contains("calls of sbrk"), "{:?}", found.sentence());
        assert!(found.outside_remedy().contains("brk"));
        assert_eq!(with_sbrk(800 * MB).kind, GrowthKind::Retained);
    }

    #[test]
    fn readings_of_the_kinds_that_are_too_old_do_not_count() {
        let old = of_kinds(|_| KindBytes { heap: 22 * MB, has_calls: true, ..KindBytes::default() });
        assert_eq!((old.kinds, old.are_kinds_old, old.kind), (None, true, GrowthKind::Unclear));
    }

    /// An allocator that never returns memory to the kernel grows to many times the peak of live bytes.
    #[test]
    fn old_readings_of_the_kinds_do_not_show_that_memory_grows_outside_malloc() {
        let with_turnover = |turnover: u64, kinds: Option<KindBytes>| {
            let mut series = ProcessSeries::default();
            for i in 0..80 {
                series.push(ProcessPoint { live_bytes: MB, resident_bytes: 22 * MB + i * MB, kinds });
            }
            let found = growth_of(&series, turnover);
            (found.kind, found.are_kinds_old)
        };
        let old = Some(KindBytes { heap: 22 * MB, has_calls: true, ..KindBytes::default() });
        assert_eq!(with_turnover(80 * MB, old), (GrowthKind::Unclear, true));
        assert_eq!(with_turnover(MB / 10, old), (GrowthKind::Outside, true), "malloc gave too little");
        assert_eq!(with_turnover(80 * MB, None), (GrowthKind::Outside, false));
    }

    #[test]
    fn calls_tell_which_memory_outside_malloc_was_seen() {
        let grown = |i: u64| i * MB / 5;
        let traced =
            |anonymous: u64| KindBytes { heap: 22 * MB, anonymous, has_calls: true, ..KindBytes::default() };
        let seen = of_kinds(|i| traced(grown(i)));
        assert_eq!((seen.kind, seen.is_seen_outside()), (GrowthKind::Outside, true));
        assert!(seen.sentence().unwrap().contains("mapped by calls of mmap"), "{:?}", seen.sentence());
        let unseen = of_kinds(|i| KindBytes { unseen: grown(i), ..traced(grown(i)) });
        assert_eq!((unseen.kind, unseen.is_seen_outside()), (GrowthKind::Outside, false));
        assert!(unseen.sentence().unwrap().contains("no call that edleak saw"), "{:?}", unseen.sentence());
        // Mappings that an allocator makes for itself count as memory of malloc.
        let allocator = of_kinds(|i| KindBytes { heap: 22 * MB, allocators: grown(i), ..traced(grown(i)) });
        assert_eq!(allocator.kind, GrowthKind::Retained);
        assert!(allocator.may_be_uncounted() && unseen.may_be_uncounted() && !seen.may_be_uncounted());
        // libc makes a separate mapping for each large allocation.
        let large = of_kinds(|i| KindBytes { heap: 0, unseen: 20 * MB, ..traced(20 * MB + grown(i)) });
        assert_eq!(large.unseen, Some(UnseenBytes { bytes: 0, grown_bytes: 0 }));
    }

    #[test]
    fn an_allocator_with_uncounted_functions_is_not_said_to_retain() {
        let grown = |i: u64| i * MB / 5;
        let clause = || "allocations through `mallocx` of libjemalloc.so.2 are not counted".to_owned();
        let traced = |kinds: KindBytes| KindBytes { has_calls: true, ..kinds };
        let mut foreign = of_kinds(|i| {
            traced(KindBytes { anonymous: grown(i), allocators: grown(i), ..KindBytes::default() })
        });
        assert!(foreign.sentence().unwrap().contains("the allocator retains"));
        foreign.note_uncounted(clause());
        let sentence = foreign.sentence().expect("a cause");
        assert_eq!(foreign.kind, GrowthKind::Unclear);
        assert!(
            sentence.contains("and allocations through `mallocx` of libjemalloc.so.2 are not counted, so"),
            "{sentence}"
        );
        // In this recording, only the heap grows. The heap belongs to libc's malloc, whose allocations are
        // all counted, so libc's malloc retains the memory.
        let mut libc = of_kinds(|i| traced(KindBytes { heap: 22 * MB + grown(i), ..KindBytes::default() }));
        libc.note_uncounted(clause());
        assert!(libc.sentence().unwrap().contains("the allocator retains"));
        let mut mapped = of_kinds(|i| traced(KindBytes { anonymous: grown(i), ..KindBytes::default() }));
        mapped.note_uncounted(clause());
        assert_eq!(mapped.kind, GrowthKind::Outside);
    }

    #[test]
    fn mapped_memory_grows_outside_malloc() {
        let found = growth(|_| MB, |i| 3 * MB + i * MB, 0);
        assert_eq!(found.kind, GrowthKind::Outside);
    }

    #[test]
    fn a_steady_process_does_not_grow() {
        let found = growth(|i| 10 * MB + i % 7, |i| 20 * MB + i % 5 * 4096, 80 * MB);
        assert_eq!(found.kind, GrowthKind::None);
    }

    #[test]
    fn scatter_is_not_growth() {
        let live = |i: u64| 140_000 + if i > 40 { 12_000 } else { 0 } + i * 7919 % 31_000;
        assert_eq!(growth(live, |_| 2 * MB, 40 * MB).kind, GrowthKind::None);
        assert_eq!(growth(|i| 140_000 + 300 * i, |_| 2 * MB, 40 * MB).kind, GrowthKind::Live);
    }

    #[test]
    fn without_resident_memory_nothing_is_claimed() {
        let found = growth(|i| i * MB, |_| 0, 80 * MB);
        assert_eq!((found.kind, found.sentence()), (GrowthKind::Unknown, None));
        assert_eq!(growth_of(&ProcessSeries::default(), 0).kind, GrowthKind::Unknown);
    }
}
