//! The memory of a process by kind of mapping, from /proc/PID/smaps.
//!
//! The kernel holds the map lock of the process while it writes smaps. So the collector spaces the readings
//! such that they take less than a thousandth of the time.

use crate::sys::maps::Line;
use edleak_format::{AreaBytes, AreaId, AreaKind, MAX_AREAS, MemoryArea};
use std::fs;
use std::time::{Duration, Instant};

/// The pause after a reading is this many times the duration of the reading.
const PAUSE_PER_READING: u32 = 1000;
/// The shortest pause between two readings.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// An arena of glibc begins at a multiple of this size and has at most this many bytes (`HEAP_MAX_SIZE`).
const ARENA_BYTES: u64 = 64 << 20;
/// The size of one leaf of the preload library's side table.
const LEAF_BYTES: u64 = 8 << 20;
/// The largest guard of a thread's stack, in bytes. A larger mapping without access is not such a guard.
const LARGEST_GUARD_BYTES: u64 = 64 << 10;

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
}

impl AreaReader {
    /// Whether the next reading of the areas is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Reads the areas if a reading is due; returns the new areas.
    pub(crate) fn refresh(&mut self, pid: u32, now: Instant) -> Vec<MemoryArea> {
        if !self.is_due(now) {
            return Vec::new();
        }
        let began = Instant::now();
        let text = fs::read(format!("/proc/{pid}/smaps")).unwrap_or_default();
        let took = began.elapsed();
        self.next = Some(now + (took * PAUSE_PER_READING).max(LEAST_PAUSE));
        let mappings = parse(&String::from_utf8_lossy(&text));
        // An ended process has no mappings, so the latest areas stay.
        if mappings.is_empty() {
            return Vec::new();
        }
        let known = self.kinds.len();
        self.areas.fill(AreaBytes::ZERO);
        for (kind, name, bytes) in areas_of(&mappings).into_iter().chain(control_group(pid)) {
            self.add(kind, name, bytes);
        }
        let new = self.kinds.iter().enumerate().skip(known);
        new.map(|(index, (kind, name))| MemoryArea {
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

    /// Resident and swapped bytes of the areas of a kind.
    pub(crate) fn bytes_of(&self, kind: AreaKind) -> u64 {
        let of_kind = self.kinds.iter().zip(&self.areas).filter(|((one, _), _)| *one == kind);
        of_kind.map(|(_, bytes)| bytes.resident_bytes + bytes.swapped_bytes).sum()
    }

    fn add(&mut self, kind: AreaKind, name: String, bytes: AreaBytes) {
        let found = self.kinds.iter().position(|(one, of)| *one == kind && *of == name);
        let index = match found {
            Some(index) => index,
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

fn areas_of(mappings: &[Mapping]) -> Vec<(AreaKind, String, AreaBytes)> {
    let mut areas = Vec::new();
    let mut huge_bytes = 0;
    for (index, mapping) in mappings.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| mappings.get(index));
        let Some((kind, name)) = kind_of(mapping, before, mappings.get(index + 1)) else { continue };
        let bytes = AreaBytes {
            mapped_bytes: mapping.end - mapping.start.min(mapping.end),
            resident_bytes: mapping.resident_bytes,
            proportional_bytes: mapping.proportional_bytes,
            swapped_bytes: mapping.swapped_bytes,
        };
        areas.push((kind, name.to_owned(), bytes));
        huge_bytes += mapping.huge_bytes;
    }
    if huge_bytes > 0 {
        let bytes = AreaBytes { mapped_bytes: huge_bytes, resident_bytes: huge_bytes, ..AreaBytes::ZERO };
        areas.push((AreaKind::HugePages, String::new(), bytes));
    }
    areas
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
        _ if name.starts_with("/memfd:edleak-session") => return of(AreaKind::Recorder),
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
        && mapping.start.is_multiple_of(ARENA_BYTES)
        && whole_end.is_multiple_of(ARENA_BYTES)
    {
        return of(AreaKind::Arena);
    }
    if mapping.is_unreserved && size > 0 && size.is_multiple_of(LEAF_BYTES) {
        return of(AreaKind::Recorder);
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
        let areas = areas_of(&parse(text)).into_iter();
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
                plain(AreaKind::Recorder, 12),
                plain(AreaKind::Anonymous, 0),
                plain(AreaKind::Stack, 16),
                plain(AreaKind::Anonymous, 4),
                (AreaKind::Named, "jit code".into(), 20 << 10),
                plain(AreaKind::SharedMemory, 24),
                plain(AreaKind::File, 28),
                plain(AreaKind::Recorder, 0),
                plain(AreaKind::Stack, 32),
                plain(AreaKind::HugePages, 2048),
            ]
        );
    }

    #[test]
    fn readings_are_a_thousandth_of_the_time_and_add_up_to_the_process() {
        let (mut reader, pid) = (AreaReader::default(), std::process::id());
        let now = Instant::now();
        let new = reader.refresh(pid, now);
        assert!(new.iter().any(|area| area.kind == AreaKind::File), "{new:?}");
        assert!(reader.refresh(pid, now + LEAST_PAUSE / 2).is_empty());
        assert!(reader.next.is_some_and(|next| next >= now + LEAST_PAUSE));
        let resident = reader.bytes_of(AreaKind::Heap) + reader.bytes_of(AreaKind::Anonymous);
        assert!(resident > 0);
        let before = reader.areas().to_vec();
        // For an ended process, the reader keeps the latest values.
        assert!(reader.refresh(u32::MAX, now + Duration::from_secs(3600)).is_empty());
        assert_eq!(reader.areas(), before);
    }
}
