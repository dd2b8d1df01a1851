//! Writes the sentence of the report that names the cause of the growth, with its figures and the remedy.

use super::{GrowthKind, NOTICEABLE_BYTES, ProcessGrowth};
use crate::process_series::FreeBytes;
use edleak_text::units;

/// The report mentions free memory in arenas if it is at least this share of the retained memory. With a
/// smaller share, most of the retained memory is in another allocator, so the free memory in arenas does
/// not explain it.
const LEAST_FREE_SHARE: f64 = 0.1;

impl ProcessGrowth {
    /// The sentence of the report that names the cause of the growth, with its figures; `None` if the cause
    /// is unknown.
    pub fn sentence(&self) -> Option<String> {
        let size = |bytes: u64| units::bytes(bytes as f64);
        let live = format!("{} to {}", size(self.live_from_bytes), size(self.live_to_bytes));
        let resident = format!("{} to {}", size(self.resident_from_bytes), size(self.resident_to_bytes));
        match self.kind {
            GrowthKind::Live => {
                Some(format!("the program's live memory grows: live {live}, resident {resident}"))
            }
            GrowthKind::Retained => Some(format!(
                "the allocator retains what the program freed{}: live {live} (peak {}), resident {resident}",
                self.where_retained(),
                size(self.live_peak_bytes)
            )),
            GrowthKind::Outside => Some(format!(
                "memory grows outside malloc ({}{}): live {live}, resident {resident}",
                self.where_outside(),
                match self.may_be_touched_late() {
                    true => ", or memory that the program allocated earlier and touches only now",
                    false => "",
                }
            )),
            GrowthKind::Unclear if let Some(uncounted) = &self.uncounted => Some(format!(
                "resident memory grows, and {uncounted}, so this recording cannot tell whether the program \
                 leaks there or the allocator retains what the program freed: live {live}, resident \
                 {resident}"
            )),
            GrowthKind::Unclear => Some(format!(
                "resident memory grows, and this recording cannot tell whether the allocator retains what \
                 the program freed or malloc never saw it: live {live}, resident {resident}"
            )),
            GrowthKind::None => Some(format!("the process does not grow: live {live}, resident {resident}")),
            GrowthKind::Unknown => None,
        }
    }

    fn where_retained(&self) -> String {
        let size = |bytes: u64| units::bytes(bytes as f64);
        let retained = self.resident_to_bytes.saturating_sub(self.live_to_bytes) as f64;
        if let Some(FreeBytes { main_bytes, other_bytes, others }) = self.free
            && (main_bytes + other_bytes) as f64 >= NOTICEABLE_BYTES.max(LEAST_FREE_SHARE * retained)
        {
            let all_bytes = main_bytes + other_bytes;
            let all = size(all_bytes);
            if main_bytes >= other_bytes {
                return format!(", {all} of it free in its arenas (try malloc_trim)");
            }
            let arenas = if others == 1 { "an arena".into() } else { format!("{others} arenas") };
            let whose = format!("{arenas} other than the main one (try MALLOC_ARENA_MAX=2 or malloc_trim)");
            return match main_bytes > all_bytes / 20 {
                true => format!(", {all} of it free in its arenas, {} of them in {whose}", size(other_bytes)),
                false => format!(", {all} of it free in {whose}"),
            };
        }
        let Some(grown) = self.grown() else { return String::new() };
        if grown.arenas > grown.heap {
            return format!(", {} of it in arenas of its threads", size(grown.arenas));
        }
        String::new()
    }

    /// The remedy for growth outside malloc: how to find its cause.
    pub fn outside_remedy(&self) -> &'static str {
        match self.grown() {
            Some(grown) if grown.is_mostly_heap() => "find the calls of sbrk with `strace -e trace=brk -k`",
            Some(grown) if grown.stacks > grown.anonymous => {
                "count the threads with `ls /proc/PID/task`, and look for threads that do not end"
            }
            _ => "find the calls of mmap with `strace -e trace=%memory -k`",
        }
    }

    fn where_outside(&self) -> String {
        let Some(grown) = self.grown() else { return "mmap, stacks, another allocator".into() };
        let size = |bytes: u64| units::bytes(bytes as f64);
        if grown.is_mostly_heap() {
            return format!(
                "{} more in the heap that grows by `brk`, which malloc did not take: calls of sbrk",
                size(grown.heap)
            );
        }
        if let (Some(unseen), false) = (self.unseen, grown.stacks > grown.anonymous) {
            let seen = grown.anonymous.saturating_sub(grown.unseen).saturating_sub(grown.allocators);
            return match unseen.grown_bytes > seen {
                true => format!(
                    "{} more of anonymous memory that was mapped by no call that edleak saw",
                    size(unseen.grown_bytes)
                ),
                false => "mapped by calls of mmap and its kin: see the sites of mapped memory".into(),
            };
        }
        match grown.stacks > grown.anonymous {
            true => format!("{} more in stacks of threads", size(grown.stacks)),
            false => format!(
                "{} more of anonymous memory that is neither the heap nor an arena: mmap, or another \
                 allocator",
                size(grown.anonymous)
            ),
        }
    }
}
