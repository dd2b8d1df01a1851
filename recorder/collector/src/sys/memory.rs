//! The memory of a process by kind of mapping, from /proc/PID/smaps and /proc/PID/maps.
//!
//! The kernel holds the map lock of the process while it writes these files. So the collector spaces its
//! readings: all together take less than a thousandth of the time. For smaps, the kernel looks at every page,
//! so the collector reads smaps of a large process seldom. In between it reads maps, which has sizes but no
//! resident memory.

use crate::sys::arenas::{self, HEAP_BYTES};
use crate::sys::maps::Line;
use edleak_format::{AreaBytes, AreaId, AreaKind, MAX_AREAS, MemoryArea, SiteId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

/// The pause after a reading, as a multiple of the reading's duration. smaps and maps may each take half of a
/// thousandth of the time.
const PAUSE_PER_READING: u32 = 2000;
/// The same for the arenas of malloc. Their reading does not make the process wait, but costs processor time.
const PAUSE_PER_WALK: u32 = 500;
/// The shortest pause between two readings.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// The size of one leaf of the preload library's side table.
const LEAF_BYTES: u64 = 8 << 20;
/// The largest guard of a thread's stack, in bytes. A larger mapping without access is not such a guard.
const LARGEST_GUARD_BYTES: u64 = 64 << 10;

/// A site with fewer mapped bytes gets no area of its own.
const LEAST_SITE_BYTES: u64 = 64 << 10;
/// Maximum number of sites with an area of their own.
const MOST_SITE_AREAS: usize = 128;
/// Maximum number of arenas with an area of their own for their free memory. The others share one.
const MOST_FREE_AREAS: usize = 64;
/// The name of the area for the free memory of all other arenas.
const OTHER_ARENAS: &str = "others";

/// The part of a mapping that recorded calls of one site have made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// The length of the part.
    pub bytes: u64,
    /// The site; `None`: the trace does not have it yet.
    pub site: Option<SiteId>,
    /// Whether an allocator made the calls.
    pub is_allocator: bool,
}

/// The recorded parts of the range between two addresses.
pub(crate) type Calls<'a> = &'a dyn Fn(u64, u64) -> Vec<Part>;

/// One mapping of the process.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Mapping {
    start: u64,
    end: u64,
    /// The permissions, for example `rw-p`.
    permissions: String,
    /// A path, a name in brackets, or an empty text.
    name: String,
    resident_bytes: u64,
    proportional_bytes: u64,
    swapped_bytes: u64,
    huge_bytes: u64,
    /// Whether the mapping was made with `MAP_NORESERVE`.
    is_unreserved: bool,
}

/// Reads the areas of one process from time to time.
#[derive(Default)]
pub(crate) struct AreaReader {
    kinds: Vec<(AreaKind, String)>,
    areas: Vec<AreaBytes>,
    next: Option<Instant>,
    next_full: Option<Instant>,
    next_free: Option<Instant>,
    /// Starts of the mappings with `MAP_NORESERVE`. Only smaps shows this flag.
    unreserved: BTreeSet<u64>,
}

/// One reading of /proc.
pub(crate) struct Reading {
    mappings: Vec<Mapping>,
    /// Whether the reading comes from smaps and has resident memory.
    is_full: bool,
}

impl Reading {
    /// Every mapped range, in address order.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        self.mappings.iter().map(|mapping| (mapping.start, mapping.end)).collect()
    }
}

impl AreaReader {
    /// A reader that also has an area for the live bytes of recorded calls.
    pub(crate) fn with_calls() -> AreaReader {
        let mut reader = AreaReader::default();
        reader.add(AreaKind::Counted, String::new(), AreaBytes::ZERO);
        reader
    }

    /// A reader for a process that may end at once, such as a child of a shell. The first reading is due
    /// after a pause.
    pub(crate) fn after_pause(now: Instant) -> AreaReader {
        AreaReader { next: Some(now + LEAST_PAUSE), ..AreaReader::default() }
    }

    /// Sets the live bytes of all recorded calls.
    pub(crate) fn set_counted(&mut self, live_bytes: u64) {
        if let (Some((AreaKind::Counted, _)), Some(area)) = (self.kinds.first(), self.areas.first_mut()) {
            area.mapped_bytes = live_bytes;
        }
    }

    /// Whether the next reading of the areas is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Reads /proc if a reading is due. `None`: no reading is due, or the process has ended and the latest
    /// areas stay.
    pub(crate) fn read(&mut self, pid: u32, now: Instant) -> Option<Reading> {
        if !self.is_due(now) {
            return None;
        }
        let is_full = self.next_full.is_none_or(|next| now >= next);
        let began = Instant::now();
        let file = if is_full { "smaps" } else { "maps" };
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let pause = (began.elapsed() * PAUSE_PER_READING).max(LEAST_PAUSE);
        if is_full {
            self.next_full = Some(now + pause);
            // A reading of maps takes much less time than one of smaps. The next reading measures it.
            self.next = Some(now + LEAST_PAUSE);
        } else {
            self.next = Some(now + pause);
        }
        let mut mappings = parse(&String::from_utf8_lossy(&text));
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

    /// Computes the areas from a reading. Returns the new areas.
    pub(crate) fn take(&mut self, reading: &Reading, pid: u32, calls: Option<Calls<'_>>) -> Vec<MemoryArea> {
        let known = self.kinds.len();
        let before = self.areas.clone();
        self.areas.fill(AreaBytes::ZERO);
        let free = self.free(reading, pid);
        let is_free_read = free.is_some();
        let group = if reading.is_full { control_group(pid) } else { None };
        for (kind, name, bytes) in areas_of(&reading.mappings, calls).into_iter().chain(group) {
            self.add(kind, name, bytes);
        }
        for (name, bytes) in free.into_iter().flatten() {
            self.add(AreaKind::Free, name, bytes);
        }
        for ((was, now), (kind, _)) in before.iter().zip(&mut self.areas).zip(&self.kinds) {
            // Only a full reading shows the resident bytes of a site, so its area stays as it is in between.
            let keeps_all = matches!(kind, AreaKind::ControlGroup | AreaKind::HugePages | AreaKind::Site);
            if *kind == AreaKind::Free {
                *now = if is_free_read { *now } else { *was };
            } else if *kind == AreaKind::Counted || (!reading.is_full && keeps_all) {
                *now = *was;
            } else if !reading.is_full {
                *now = AreaBytes { mapped_bytes: now.mapped_bytes, ..*was };
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

    /// The areas that the collector records before the first slice.
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

    /// All areas at the latest reading, by id.
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
            // Beyond the limit of areas, memory with other names counts as anonymous memory.
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

    /// The free memory inside each arena, by the name of the area; `None`: no reading is due.
    fn free(&mut self, reading: &Reading, pid: u32) -> Option<Vec<(String, AreaBytes)>> {
        let began = Instant::now();
        if self.next_free.is_some_and(|next| began < next) {
            return None;
        }
        let range = |mapping: &Mapping| mapping.start..mapping.end;
        let heap = reading.mappings.iter().find(|mapping| mapping.name == "[heap]").map(range);
        let arenas = reading.mappings.iter().filter(|mapping| {
            mapping.name.is_empty()
                && mapping.permissions.starts_with("rw")
                && mapping.start.is_multiple_of(HEAP_BYTES)
        });
        let free = arenas::free_of(pid, heap, arenas.map(range));
        self.next_free = Some(began + (began.elapsed() * PAUSE_PER_WALK).max(LEAST_PAUSE));
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

fn parse(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(Line { start, end, permissions, name, .. }) = Line::parse(line) {
            let (permissions, name) = (permissions.to_owned(), name.to_owned());
            mappings.push(Mapping { start, end, permissions, name, ..Mapping::default() });
            continue;
        }
        let (Some(mapping), Some((field, value))) = (mappings.last_mut(), line.split_once(':')) else {
            continue;
        };
        let bytes = || value.trim().trim_end_matches(" kB").trim().parse::<u64>().map_or(0, |kb| kb * 1024);
        match field {
            "Rss" => mapping.resident_bytes = bytes(),
            "Pss" => mapping.proportional_bytes = bytes(),
            "Swap" => mapping.swapped_bytes = bytes(),
            "AnonHugePages" | "ShmemPmdMapped" | "FilePmdMapped" | "Shared_Hugetlb" | "Private_Hugetlb" => {
                mapping.huge_bytes += bytes();
            }
            "VmFlags" => mapping.is_unreserved = value.split_whitespace().any(|flag| flag == "nr"),
            _ => {}
        }
    }
    mappings
}

fn areas_of(mappings: &[Mapping], calls: Option<Calls<'_>>) -> Vec<(AreaKind, String, AreaBytes)> {
    let mut areas = Vec::new();
    let mut sites: BTreeMap<SiteId, AreaBytes> = BTreeMap::new();
    let mut huge_bytes = 0;
    for (index, mapping) in mappings.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| mappings.get(index));
        let Some((kind, name)) = kind_of(mapping, before, mappings.get(index + 1)) else { continue };
        let all = mapping.end - mapping.start.min(mapping.end);
        huge_bytes += mapping.huge_bytes;
        let parts = calls.map(|calls| calls(mapping.start, mapping.end)).unwrap_or_default();
        let seen = parts.iter().map(|part| part.bytes).sum::<u64>().min(all);
        // Recorded calls have made most of this mapping. So it is neither an arena of glibc nor memory of
        // edleak, although it looks like one.
        let is_guess = matches!(kind, AreaKind::Arena | AreaKind::Edleak) && mapping.name.is_empty();
        let kind = if is_guess && seen > all / 2 { AreaKind::Anonymous } else { kind };
        areas.push((kind, name.to_owned(), mapping.share(all, all)));
        if matches!(kind, AreaKind::Anonymous | AreaKind::Named) && calls.is_some() {
            if seen < all {
                areas.push((AreaKind::Unseen, name.to_owned(), mapping.share(all - seen, all)));
            }
            let of_allocators = parts.iter().filter(|part| part.is_allocator).map(|part| part.bytes).sum();
            if of_allocators > 0 {
                areas.push((AreaKind::Allocators, String::new(), mapping.share(of_allocators, all)));
            }
        }
        for part in &parts {
            if let Some(site) = part.site {
                let share = mapping.share(part.bytes, all);
                let sum = sites.entry(site).or_insert(AreaBytes::ZERO);
                sum.mapped_bytes += share.mapped_bytes;
                sum.resident_bytes += share.resident_bytes;
                sum.proportional_bytes += share.proportional_bytes;
                sum.swapped_bytes += share.swapped_bytes;
            }
        }
    }
    areas.extend(sites.into_iter().map(|(site, bytes)| (AreaKind::Site, site.0.to_string(), bytes)));
    if huge_bytes > 0 {
        let bytes = AreaBytes { mapped_bytes: huge_bytes, resident_bytes: huge_bytes, ..AreaBytes::ZERO };
        areas.push((AreaKind::HugePages, String::new(), bytes));
    }
    areas
}

impl Mapping {
    /// The sizes of a part of the mapping. The kernel shows the resident memory only for the whole mapping,
    /// so the function assumes the same share of it as of the length.
    fn share(&self, part: u64, all: u64) -> AreaBytes {
        let of = |bytes: u64| (u128::from(bytes) * u128::from(part) / u128::from(all.max(1))) as u64;
        AreaBytes {
            mapped_bytes: part,
            resident_bytes: of(self.resident_bytes),
            proportional_bytes: of(self.proportional_bytes),
            swapped_bytes: of(self.swapped_bytes),
        }
    }
}

/// The kind of a mapping; also its name, if edleak keeps names of that kind apart. `None`: the mapping
/// belongs to the kernel.
fn kind_of<'m>(
    mapping: &'m Mapping,
    before: Option<&Mapping>,
    after: Option<&Mapping>,
) -> Option<(AreaKind, &'m str)> {
    let name = mapping.name.as_str();
    let of = |kind| Some((kind, ""));
    match name {
        "" => {}
        "[heap]" => return of(AreaKind::Heap),
        _ if name.starts_with("[stack") => return of(AreaKind::Stack),
        _ if name.starts_with("[anon_shmem:") => return of(AreaKind::SharedMemory),
        _ if name.starts_with("[anon:") => {
            return Some((AreaKind::Named, name.trim_start_matches("[anon:").trim_end_matches(']')));
        }
        _ if name.starts_with('[') => return None,
        _ if name.starts_with("/memfd:edleak-session") => return of(AreaKind::Edleak),
        _ => {
            let shared = ["/memfd:", "/dev/shm/", "/dev/zero", "/SYSV", "/anon_hugepage"];
            let is_shared = shared.iter().any(|start| name.starts_with(start));
            return of(if is_shared { AreaKind::SharedMemory } else { AreaKind::File });
        }
    }
    let size = mapping.end.saturating_sub(mapping.start);
    let is_without_access = |other: &&Mapping| other.name.is_empty() && other.permissions.starts_with("---");
    let next_to = after.filter(is_without_access).filter(|after| after.start == mapping.end);
    if mapping.permissions.starts_with("---") {
        return of(AreaKind::Anonymous);
    }
    // The kernel shows the unused rest of an arena's 64 MiB as a mapping without access, and adjacent full
    // arenas as one mapping.
    let whole_end = next_to.map_or(mapping.end, |rest| rest.end);
    if mapping.is_unreserved
        && mapping.start.is_multiple_of(HEAP_BYTES)
        && whole_end.is_multiple_of(HEAP_BYTES)
    {
        return of(AreaKind::Arena);
    }
    if mapping.is_unreserved && size > 0 && size.is_multiple_of(LEAF_BYTES) {
        return of(AreaKind::Edleak);
    }
    let guard = before.filter(is_without_access).filter(|guard| guard.end == mapping.start);
    if guard.is_some_and(|guard| guard.end - guard.start <= LARGEST_GUARD_BYTES) {
        return of(AreaKind::Stack);
    }
    of(AreaKind::Anonymous)
}

/// The working set of the process's control group (version 2); `None`: it has no such group.
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

    fn kinds(text: &str) -> Vec<(AreaKind, String, u64)> {
        let areas = areas_of(&parse(text), None).into_iter();
        areas.map(|(kind, name, bytes)| (kind, name, bytes.resident_bytes)).collect()
    }

    #[test]
    fn mappings_are_told_apart_by_name_place_and_neighbour() {
        let text = "\
55d000000000-55d000021000 rw-p 00000000 00:00 0                          [heap]
Rss:                 100 kB
Pss:                  90 kB
Swap:                  8 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac sd
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
Rss:                  60 kB
VmFlags: rd wr mr mw me nr sd
7f0000200000-7f0004000000 ---p 00000000 00:00 0
VmFlags: mr mw me nr sd
7f1000000000-7f1000800000 rw-p 00000000 00:00 0
Rss:                  12 kB
VmFlags: rd wr mr mw me nr
7f1100000000-7f1100001000 ---p 00000000 00:00 0
7f1100001000-7f1100801000 rw-p 00000000 00:00 0
Rss:                  16 kB
VmFlags: rd wr mr mw me ac
7f1200000000-7f1200010000 rw-p 00000000 00:00 0
Rss:                   4 kB
7f1300000000-7f1300010000 rw-p 00000000 00:00 0                          [anon:jit code]
Rss:                  20 kB
7f1400000000-7f1400010000 rw-s 00000000 00:05 7                          /dev/shm/x y
Rss:                  24 kB
7f1500000000-7f1500010000 r-xp 00000000 08:01 7                          /usr/lib/libc.so.6
Rss:                  28 kB
7f1600000000-7f1600010000 rw-s 00000000 00:05 7                          /memfd:edleak-session (deleted)
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
Rss:                  32 kB
7ffd00100000-7ffd00102000 r-xp 00000000 00:00 0                          [vdso]
";
        let plain = |kind, kb: u64| (kind, String::new(), kb << 10);
        assert_eq!(
            kinds(text),
            [
                plain(AreaKind::Heap, 100),
                plain(AreaKind::Arena, 60),
                plain(AreaKind::Anonymous, 0),
                plain(AreaKind::Edleak, 12),
                plain(AreaKind::Anonymous, 0),
                plain(AreaKind::Stack, 16),
                plain(AreaKind::Anonymous, 4),
                (AreaKind::Named, "jit code".into(), 20 << 10),
                plain(AreaKind::SharedMemory, 24),
                plain(AreaKind::File, 28),
                plain(AreaKind::Edleak, 0),
                plain(AreaKind::Stack, 32),
                plain(AreaKind::HugePages, 2048),
            ]
        );
    }

    #[test]
    fn readings_are_a_thousandth_of_the_time_and_add_up_to_the_process() {
        let (mut reader, pid) = (AreaReader::default(), std::process::id());
        let now = Instant::now();
        let reading = reader.read(pid, now).expect("the first one is due");
        let new = reader.take(&reading, pid, None);
        assert!(reading.is_full && new.iter().any(|area| area.kind == AreaKind::File), "{new:?}");
        assert!(reader.read(pid, now + LEAST_PAUSE / 2).is_none());
        assert!(reader.next_full.is_some_and(|next| next >= now + LEAST_PAUSE));
        assert!(reader.areas().iter().any(|area| area.resident_bytes > 0), "{:?}", reader.areas());
        let before = reader.areas().to_vec();
        // For an ended process, the latest values stay.
        assert!(reader.read(u32::MAX, now + Duration::from_secs(3600)).is_none());
        assert_eq!(reader.areas(), before);
    }

    #[test]
    fn between_readings_of_smaps_only_sizes_change() {
        let (mut reader, pid) = (AreaReader::default(), std::process::id());
        let now = Instant::now();
        let reading = reader.read(pid, now).expect("the first one is due");
        reader.take(&reading, pid, None);
        reader.next_full = Some(now + Duration::from_secs(3600));
        let resident =
            |reader: &AreaReader| reader.areas().iter().map(|area| area.resident_bytes).sum::<u64>();
        let before = resident(&reader);
        let reading = reader.read(pid, now + Duration::from_secs(60)).expect("maps is due");
        assert!(!reading.is_full && reading.mappings.iter().all(|mapping| mapping.resident_bytes == 0));
        reader.take(&reading, pid, None);
        assert_eq!(resident(&reader), before);
        assert!(reader.areas().iter().any(|area| area.mapped_bytes > 0));
    }

    #[test]
    fn parts_that_calls_have_mapped_are_told_from_the_rest() {
        let text = "\
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
Rss:                 512 kB
7f1000000000-7f1004000000 rw-p 00000000 00:00 0
Rss:                1024 kB
VmFlags: rd wr mr mw me nr
7f2000000000-7f2000100000 rw-p 00000000 00:00 0                          [anon:jit]
Rss:                 256 kB
7f3000000000-7f3000100000 rw-s 00000000 00:05 7                          /dev/shm/x
Rss:                 128 kB
";
        let part = |bytes, site, is_allocator| Part { bytes, site: Some(SiteId(site)), is_allocator };
        let calls = |start: u64, _: u64| match start >> 36 {
            0x7f0 => vec![part(0x40000, 7, false), part(0x40000, 9, true)],
            0x7f1 => vec![part(0x4000000, 7, false)],
            0x7f3 => vec![part(0x80000, 8, false)],
            _ => Vec::new(),
        };
        let areas = areas_of(&parse(text), Some(&calls));
        let mut sums: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for (kind, name, bytes) in areas {
            let sum = sums.entry((format!("{kind:?}"), name)).or_default();
            *sum = (sum.0 + (bytes.mapped_bytes >> 10), sum.1 + (bytes.resident_bytes >> 10));
        }
        let found = |kind: &str, name: &str| sums.get(&(kind.to_owned(), name.to_owned())).copied();
        assert_eq!(
            found("Anonymous", ""),
            Some((1024 + 65536, 512 + 1024)),
            "an arena by looks, and mapped by calls"
        );
        assert_eq!(found("Arena", ""), None);
        assert_eq!((found("Unseen", ""), found("Unseen", "jit")), (Some((512, 256)), Some((1024, 256))));
        assert_eq!(found("Allocators", ""), Some((256, 128)));
        assert_eq!(found("Site", "7"), Some((256 + 65536, 128 + 1024)));
        assert_eq!((found("Site", "8"), found("Site", "9")), (Some((512, 64)), Some((256, 128))));
    }
}
