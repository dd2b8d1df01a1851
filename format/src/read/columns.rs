//! A decompressed block of slices that can be read site by site. [`Columns`] lists the undamaged slices of
//! the block and the positions of their numbers.
//!
//! A payload is stored by column and plane, and a plane holds the bytes of all slices in order
//! ([`crate::layout::delta`]). To read a few sites of every slice, a reader must know where each slice begins
//! in each plane. `offsets` has one entry of four bytes for each slice and each plane that the slice uses. A
//! slice has at least one byte in each plane that it uses, so the offsets take at most four times the memory
//! of the payload.

use crate::ids::{AreaId, SiteId};
use crate::layout::delta::{COLUMNS, Encoder, MAX_SITES, PLANES, SliceShape, parse_shapes};
use crate::layout::varint::take;
use crate::memory::AreaBytes;
use crate::slice::{Counters, SliceHeader, SliceVisitor};

/// Number of values that the decoder of a tile builds from their bytes in one step. The decoder may read
/// beyond the last value, so the buffer of the payload has this number of spare bytes at its end.
pub(crate) const JOIN_STRIDE: usize = 16;

/// One decompressed block. A reader reads many blocks into one `Columns`, which reuses its buffers.
#[derive(Default)]
pub struct Columns {
    pub(crate) raw: Vec<u8>,
    shapes: Vec<SliceShape>,
    /// For each slice, the index of its first entry in `offsets`.
    first_offset: Vec<u32>,
    /// For each slice, and for each plane that this slice uses, the position in `raw` at which the bytes of
    /// the slice begin.
    offsets: Vec<u32>,
    sites: usize,
}

impl Columns {
    /// Number of undamaged slices in the block.
    pub fn slices(&self) -> usize {
        self.shapes.len()
    }

    /// The header of a slice.
    ///
    /// # Panics
    /// Panics if there is no slice with this index.
    pub fn header(&self, slice: usize) -> &SliceHeader {
        &self.shapes[slice].header
    }

    /// The memory areas that a slice stores: for the first slice of the block, all areas that are not zero;
    /// for each later slice, the areas that changed since the previous slice.
    ///
    /// # Panics
    /// Panics if there is no slice with this index.
    pub fn memory(&self, slice: usize) -> &[(AreaId, AreaBytes)] {
        &self.shapes[slice].areas
    }

    /// One more than the greatest site id in this block.
    pub fn sites(&self) -> usize {
        self.sites
    }

    /// Removes all slices.
    pub(crate) fn clear(&mut self) {
        self.raw.clear();
        self.shapes.clear();
        self.first_offset.clear();
        self.offsets.clear();
        self.sites = 0;
    }

    /// Makes a block from the slices that `replay` passes. The reader needs this function for a journal,
    /// because a journal does not store its slices by column.
    pub(crate) fn encode<E>(
        &mut self,
        from_tick: u64,
        replay: impl FnOnce(&mut Encoding) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut encoding = Encoding { encoder: Encoder::new(), last_tick: from_tick };
        encoding.encoder.begin(from_tick);
        let done = replay(&mut encoding);
        // An offset in the payload has 32 bits, and 32 bits suffice: the content of a journal is far smaller
        // than 4 GiB.
        if u32::try_from(encoding.encoder.raw_bytes()).is_ok() {
            self.raw = encoding.encoder.finish();
            self.locate(from_tick, encoding.last_tick);
        }
        done
    }

    /// Finds the slices of the payload in `raw`, up to the first damaged slice.
    pub(crate) fn locate(&mut self, from_tick: u64, last_tick: u64) {
        self.first_offset.clear();
        self.offsets.clear();
        self.sites = 0;
        if self.try_locate(from_tick, last_tick).is_none() {
            self.shapes.clear();
        }
        // The decoder may read up to `JOIN_STRIDE` bytes after the end of the last plane.
        self.raw.resize(self.raw.len() + JOIN_STRIDE, 0);
    }

    fn try_locate(&mut self, from_tick: u64, last_tick: u64) -> Option<()> {
        let mut rest = &self.raw[..];
        let header_bytes = usize::try_from(take(&mut rest)?).ok()?;
        let (headers, planes) = rest.split_at_checked(header_bytes)?;
        parse_shapes(headers, from_tick, last_tick, &mut self.shapes)?;
        let mut next = plane_starts(self.raw.len() - planes.len(), self.raw.len(), &self.shapes)?;
        for (index, shape) in self.shapes.iter().enumerate() {
            let first = self.offsets.len();
            for (column, &width) in shape.widths.iter().enumerate() {
                for start in &mut next[column * PLANES..][..width as usize] {
                    // 32 bits suffice: a payload is at most 64 MiB.
                    self.offsets.push(*start as u32);
                    *start += shape.changes;
                }
            }
            let ids = &self.offsets[first..][..shape.widths[0] as usize];
            let Some(sites) = sites_of(&self.raw, ids, shape.changes) else {
                self.shapes.truncate(index);
                return Some(());
            };
            self.sites = self.sites.max(sites);
            self.first_offset.push(first as u32);
        }
        Some(())
    }

    /// Number of sites that changed in a slice.
    #[inline]
    pub(crate) fn changes(&self, slice: usize) -> usize {
        self.shapes[slice].changes
    }

    #[inline]
    pub(crate) fn widths(&self, slice: usize) -> &[u8; COLUMNS] {
        &self.shapes[slice].widths
    }

    /// The position of the first byte of each plane of a slice, column by column. `widths` holds the number
    /// of planes of each column.
    #[inline]
    pub(crate) fn planes(&self, slice: usize) -> &[u32] {
        let first = self.first_offset[slice] as usize;
        &self.offsets[first..first + self.widths(slice).iter().map(|&width| width as usize).sum::<usize>()]
    }
}

/// Collects slices and encodes them by column.
pub(crate) struct Encoding {
    encoder: Encoder,
    last_tick: u64,
}

impl SliceVisitor for Encoding {
    fn memory(&mut self, _: &SliceHeader, changed: &[(AreaId, AreaBytes)]) {
        self.encoder.memory_changed(changed);
    }

    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        self.encoder.slice(header, changed.iter().copied());
        self.last_tick = header.tick;
    }
}

/// The position of the first byte of each plane in the payload. `None`: the sum of the planes' lengths is not
/// the length of the payload.
fn plane_starts(first: usize, end: usize, shapes: &[SliceShape]) -> Option<[usize; COLUMNS * PLANES]> {
    let mut lengths = [0usize; COLUMNS * PLANES];
    for shape in shapes {
        for (column, &width) in shape.widths.iter().enumerate() {
            for length in &mut lengths[column * PLANES..][..width as usize] {
                *length = length.checked_add(shape.changes)?;
            }
        }
    }
    let mut at = first;
    for length in &mut lengths {
        let start = at;
        at = at.checked_add(*length)?;
        *length = start;
    }
    (at == end).then_some(lengths)
}

/// One more than the last site id of a slice. `None`: the last id is not below `MAX_SITES`.
fn sites_of(raw: &[u8], id_planes: &[u32], changes: usize) -> Option<usize> {
    let mut sum = changes as u128;
    for (plane, &start) in id_planes.iter().enumerate() {
        let bytes = &raw[start as usize..][..changes];
        sum += u128::from(byte_sum(bytes)) << (8 * plane);
    }
    (sum <= MAX_SITES as u128).then_some(sum as usize)
}

/// The sum of all `bytes`. The function first adds 256 bytes at a time into a number of 16 bits, which cannot
/// overflow. So the compiler can use vector instructions.
pub(crate) fn byte_sum(bytes: &[u8]) -> u64 {
    let short = |row: &[u8]| u64::from(row.iter().map(|&byte| u16::from(byte)).sum::<u16>());
    bytes.chunks(256).map(short).sum()
}
