//! Measures the memory of a process by kind of mapping. The sizes come from /proc/PID/smaps and
//! /proc/PID/maps.
//!
//! While the kernel creates the text of smaps or maps, it holds the map lock of the process, so the process
//! cannot map memory. So the collector waits so long between two readings that all readings together use less
//! than 1/1000 of the elapsed time. For smaps, the kernel checks every page, so the collector seldom reads
//! smaps of a large process. Between two readings of smaps, the collector reads maps, which contains the
//! sizes of the mappings but not their resident memory.

mod mappings;

use crate::sys::arenas::{Arenas, HEAP_BYTES};
use crate::sys::maps;
use edleak_format::{AreaBytes, AreaId, AreaKind, MAX_AREAS, MemoryArea};
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use mappings::Mapping;
pub(crate) use mappings::{Calls, Part};

/// After a reading, the collector waits for this number times the processor time of the reading. So the
/// readings of smaps use at most 1/2000 of the elapsed time, and so do the readings of maps.
const PAUSE_PER_READING: u32 = 2000;
/// After a walk over the arenas of malloc, the collector waits for this number times the processor time of
/// the walk. This number is lower than `PAUSE_PER_READING`, because a walk over the arenas does not make the
/// process wait.
const PAUSE_PER_WALK: u32 = 500;
/// The shortest pause between two readings of smaps or maps.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// If a site has at least this number of mapped bytes, the collector records the memory of this site as a
/// separate memory area.
const LEAST_SITE_BYTES: u64 = 64 << 10;
/// Maximum number of sites whose memory is recorded as a separate memory area.
const MOST_SITE_AREAS: usize = 128;
/// Maximum number of arenas whose free memory is recorded as a separate memory area. The free memory of all
/// arenas beyond this number is recorded as one common area.
const MOST_FREE_AREAS: usize = 64;
/// The name of the common area for the free memory of all arenas beyond `MOST_FREE_AREAS`.
const OTHER_ARENAS: &str = "others";

/// Reads the sizes of the memory areas of one process from time to time. A memory area is all memory of one
/// kind, such as the heap, the stacks or the memory of one site.
#[derive(Default)]
pub(crate) struct AreaReader {
    kinds: Vec<(AreaKind, String)>,
    areas: Vec<AreaBytes>,
    next: Option<Instant>,
    next_full: Option<Instant>,
    next_free: Option<Instant>,
    arenas: Arenas,
    /// The start addresses of the mappings that were made with `MAP_NORESERVE`. Only smaps shows the flag
    /// `MAP_NORESERVE`.
    unreserved: BTreeSet<u64>,
}

/// The result of one reading of smaps or maps.
pub(crate) struct Reading {
    mappings: Vec<Mapping>,
    /// Whether the reading comes from smaps; only smaps contains the resident memory.
    is_full: bool,
}

impl Reading {
    /// The address range of every mapping, sorted by address.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        self.mappings.iter().map(|mapping| (mapping.start, mapping.end)).collect()
    }
}

impl AreaReader {
    /// Makes a reader with an additional memory area: the live bytes of the recorded calls that map memory.
    pub(crate) fn with_calls() -> AreaReader {
        let mut reader = AreaReader::default();
        reader.add(AreaKind::Counted, String::new(), AreaBytes::ZERO);
        reader
    }

    /// Makes a reader for a process that may end soon, such as a child process of a shell. The reader makes
    /// its first reading after a pause.
    pub(crate) fn after_pause(now: Instant) -> AreaReader {
        AreaReader { next: Some(now + LEAST_PAUSE), ..AreaReader::default() }
    }

    /// Sets the live bytes of all recorded calls that map memory.
    pub(crate) fn set_counted(&mut self, live_bytes: u64) {
        if let (Some((AreaKind::Counted, _)), Some(area)) = (self.kinds.first(), self.areas.first_mut()) {
            area.mapped_bytes = live_bytes;
        }
    }

    /// Whether it is time to read the sizes of the memory areas again.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Reads smaps or maps if a reading is due. If no reading is due or the process has ended, the function
    /// returns `None` and does not change the areas.
    pub(crate) fn read(&mut self, pid: u32, now: Instant) -> Option<Reading> {
        if !self.is_due(now) {
            return None;
        }
        let is_full = self.next_full.is_none_or(|next| now >= next);
        let began = processor_time();
        let text = maps::read(pid, if is_full { "smaps" } else { "maps" }).unwrap_or_default();
        let cost = processor_time().saturating_sub(began);
        let pause = (cost * PAUSE_PER_READING).max(LEAST_PAUSE);
        if is_full {
            self.next_full = Some(now + pause);
            // Reading maps takes much less time than reading smaps. So the pause before the next reading of
            // maps is short. The collector computes the pause after a reading of maps from the time that this
            // reading takes.
            self.next = Some(now + LEAST_PAUSE);
        } else {
            self.next = Some(now + pause);
        }
        let mut mappings = mappings::parse(&String::from_utf8_lossy(&text));
        if mappings.is_empty() {
            return None;
        }
        if is_full {
            let unreserved = mappings.iter().filter(|mapping| mapping.is_unreserved);
            self.unreserved = unreserved.map(|mapping| mapping.start).collect();
        }
        for mapping in &mut mappings {
            mapping.is_unreserved = self.unreserved.contains(&mapping.start);
        }
        Some(Reading { mappings, is_full })
    }

    /// Computes the sizes of all memory areas from a reading of smaps or maps. Returns the memory areas that
    /// did not exist before this reading.
    pub(crate) fn take(&mut self, reading: &Reading, pid: u32, calls: Option<Calls<'_>>) -> Vec<MemoryArea> {
        let known = self.kinds.len();
        let before = self.areas.clone();
        self.areas.fill(AreaBytes::ZERO);
        let free = self.free(reading, pid);
        let is_free_read = free.is_some();
        let group = if reading.is_full { control_group(pid) } else { None };
        for (kind, name, bytes) in mappings::areas_of(&reading.mappings, calls).into_iter().chain(group) {
            self.add(kind, name, bytes);
        }
        for (name, bytes) in free.into_iter().flatten() {
            self.add(AreaKind::Free, name, bytes);
        }
        for ((was, now), (kind, _)) in before.iter().zip(&mut self.areas).zip(&self.kinds) {
            // Only smaps shows the resident bytes of a site. So after a reading of maps, the area of a site
            // keeps the sizes that it had before.
            let keeps_all = matches!(kind, AreaKind::ControlGroup | AreaKind::HugePages | AreaKind::Site);
            if *kind == AreaKind::Free {
                *now = if is_free_read { *now } else { *was };
            } else if *kind == AreaKind::Counted || (!reading.is_full && keeps_all) {
                *now = *was;
            } else if !reading.is_full {
                *now = AreaBytes { mapped_bytes: now.mapped_bytes, ..*was };
            }
        }
        // If a site first appears in a reading of maps, the sizes of its area stay 0 until the next reading
        // of smaps. An area with mapped bytes but without resident bytes would look as if the program had
        // never used its memory.
        for (now, (kind, _)) in self.areas.iter_mut().zip(&self.kinds).skip(known) {
            if *kind == AreaKind::Site && !reading.is_full {
                *now = AreaBytes::ZERO;
            }
        }
        let new = self.kinds.iter().enumerate().skip(known);
        new.map(|(index, (kind, name))| MemoryArea {
            id: AreaId(index as u32),
            kind: *kind,
            name: name.clone(),
        })
        .collect()
    }

    /// The memory areas that the collector records before the first slice.
    pub(crate) fn first_areas(&self) -> Vec<MemoryArea> {
        let first = self.kinds.iter().enumerate();
        first
            .map(|(index, (kind, name))| MemoryArea {
                id: AreaId(index as u32),
                kind: *kind,
                name: name.clone(),
            })
            .collect()
    }

    /// The sizes of all memory areas at the latest reading, by the id of the area.
    pub(crate) fn areas(&self) -> &[AreaBytes] {
        &self.areas
    }

    fn add(&mut self, kind: AreaKind, name: String, bytes: AreaBytes) {
        let found = self.kinds.iter().position(|(one, of)| *one == kind && *of == name);
        let index = match found {
            Some(index) => index,
            None if kind == AreaKind::Site && !self.has_room_for_site(bytes) => return,
            None if self.kinds.len() + 1 >= MAX_AREAS && kind == AreaKind::Unseen && !name.is_empty() => {
                return self.add(AreaKind::Unseen, String::new(), bytes);
            }
            None if kind == AreaKind::Free && !self.has_room_for_arena(&name) => {
                return self.add(kind, OTHER_ARENAS.to_owned(), bytes);
            }
            // If there are too many memory areas, a named mapping without an area of its own is counted as
            // anonymous memory.
            None if self.kinds.len() + 1 >= MAX_AREAS && kind == AreaKind::Named => {
                return self.add(AreaKind::Anonymous, String::new(), bytes);
            }
            None => {
                self.kinds.push((kind, name));
                self.areas.push(AreaBytes::ZERO);
                self.kinds.len() - 1
            }
        };
        let sum = &mut self.areas[index];
        sum.mapped_bytes += bytes.mapped_bytes;
        sum.resident_bytes += bytes.resident_bytes;
        sum.proportional_bytes += bytes.proportional_bytes;
        sum.swapped_bytes += bytes.swapped_bytes;
    }
}

impl AreaReader {
    fn has_room_for_site(&self, bytes: AreaBytes) -> bool {
        let of_sites = self.kinds.iter().filter(|(kind, _)| *kind == AreaKind::Site).count();
        bytes.mapped_bytes >= LEAST_SITE_BYTES
            && of_sites < MOST_SITE_AREAS
            && self.kinds.len() + 2 < MAX_AREAS
    }

    fn has_room_for_arena(&self, name: &str) -> bool {
        let of_arenas = self.kinds.iter().filter(|(kind, _)| *kind == AreaKind::Free).count();
        name == OTHER_ARENAS || (of_arenas < MOST_FREE_AREAS && self.kinds.len() + 2 < MAX_AREAS)
    }

    /// The free memory inside each arena, with the name of its area; `None`: no reading is due.
    fn free(&mut self, reading: &Reading, pid: u32) -> Option<Vec<(String, AreaBytes)>> {
        let (now, began) = (Instant::now(), processor_time());
        if self.next_free.is_some_and(|next| now < next) {
            return None;
        }
        let range = |mapping: &Mapping| mapping.start..mapping.end;
        let heap = reading.mappings.iter().find(|mapping| mapping.name == "[heap]").map(range);
        let arenas = reading.mappings.iter().filter(|mapping| {
            mapping.name.is_empty()
                && mapping.permissions.starts_with("rw")
                && mapping.start.is_multiple_of(HEAP_BYTES)
        });
        let free = self.arenas.read(pid, heap, arenas.map(range));
        let cost = processor_time().saturating_sub(began);
        self.next_free = Some(now + (cost * PAUSE_PER_WALK).max(LEAST_PAUSE));
        let named = free.into_iter().map(|(arena, free)| {
            let name = if arena == 0 { String::new() } else { format!("{arena:#x}") };
            let bytes = AreaBytes {
                mapped_bytes: free.bytes,
                resident_bytes: free.resident_bytes,
                ..AreaBytes::ZERO
            };
            (name, bytes)
        });
        Some(named.collect())
    }
}

/// The processor time that this thread has used, from which the collector computes its pauses. With the
/// elapsed time, the pauses would be too long: on a busy machine, the elapsed time includes the time in which
/// this thread waits for a processor and does not delay the process.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// The working set of the process's control group (version 2): the memory of the group without the inactive
/// file cache. `None`: the process is in no control group of version 2.
fn control_group(pid: u32) -> Option<(AreaKind, String, AreaBytes)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let directory = format!("/sys/fs/cgroup{path}");
    let current: u64 = fs::read_to_string(format!("{directory}/memory.current")).ok()?.trim().parse().ok()?;
    let stat = fs::read_to_string(format!("{directory}/memory.stat")).unwrap_or_default();
    let inactive = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let inactive: u64 = inactive.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    let bytes = AreaBytes { resident_bytes: current.saturating_sub(inactive), ..AreaBytes::ZERO };
    Some((AreaKind::ControlGroup, String::new(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::mappings::Part;
    use edleak_format::SiteId;

    #[test]
    fn second_reading_waits_and_an_ended_process_keeps_its_last_values() {
        let (mut reader, pid) = (AreaReader::default(), std::process::id());
        let now = Instant::now();
        let reading = reader.read(pid, now).expect("the first one is due");
        let new = reader.take(&reading, pid, None);
        assert!(reading.is_full && new.iter().any(|area| area.kind == AreaKind::File), "{new:?}");
        assert!(reader.read(pid, now + LEAST_PAUSE / 2).is_none());
        assert!(reader.next_full.is_some_and(|next| next >= now + LEAST_PAUSE));
        assert!(reader.areas().iter().any(|area| area.resident_bytes > 0), "{:?}", reader.areas());
        let before = reader.areas().to_vec();
        // After a process has ended, the reader keeps the areas of the latest reading.
        assert!(reader.read(u32::MAX, now + Duration::from_secs(3600)).is_none());
        assert_eq!(reader.areas(), before);
    }

    #[test]
    fn between_readings_of_smaps_only_sizes_change() {
        let (mut reader, pid) = (AreaReader::default(), std::process::id());
        let now = Instant::now();
        let reading = reader.read(pid, now).expect("the first one is due");
        reader.take(&reading, pid, None);
        let later = Some(now + Duration::from_secs(3600));
        (reader.next_full, reader.next_free) = (later, later);
        let resident =
            |reader: &AreaReader| reader.areas().iter().map(|area| area.resident_bytes).sum::<u64>();
        let before = resident(&reader);
        let reading = reader.read(pid, now + Duration::from_secs(60)).expect("maps is due");
        assert!(!reading.is_full && reading.mappings.iter().all(|mapping| mapping.resident_bytes == 0));
        reader.take(&reading, pid, None);
        assert_eq!(resident(&reader), before);
        assert!(reader.areas().iter().any(|area| area.mapped_bytes > 0));
    }

    // In this test, the mapping of a site appears after a reading of smaps, and the process may end before
    // the next reading of smaps.
    #[test]
    fn a_site_has_no_area_before_its_resident_bytes_are_known() {
        let (mut reader, pid) = (AreaReader::with_calls(), std::process::id());
        let now = Instant::now();
        let calls =
            |start, end: u64| vec![Part { bytes: end - start, site: Some(SiteId(7)), is_allocator: false }];
        let mapped = |reader: &AreaReader| {
            let all = reader.kinds.iter().zip(&reader.areas);
            all.filter(|((kind, _), _)| *kind == AreaKind::Site)
                .map(|(_, area)| area.mapped_bytes)
                .sum::<u64>()
        };
        let reading = reader.read(pid, now).expect("the first one is due");
        reader.take(&reading, pid, None);
        reader.next_full = Some(now + Duration::from_secs(3600));
        let maps = reader.read(pid, now + Duration::from_secs(60)).expect("maps is due");
        assert!(!maps.is_full);
        reader.take(&maps, pid, Some(&calls));
        assert_eq!(mapped(&reader), 0);
        let smaps = reader.read(pid, now + Duration::from_secs(7200)).expect("smaps is due");
        reader.take(&smaps, pid, Some(&calls));
        assert!(mapped(&reader) > 0);
    }
}
