//! The memory of the whole process over time: live bytes, resident bytes, and bytes by kind of mapping.

/// Maximum number of points of a series. When a series has this number of points, each pair of points is
/// merged into one point.
const MAX_POINTS: usize = 256;

/// The memory of the whole process at one instant.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct ProcessPoint {
    /// Live bytes of all sites.
    pub live_bytes: u64,
    /// RssAnon + VmSwap of the process in bytes; 0 if not recorded.
    pub resident_bytes: u64,
    /// Resident and swapped bytes of each kind of mapping; `None` if they were not recorded.
    pub kinds: Option<KindBytes>,
}

/// Resident and swapped bytes of each kind of mapping.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct KindBytes {
    /// The heap that grows by `brk`.
    pub heap: u64,
    /// Arenas of glibc's malloc for threads.
    pub arenas: u64,
    /// Anonymous memory that is neither heap, arena nor stack, with or without a name.
    pub anonymous: u64,
    /// Stacks of threads.
    pub stacks: u64,
    /// Shared memory.
    pub shared: u64,
    /// Bytes of the anonymous memory that allocators mapped for themselves; these bytes are also part of
    /// `anonymous`.
    pub allocators: u64,
    /// Bytes of the anonymous memory that no recorded call mapped; these bytes are also part of `anonymous`.
    pub unseen: u64,
    /// Whether the recorder counted the calls that map memory, so that `allocators` and `unseen` are known.
    pub has_calls: bool,
}

/// Resident free memory inside the arenas of glibc's malloc.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FreeBytes {
    /// Free bytes in the main arena.
    pub main_bytes: u64,
    /// Free bytes in all arenas except the main arena.
    pub other_bytes: u64,
    /// Number of arenas with free memory; the main arena does not count.
    pub others: u64,
}

impl FreeBytes {
    /// Adds the free memory of one arena.
    pub fn add(&mut self, is_main: bool, bytes: u64) {
        match is_main {
            true => self.main_bytes += bytes,
            false => {
                self.other_bytes += bytes;
                self.others += u64::from(bytes > 0);
            }
        }
    }
}

impl KindBytes {
    /// Memory of malloc: the heap and the arenas of libc's malloc, and memory that other allocators map for
    /// themselves.
    pub(crate) fn of_malloc(&self) -> u64 {
        self.heap.saturating_add(self.arenas).saturating_add(self.allocators)
    }

    /// Whether the heap that grows by `brk` has more memory than anonymous mappings and stacks together.
    pub(crate) fn is_mostly_heap(&self) -> bool {
        self.heap > self.anonymous.saturating_add(self.stacks)
    }

    /// Memory outside malloc: anonymous memory that no allocator mapped for itself, and stacks.
    pub(crate) fn elsewhere(&self) -> u64 {
        self.anonymous.saturating_sub(self.allocators).saturating_add(self.stacks)
    }
}

/// The memory of the process over time. The series has a limited number of points, and each point covers the
/// same number of slices.
#[derive(Clone, Debug)]
pub struct ProcessSeries {
    points: Vec<ProcessPoint>,
    peak_live_bytes: u64,
    per_point: u64,
    in_last: u64,
}

impl Default for ProcessSeries {
    fn default() -> Self {
        Self { points: Vec::new(), peak_live_bytes: 0, per_point: 1, in_last: 0 }
    }
}

impl ProcessSeries {
    /// Adds one slice. If one point covers several slices, the point has the values of the last of these
    /// slices.
    pub fn push(&mut self, point: ProcessPoint) {
        self.peak_live_bytes = self.peak_live_bytes.max(point.live_bytes);
        if self.points.is_empty() || self.in_last == self.per_point {
            if self.points.len() == MAX_POINTS {
                self.points = self.points.chunks(2).map(|pair| pair[pair.len() - 1]).collect();
                self.per_point *= 2;
            }
            self.points.push(point);
            self.in_last = 0;
        } else if let Some(last) = self.points.last_mut() {
            *last = point;
        }
        self.in_last += 1;
    }

    /// The greatest number of live bytes in any slice, even in a slice whose values are no longer in a
    /// point of the series.
    pub(crate) fn peak_live_bytes(&self) -> u64 {
        self.peak_live_bytes
    }

    /// The points of the series, in order of time.
    pub fn points(&self) -> &[ProcessPoint] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_bounded_and_order_is_kept() {
        let mut series = ProcessSeries::default();
        for i in 0..100_000 {
            series.push(ProcessPoint { live_bytes: i, resident_bytes: i, kinds: None });
        }
        assert!(series.points().len() <= MAX_POINTS && series.points().len() >= MAX_POINTS / 2);
        assert!(series.points().is_sorted_by_key(|p| p.live_bytes));
        assert_eq!(series.points().last().unwrap().live_bytes, 99_999);
        assert_eq!(series.peak_live_bytes, 99_999);
    }
}
