//! Parses the mappings of a process, and finds the kind of each mapping from its name, its address and the
//! neighbouring mappings.

use crate::sys::arenas::HEAP_BYTES;
use crate::sys::maps::Line;
use edleak_format::{AreaBytes, AreaKind, SiteId};
use std::collections::BTreeMap;

/// The size in bytes of one leaf (part) of the preload library's side table.
const LEAF_BYTES: u64 = 8 << 20;
/// The maximum size in bytes of the guard of a thread's stack. If a mapping without access is larger, it is
/// not the guard of a stack.
const LARGEST_GUARD_BYTES: u64 = 64 << 10;

/// A part of a mapping that one site has mapped with recorded calls, such as mmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// The length of the part, in bytes.
    pub(crate) bytes: u64,
    /// The site whose calls mapped this part; `None`: the trace does not contain the site yet.
    pub(crate) site: Option<SiteId>,
    /// Whether the site whose calls mapped this part is in an allocator.
    pub(crate) is_allocator: bool,
}

/// A function that returns those parts of the range between two addresses that recorded calls have mapped.
pub(crate) type Calls<'a> = &'a dyn Fn(u64, u64) -> Vec<Part>;

/// One mapping of the process, with its sizes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// The permissions, for example `rw-p`.
    pub(super) permissions: String,
    /// The path of the mapped file, a name in brackets such as `[heap]`, or an empty text.
    pub(super) name: String,
    pub(super) resident_bytes: u64,
    pub(super) proportional_bytes: u64,
    pub(super) swapped_bytes: u64,
    pub(super) huge_bytes: u64,
    /// Whether the mapping was made with `MAP_NORESERVE`.
    pub(super) is_unreserved: bool,
}

pub(super) fn parse(text: &str) -> Vec<Mapping> {
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

pub(super) fn areas_of(mappings: &[Mapping], calls: Option<Calls<'_>>) -> Vec<(AreaKind, String, AreaBytes)> {
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
        // If recorded calls of the program have mapped most of this mapping, the mapping is neither an arena
        // of glibc nor memory of edleak, even if its size and address look like it.
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
    /// The mapped and resident bytes of a part of the mapping. The kernel shows the resident memory only for
    /// the whole mapping, so the function assumes that it is spread evenly over the mapping.
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

/// The kind of a mapping, and its name if edleak keeps a separate area for each name of this kind. `None`:
/// the mapping belongs to the kernel.
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
        _ if name.starts_with("/memfd:edleak-") => return of(AreaKind::Edleak),
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
    // An arena of glibc takes up 64 MiB of address space. The kernel shows the unused rest of an arena as a
    // mapping without access, and shows adjacent full arenas as one mapping.
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
