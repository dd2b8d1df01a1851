//! Collects the resident and swapped memory of the process at each slice, separately for each kind of
//! mapping.

use edleak_format::{AreaBytes, AreaId, AreaKind, Trace};
use edleak_model::process_series::{FreeBytes, KindBytes};

/// The mappings of a site at one reading of /proc.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct SiteBytes {
    /// Number of bytes of address space in the mappings.
    pub(crate) mapped: u64,
    /// Number of resident and swapped bytes in the mappings.
    pub(crate) held: u64,
}

impl SiteBytes {
    /// Adds the bytes of another site to the bytes of this site.
    pub(crate) fn plus(self, other: SiteBytes) -> SiteBytes {
        SiteBytes {
            mapped: self.mapped.saturating_add(other.mapped),
            held: self.held.saturating_add(other.held),
        }
    }
}

/// Resident and swapped bytes of single sites, and of anonymous memory that no recorded call mapped. The
/// collector read these bytes from /proc; this struct has them at the first and at the last reading of the
/// judged record.
#[derive(Clone, Default, Debug)]
pub(crate) struct MemoryEnds {
    /// For each site that maps memory, its id and its mappings at the first and at the last reading of /proc.
    /// The first reading is 0 if the site was too small at that time for a separate area in the trace.
    pub(crate) sites: Vec<(u32, [SiteBytes; 2])>,
    /// Anonymous memory at the end that no recorded call mapped: for each named part of it, the name and the
    /// bytes.
    pub(crate) unseen: Vec<(String, u64)>,
    /// Free memory inside the arenas of malloc at the end; `None`: not recorded.
    pub(crate) free: Option<FreeBytes>,
}

/// The memory areas at the newest slice.
#[derive(Debug)]
pub(super) struct Memory {
    /// The kind of each memory area; the index is the id of the area. `None`: the trace has no record of an
    /// area with this id.
    kinds: Vec<Option<AreaKind>>,
    names: Vec<String>,
    areas: Vec<AreaBytes>,
    /// Whether the recorder counted the calls that map memory, such as mmap.
    has_calls: bool,
    /// The numbers of bytes in each memory area at two slices of the judged record, the first one and the
    /// newest one; `None`: no slice of the judged record has been added yet.
    ends: Option<[Vec<SiteBytes>; 2]>,
}

impl Memory {
    pub(super) fn new(trace: &Trace) -> Self {
        let (mut kinds, mut names) = (Vec::new(), Vec::new());
        for area in trace.memory_areas() {
            let index = area.id.0 as usize;
            if index < edleak_format::MAX_AREAS {
                kinds.resize(kinds.len().max(index + 1), None);
                kinds[index] = Some(area.kind);
                names.resize(kinds.len(), String::new());
                names[index].clone_from(&area.name);
            }
        }
        Self { kinds, names, areas: Vec::new(), has_calls: trace.mappings().is_some(), ends: None }
    }

    /// Stores the memory areas that changed in a slice. The first slice of a block contains every area, so
    /// the function replaces the whole list at this slice.
    pub(super) fn slice(&mut self, begins_block: bool, changed: &[(AreaId, AreaBytes)]) {
        if begins_block {
            self.areas.clear();
        }
        for &(AreaId(id), bytes) in changed {
            let index = id as usize;
            self.areas.resize(self.areas.len().max(index + 1), AreaBytes::ZERO);
            self.areas[index] = bytes;
        }
    }

    /// Counts the newest slice as a part of the judged record, and stores its memory as the newest memory.
    pub(super) fn count(&mut self) {
        if !self.is_read() {
            return;
        }
        let of = |bytes: &AreaBytes| SiteBytes { mapped: bytes.mapped_bytes, held: held(bytes) };
        let now: Vec<SiteBytes> = self.areas.iter().map(of).collect();
        match &mut self.ends {
            Some([_, last]) => *last = now,
            None => self.ends = Some([now.clone(), now]),
        }
    }

    /// Returns two kinds of memory at the first and the last slice of the judged record: the memory of each
    /// site that maps memory, and anonymous memory that no recorded call mapped.
    pub(super) fn ends(&self) -> MemoryEnds {
        let mut ends = MemoryEnds::default();
        let Some([first, last]) = &self.ends else { return ends };
        for (index, kind) in self.kinds.iter().enumerate() {
            let at = |all: &[SiteBytes]| all.get(index).copied().unwrap_or_default();
            let name = self.names.get(index).map_or("", String::as_str);
            match kind {
                Some(AreaKind::Site) => {
                    ends.sites.extend(name.parse().ok().map(|id: u32| (id, [at(first), at(last)])));
                }
                Some(AreaKind::Unseen) => ends.unseen.push((name.to_owned(), at(last).held)),
                Some(AreaKind::Free) => {
                    ends.free.get_or_insert_default().add(name.is_empty(), at(last).held);
                }
                _ => {}
            }
        }
        ends
    }

    /// Whether the numbers of at least one memory area are from a reading of /proc; false if all numbers are
    /// from recorded calls.
    fn is_read(&self) -> bool {
        let of_proc =
            self.kinds.iter().zip(&self.areas).filter(|(kind, _)| **kind != Some(AreaKind::Counted));
        of_proc.into_iter().any(|(_, bytes)| *bytes != AreaBytes::ZERO)
    }

    /// Live bytes (address space) of all sites that map memory.
    pub(super) fn counted_bytes(&self) -> u64 {
        let counted =
            self.kinds.iter().zip(&self.areas).filter(|(kind, _)| **kind == Some(AreaKind::Counted));
        counted.map(|(_, bytes)| bytes.mapped_bytes).sum()
    }

    /// Resident and swapped bytes by kind of mapping; `None`: /proc has not been read yet.
    pub(super) fn kinds(&self) -> Option<KindBytes> {
        if !self.is_read() {
            return None;
        }
        let mut sum = KindBytes { has_calls: self.has_calls, ..KindBytes::default() };
        for (kind, bytes) in self.kinds.iter().zip(&self.areas) {
            let field = match kind {
                Some(AreaKind::Heap) => &mut sum.heap,
                Some(AreaKind::Arena) => &mut sum.arenas,
                Some(AreaKind::Anonymous | AreaKind::Named) => &mut sum.anonymous,
                Some(AreaKind::Stack) => &mut sum.stacks,
                Some(AreaKind::SharedMemory) => &mut sum.shared,
                Some(AreaKind::Unseen) => &mut sum.unseen,
                Some(AreaKind::Allocators) => &mut sum.allocators,
                _ => continue,
            };
            *field = field.saturating_add(held(bytes));
        }
        Some(sum)
    }
}

/// Resident and swapped bytes of a memory area.
fn held(bytes: &AreaBytes) -> u64 {
    bytes.resident_bytes.saturating_add(bytes.swapped_bytes)
}
