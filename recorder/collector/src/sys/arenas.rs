//! Measures the free memory inside the arenas of glibc's malloc, from outside the process.
//!
//! glibc places the chunks of an arena one after another in memory. Each chunk begins with two numbers of 8
//! bytes. The first number of a chunk is the size of the previous chunk, if the previous chunk is free. The
//! second number of a chunk is the size of this chunk, together with three flags. From the sizes of the
//! chunks, the collector finds the next chunk after each chunk, and so every free chunk. The names and
//! offsets in this file are those of malloc/malloc.c and malloc/arena.c in glibc 2.27 and later, on 64-bit
//! systems:
//!
//! - The main arena is in the heap of `brk`, and its first chunk is at the start of the heap.
//! - Every other arena consists of heaps of up to 64 MiB each. A heap begins with the structure `heap_info`.
//!   In the first heap of an arena, the structure `malloc_state` follows the `heap_info`.
//!
//! The collector does not know whether the program uses glibc's allocator, and the program may change the
//! chunks while the collector reads them. So the collector uses the result only if every size is possible and
//! the last chunk ends exactly at the end of the heap. Free chunks in the cache of a thread or in a fast bin
//! look as if they were used, so the true amount of free memory may be higher than the result.
//!
//! The collector does not read pages that are not resident, because reading such a page would bring the page
//! into memory and so change the process.

use crate::sys::remote;
use edleak_session::layout;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Maximum size of a heap of an arena (`HEAP_MAX_SIZE`), in bytes. Each heap begins at a multiple of this
/// size.
pub(crate) const HEAP_BYTES: u64 = 64 << 20;
const PAGE_BYTES: u64 = layout::PAGE_BYTES as u64;
/// Maximum number of bytes that the collector reads with one system call.
const WINDOW_BYTES: u64 = 256 << 10;
/// Maximum number of entries of the page map that the collector reads with one system call: enough for all
/// pages of a heap of 64 MiB.
const MOST_ENTRIES: u64 = HEAP_BYTES / PAGE_BYTES;
/// Maximum time of one walk over the heaps. The collector takes no slice during a walk over the heaps, so the
/// walk must be short. A walk of this duration can read about 1 GiB of heaps. If a process has more than 1
/// GiB of heaps, the next walk continues where the previous walk ended.
const LONGEST: Duration = Duration::from_millis(100);

/// Size in bytes of the smallest chunk (`MINSIZE`).
const LEAST_CHUNK: u64 = 32;
/// Size in bytes of a fence (`CHUNK_HDR_SZ`). A fence is a chunk that marks the end of a heap; every heap of
/// an arena, except the newest heap, has a fence.
const FENCE_BYTES: u64 = 16;
const PREVIOUS_IS_USED: u64 = 1;
const IS_MAPPED: u64 = 2;
const FLAGS: u64 = 7;
/// The possible sizes of `heap_info` in bytes: the first size in glibc up to 2.34, the second size in newer
/// versions of glibc.
const HEAP_INFO_BYTES: [u64; 2] = [0x20, 0x30];
/// The size of `malloc_state` in bytes.
const STATE_BYTES: u64 = 0x898;

/// The free memory in an arena or in a heap of an arena.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct FreeBytes {
    /// The total size of all free chunks.
    pub(crate) bytes: u64,
    /// The number of free bytes that are on resident pages.
    pub(crate) resident_bytes: u64,
}

/// Reads the memory of a process in units of 8 bytes.
trait Memory {
    /// The 8 bytes at `address` as a number; `None`: the page of these bytes is not resident, or the time for
    /// the walk is over.
    fn word(&mut self, address: u64) -> Option<u64>;
    /// The number of bytes of the address range that are on resident pages; `None`: the time for the walk
    /// over the heaps is over.
    fn resident(&mut self, range: Range<u64>) -> Option<u64>;
}

/// The heaps of one process, with the free memory that the latest walk found in each heap.
#[derive(Default)]
pub(crate) struct Arenas {
    /// For the address of each heap: the arena to which the heap belongs, and the free memory in the heap.
    /// The address of an arena's `malloc_state` identifies the arena; 0 stands for the main arena.
    heaps: BTreeMap<u64, (u64, FreeBytes)>,
    /// The next walk begins at the first heap that starts at this address or above it. One walk over the
    /// heaps may not have time for all heaps.
    next: u64,
}

impl Arenas {
    /// Walks over the heaps of the process for at most the time [`LONGEST`]. Returns the free memory of each
    /// arena. `brk` is the heap of the main arena; `arenas` are the mappings that may contain heaps of other
    /// arenas.
    pub(crate) fn read(
        &mut self,
        pid: u32,
        brk: Option<Range<u64>>,
        arenas: impl Iterator<Item = Range<u64>>,
    ) -> BTreeMap<u64, FreeBytes> {
        let main = brk.as_ref().map(|heap| heap.start);
        // The kernel shows adjacent full heaps as one mapping, so split each mapping into heaps.
        let others = arenas.flat_map(|mapping| {
            let end = mapping.end;
            let starts = (mapping.start..end).step_by(HEAP_BYTES as usize);
            starts.map(move |start| start..end.min(start + HEAP_BYTES))
        });
        let mut heaps: Vec<Range<u64>> = brk.into_iter().chain(others).collect();
        heaps.sort_unstable_by_key(|heap| heap.start);
        self.heaps.retain(|start, _| heaps.binary_search_by_key(start, |heap| heap.start).is_ok());
        let reached = heaps.partition_point(|heap| heap.start < self.next);
        heaps.rotate_left(reached);
        let until = Instant::now() + LONGEST;
        if let Ok(pagemap) = File::open(format!("/proc/{pid}/pagemap")) {
            for heap in heaps {
                self.next = heap.start;
                if Instant::now() >= until {
                    break;
                }
                let mut process = Process::new(pid, &pagemap, heap.clone(), until);
                let found = match main == Some(heap.start) {
                    true => walk(&mut process, heap.start, heap.end).map(|free| (0, free)),
                    false => of_heap(&mut process, heap.clone()),
                };
                match found {
                    Some(found) => self.heaps.insert(heap.start, found),
                    // The time for this walk over the heaps is over, so the next walk continues after this
                    // heap.
                    None if Instant::now() >= until => {
                        self.next = heap.start + 1;
                        break;
                    }
                    // The program has changed the heap during the walk, or this memory is no longer a heap.
                    None => self.heaps.remove(&heap.start),
                };
            }
        }
        let mut arenas: BTreeMap<u64, FreeBytes> = BTreeMap::new();
        for (arena, free) in self.heaps.values() {
            let sum = arenas.entry(*arena).or_default();
            sum.bytes += free.bytes;
            sum.resident_bytes += free.resident_bytes;
        }
        arenas
    }
}

/// The address of the arena to which a heap belongs, and the free memory of the heap.
fn of_heap(memory: &mut impl Memory, heap: Range<u64>) -> Option<(u64, FreeBytes)> {
    let arena = memory.word(heap.start)?;
    let size = memory.word(heap.start + 16)?;
    let end = heap.start.checked_add(size).filter(|end| *end <= heap.end)?;
    // In the first heap of an arena, the `malloc_state` of the arena follows the `heap_info`. So the offset
    // of `malloc_state` in its heap is the size of `heap_info`.
    let info = HEAP_INFO_BYTES.into_iter().find(|bytes| arena % HEAP_BYTES == *bytes)?;
    let after_info = heap.start + info;
    let first = if arena == after_info { aligned(after_info + STATE_BYTES) } else { after_info };
    Some((arena, walk(memory, first, end)?))
}

/// Rounds an address up to a multiple of 16, at which a chunk can begin.
fn aligned(address: u64) -> u64 {
    address.next_multiple_of(16)
}

/// Adds up the sizes of the free chunks from `first` to `end`. `None`: the memory is not a heap of glibc, the
/// heap has changed during the walk, or a part of the heap cannot be read.
fn walk(memory: &mut impl Memory, first: u64, end: u64) -> Option<FreeBytes> {
    let mut free = FreeBytes::default();
    let mut before: Option<Range<u64>> = None;
    let mut chunk = first;
    loop {
        // The last chunk of an arena is the unused rest of the heap, so this chunk is free. For all other
        // chunks, a flag in the following chunk tells whether the chunk is free.
        let size = if chunk == end { None } else { Some(memory.word(chunk + 8)?) };
        let is_free = size.is_none_or(|size| size & PREVIOUS_IS_USED == 0);
        if let Some(chunk) = before.filter(|_| is_free) {
            free.bytes += chunk.end - chunk.start;
            free.resident_bytes += memory.resident(chunk)?;
        }
        let Some(size) = size else { break };
        let bytes = size & !FLAGS;
        let room = end - chunk;
        if bytes == 0 && size == PREVIOUS_IS_USED && room <= LEAST_CHUNK {
            break; // this is the fence at the end of a heap that is not the newest heap
        }
        let is_possible = bytes >= LEAST_CHUNK || (bytes == FENCE_BYTES && room <= 2 * LEAST_CHUNK);
        if !is_possible || !bytes.is_multiple_of(16) || size & IS_MAPPED != 0 || bytes > room {
            return None;
        }
        before = Some(chunk..chunk + bytes);
        chunk += bytes;
    }
    Some(free)
}

/// Reads one heap of a process.
struct Process<'a> {
    pid: u32,
    heap: Range<u64>,
    pagemap: &'a File,
    /// The entries of the page map for some pages of the heap, and the address of the first of these pages.
    entries: Vec<u8>,
    entries_at: u64,
    window: Vec<u8>,
    window_at: u64,
    until: Instant,
}

impl Process<'_> {
    fn new(pid: u32, pagemap: &File, heap: Range<u64>, until: Instant) -> Process<'_> {
        Process {
            pid,
            entries_at: heap.start,
            heap,
            pagemap,
            entries: Vec::new(),
            window: Vec::new(),
            window_at: 0,
            until,
        }
    }

    /// Whether a page of the heap is resident; `None`: the time for the walk is over, or the page map cannot
    /// be read.
    fn is_resident(&mut self, page: u64) -> Option<bool> {
        const PRESENT: u64 = 1 << 63;
        let index = |entries_at: u64| usize::try_from(page.checked_sub(entries_at)? / PAGE_BYTES).ok();
        let entry = |entries: &[u8], index: usize| entries.as_chunks::<8>().0.get(index).copied();
        let mut found = index(self.entries_at).and_then(|index| entry(&self.entries, index));
        if found.is_none() {
            if Instant::now() > self.until {
                return None;
            }
            let pages = (self.heap.end.checked_sub(page)? / PAGE_BYTES).min(MOST_ENTRIES);
            self.entries.resize(pages as usize * 8, 0);
            self.entries_at = page;
            self.pagemap.read_exact_at(&mut self.entries, page / PAGE_BYTES * 8).ok()?;
            found = entry(&self.entries, 0);
        }
        found.map(|entry| u64::from_ne_bytes(entry) & PRESENT != 0)
    }

    /// Reads the page that contains `address`, and the resident pages that follow this page.
    fn fill(&mut self, address: u64) -> Option<()> {
        let page = address - address % PAGE_BYTES;
        let mut end = page;
        while end < self.heap.end.min(page + WINDOW_BYTES) && self.is_resident(end)? {
            end += PAGE_BYTES;
        }
        if end == page || Instant::now() > self.until {
            return None;
        }
        self.window.resize((end - page) as usize, 0);
        self.window_at = page;
        remote::read(self.pid, page, &mut self.window).ok()
    }
}

impl Memory for Process<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let place = |window: &[u8], at: u64| {
            let from = usize::try_from(address.checked_sub(at)?).ok()?;
            window.get(from..)?.first_chunk::<8>().copied()
        };
        if place(&self.window, self.window_at).is_none() {
            self.fill(address)?;
        }
        place(&self.window, self.window_at).map(u64::from_ne_bytes)
    }

    fn resident(&mut self, range: Range<u64>) -> Option<u64> {
        let first = range.start - range.start % PAGE_BYTES;
        let mut bytes = 0;
        for page in (first..range.end).step_by(PAGE_BYTES as usize) {
            if self.is_resident(page)? {
                bytes += range.end.min(page + PAGE_BYTES) - range.start.max(page);
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const AT: u64 = 7 * HEAP_BYTES;

    /// Stands for the memory of a process; a test fills this memory in units of 8 bytes. Every page of the
    /// test's memory counts as resident.
    #[derive(Default)]
    struct Words(HashMap<u64, u64>);

    impl Memory for Words {
        fn word(&mut self, address: u64) -> Option<u64> {
            Some(self.0.get(&address).copied().unwrap_or(0))
        }

        fn resident(&mut self, range: Range<u64>) -> Option<u64> {
            Some(range.end - range.start)
        }
    }

    /// Writes chunks with the sizes and flags in `chunks`; the first chunk begins at the address `at`. The
    /// flag of a chunk says whether the previous chunk is used.
    fn chunks(memory: &mut Words, mut at: u64, chunks: &[(u64, bool)]) -> u64 {
        for &(bytes, is_used) in chunks {
            memory.0.insert(at + 8, bytes | u64::from(is_used));
            at += bytes;
        }
        at
    }

    #[test]
    fn free_chunks_and_the_rest_are_counted() {
        let mut memory = Words::default();
        let end =
            chunks(&mut memory, AT, &[(0x290, true), (64, true), (96, true), (32, false), (4096, true)]);
        let free = walk(&mut memory, AT, end).expect("a sound heap");
        assert_eq!(free.bytes, 96 + 4096);
    }

    #[test]
    fn a_heap_with_an_impossible_size_is_not_counted() {
        for wrong in [0, 8, 24, 40, 1 << 40, 64 | IS_MAPPED] {
            let mut memory = Words::default();
            let end = chunks(&mut memory, AT, &[(64, true), (64, true), (64, true)]);
            memory.0.insert(AT + 64 + 8, wrong);
            assert_eq!(walk(&mut memory, AT, end), None, "{wrong:#x}");
        }
    }

    #[test]
    fn heaps_of_one_arena_have_its_state_once() {
        for info in HEAP_INFO_BYTES {
            let mut memory = Words::default();
            let arena = AT + info;
            let first = aligned(arena + STATE_BYTES);
            let end = chunks(&mut memory, first, &[(64, true), (128, true), (4064 - 192, false)]);
            // A heap that is not the newest of its arena ends with a fence: a chunk of 16 bytes and an empty
            // chunk.
            memory.0.insert(end + 8, FENCE_BYTES | PREVIOUS_IS_USED);
            memory.0.insert(end + 24, PREVIOUS_IS_USED);
            memory.0.insert(AT, arena);
            memory.0.insert(AT + 16, end + 32 - AT);
            let heap = AT..AT + HEAP_BYTES;
            let (of, free) = of_heap(&mut memory, heap).expect("the first heap");
            assert_eq!((of, free.bytes), (arena, 128), "heap_info of {info}");

            let next = AT + HEAP_BYTES;
            let end = chunks(&mut memory, next + info, &[(64, true), (8192 - 64 - info, true)]);
            memory.0.insert(next, arena);
            memory.0.insert(next + 16, end - next);
            let (of, free) = of_heap(&mut memory, next..next + HEAP_BYTES).expect("the second heap");
            assert_eq!((of, free.bytes), (arena, 8192 - 64 - info), "heap_info of {info}");
        }
    }

    #[test]
    fn heaps_are_forgotten_with_their_mappings() {
        let free = FreeBytes { bytes: 64, resident_bytes: 64 };
        let mut arenas = Arenas { heaps: BTreeMap::from([(AT, (AT + 0x30, free))]), next: AT + 1 };
        assert!(arenas.read(u32::MAX, None, std::iter::empty()).is_empty());
        let mut arenas = Arenas { heaps: BTreeMap::from([(AT, (AT + 0x30, free))]), next: AT + 1 };
        // After a process has ended, the function returns the values of the latest walk.
        let heap = std::iter::once(AT..AT + HEAP_BYTES);
        assert_eq!(arenas.read(u32::MAX, None, heap), BTreeMap::from([(AT + 0x30, free)]));
    }

    #[test]
    fn a_mapping_that_is_no_heap_is_not_counted() {
        assert_eq!(of_heap(&mut Words::default(), AT..AT + HEAP_BYTES), None);
    }

    #[test]
    fn page_map_of_a_long_heap_is_read_in_pieces_until_the_time_is_up() {
        let bytes = 3 * HEAP_BYTES;
        let mut memory: Vec<u8> = Vec::with_capacity(bytes as usize);
        let first = (memory.as_ptr().addr() as u64).next_multiple_of(PAGE_BYTES);
        let heap = first..first + bytes - PAGE_BYTES;
        let touched = [0, HEAP_BYTES - PAGE_BYTES, HEAP_BYTES, 2 * HEAP_BYTES + PAGE_BYTES];
        for offset in touched {
            let place = (first + offset) as usize - memory.as_ptr().addr();
            memory.spare_capacity_mut()[place].write(1);
        }
        let pagemap = File::open("/proc/self/pagemap").expect("a process may read its own");
        let resident = |until: Instant| {
            let mut process = Process::new(std::process::id(), &pagemap, heap.clone(), until);
            let bytes = process.resident(heap.clone());
            assert!(process.entries.len() as u64 <= 8 * MOST_ENTRIES, "{}", process.entries.len());
            bytes
        };
        let soon = Instant::now() + Duration::from_secs(60);
        // The kernel may use huge pages, so more pages can be resident than the test has touched.
        let found = resident(soon).expect("there is time");
        assert!(found >= touched.len() as u64 * PAGE_BYTES && found < bytes, "{found}");
        assert_eq!(resident(Instant::now() - Duration::from_secs(1)), None);
    }
}
