//! The memory of the process by kind of mapping, slice by slice.

use edleak_format::{AreaBytes, AreaId, AreaKind, Trace};
use edleak_model::growth_kind::KindBytes;

/// The memory areas at the newest slice.
#[derive(Debug)]
pub(super) struct Memory {
    /// The kind of each area, by its id; `None`: the catalog does not name the area.
    kinds: Vec<Option<AreaKind>>,
    areas: Vec<AreaBytes>,
}

impl Memory {
    pub(super) fn new(trace: &Trace) -> Self {
        let mut kinds = Vec::new();
        for area in trace.memory_areas() {
            let index = area.id.0 as usize;
            if index < edleak_format::MAX_AREAS {
                kinds.resize(kinds.len().max(index + 1), None);
                kinds[index] = Some(area.kind);
            }
        }
        Self { kinds, areas: Vec::new() }
    }

    /// Adds the areas of a slice. The first slice of a block names every area.
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

    /// Resident and swapped bytes by kind; `None`: before the first reading.
    pub(super) fn kinds(&self) -> Option<KindBytes> {
        if self.areas.is_empty() {
            return None;
        }
        let mut sum = KindBytes::default();
        for (kind, bytes) in self.kinds.iter().zip(&self.areas) {
            let field = match kind {
                Some(AreaKind::Heap) => &mut sum.heap,
                Some(AreaKind::Arena) => &mut sum.arenas,
                Some(AreaKind::Anonymous | AreaKind::Named) => &mut sum.anonymous,
                Some(AreaKind::Stack) => &mut sum.stacks,
                Some(AreaKind::SharedMemory) => &mut sum.shared,
                _ => continue,
            };
            *field = field.saturating_add(bytes.resident_bytes).saturating_add(bytes.swapped_bytes);
        }
        Some(sum)
    }
}
