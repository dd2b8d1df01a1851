//! How a slice stores the memory areas that changed since the previous slice.
//!
//! The areas are stored as a sequence of varints. The first varint is the number of changed areas. After this
//! number, each changed area has five varints. The first of an area's five varints is the id of the area,
//! minus the id of the previous changed area, minus 1 (for the first changed area: the id itself). The other
//! four varints are for the mapped, the resident, the proportional and the swapped bytes of the area. Each of
//! these four varints is the difference from the previous slice, in zig-zag encoding.

use crate::ids::AreaId;
use crate::layout::varint::{put, take, unzigzag, zigzag};
use crate::memory::{AreaBytes, MAX_AREAS};

/// The sizes of all areas in one slice.
#[derive(Clone, Default, Debug)]
pub(crate) struct Areas {
    now: Vec<AreaBytes>,
    changed: Vec<(AreaId, AreaBytes)>,
}

impl Areas {
    /// Sets all areas to zero.
    pub(crate) fn clear(&mut self) {
        self.now.clear();
        self.changed.clear();
    }

    /// The areas whose sizes changed in the latest slice.
    pub(crate) fn changed(&self) -> &[(AreaId, AreaBytes)] {
        &self.changed
    }

    pub(crate) fn all(&self) -> &[AreaBytes] {
        &self.now
    }

    /// Starts a slice. At first the slice has no changed areas; `decode` adds them.
    pub(crate) fn begin_slice(&mut self) {
        self.changed.clear();
    }

    /// Sets the sizes of the areas that changed in one slice.
    pub(crate) fn set(&mut self, changed: &[(AreaId, AreaBytes)]) {
        for &(AreaId(id), bytes) in changed {
            let index = id as usize;
            if index >= MAX_AREAS {
                continue;
            }
            if index >= self.now.len() {
                self.now.resize(index + 1, AreaBytes::ZERO);
            }
            self.now[index] = bytes;
        }
    }

    /// Writes the difference between `now` and the previous slice, and stores `now`. If nothing changed,
    /// `encode` writes nothing and returns `false`.
    pub(crate) fn encode(&mut self, now: &[AreaBytes], out: &mut Vec<u8>) -> bool {
        let now = &now[..now.len().min(MAX_AREAS)];
        let gone = std::iter::repeat_n(&AreaBytes::ZERO, self.now.len().saturating_sub(now.len()));
        let was = |index: usize| self.now.get(index).copied().unwrap_or(AreaBytes::ZERO);
        let all = now.iter().chain(gone).enumerate();
        let changed: Vec<(usize, AreaBytes)> = all
            .map(|(index, bytes)| (index, *bytes))
            .filter(|(index, bytes)| was(*index) != *bytes)
            .collect();
        if changed.is_empty() {
            return false;
        }
        put(out, changed.len() as u64);
        let mut next = 0;
        for (index, bytes) in &changed {
            put(out, (index - next) as u64);
            next = index + 1;
            for (now, was) in bytes.fields().into_iter().zip(was(*index).fields()) {
                put(out, zigzag(now.wrapping_sub(was)));
            }
        }
        self.now.clear();
        self.now.extend_from_slice(now);
        true
    }

    /// Reads the bytes that [`Areas::encode`] wrote. Call this function only for a slice in which `encode`
    /// wrote something. `None`: the bytes are damaged.
    pub(crate) fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        self.changed.clear();
        let mut next = 0u64;
        let count = take(bytes)?;
        if count == 0 || count > MAX_AREAS as u64 {
            return None;
        }
        for _ in 0..count {
            let id = next.checked_add(take(bytes)?).filter(|&id| id < MAX_AREAS as u64)?;
            next = id + 1;
            let index = id as usize;
            if index >= self.now.len() {
                self.now.resize(index + 1, AreaBytes::ZERO);
            }
            let mut fields = self.now[index].fields();
            for field in &mut fields {
                *field = field.wrapping_add(unzigzag(take(bytes)?));
            }
            self.now[index] = AreaBytes::of(fields);
            self.changed.push((AreaId(id as u32), self.now[index]));
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_areas_survive(
            slices in prop::collection::vec(prop::collection::vec(any::<[u64; 4]>(), 0..9), 0..9),
        ) {
            let (mut writer, mut reader, mut out) = (Areas::default(), Areas::default(), Vec::new());
            for slice in slices {
                let now: Vec<AreaBytes> = slice.into_iter().map(AreaBytes::of).collect();
                out.clear();
                if writer.encode(&now, &mut out) {
                    let mut rest = &out[..];
                    prop_assert_eq!(reader.decode(&mut rest), Some(()));
                    prop_assert!(rest.is_empty());
                }
                let trimmed = |all: &[AreaBytes]| {
                    let end = all.iter().rposition(|one| *one != AreaBytes::ZERO).map_or(0, |last| last + 1);
                    all[..end].to_vec()
                };
                prop_assert_eq!(trimmed(&reader.now), trimmed(&now));
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _unsound = Areas::default().decode(&mut &bytes[..]);
        }
    }
}
