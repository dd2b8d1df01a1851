//! A block of slices opened for reading by site: where the numbers of each slice lie, and what is sound.
//!
//! A payload is laid out by column and plane, all slices one behind the other ([`crate::layout::delta`]). Whoever wants a few sites of
//! every slice needs to know where each slice's part of each plane begins: an offset per slice and plane in use. A plane in
//! use holds at least one byte of that slice, so the offsets take at most four times the payload.

use crate::ids::{AreaId, SiteId};
use crate::layout::delta::{COLUMNS, Encoder, MAX_SITES, PLANES, Plan, parse_plans};
use crate::layout::varint::take;
use crate::memory::AreaBytes;
use crate::read::tiles::JOIN_STRIDE;
use crate::slice::{Counters, SliceHeader, SliceVisitor};

/// One block, decompressed. Its buffers are reused from block to block.
#[derive(Default)]
pub struct Columns {
    pub(crate) raw: Vec<u8>,
    plans: Vec<Plan>,
    /// Of the slice with the same index: where its offsets begin.
    first_offset: Vec<u32>,
    /// Into `raw`, one per plane in use, slice by slice.
    offsets: Vec<u32>,
    sites: usize,
}

impl Columns {
    /// Slices that can be read.
    pub fn slices(&self) -> usize {
        self.plans.len()
    }

    /// The header of one of them.
    ///
    /// # Panics
    /// If there is no slice of this index.
    pub fn header(&self, slice: usize) -> &SliceHeader {
        &self.plans[slice].header
    }

    /// The areas of memory that a slice names: for the first one every area that is not zero, later those that changed.
    ///
    /// # Panics
    /// If there is no slice of this index.
    pub fn memory(&self, slice: usize) -> &[(AreaId, AreaBytes)] {
        &self.plans[slice].areas
    }

    /// One more than the greatest id of a site in this block.
    pub fn sites(&self) -> usize {
        self.sites
    }

    /// Nothing can be read.
    pub(crate) fn clear(&mut self) {
        self.raw.clear();
        self.plans.clear();
        self.first_offset.clear();
        self.offsets.clear();
        self.sites = 0;
    }

    /// Takes up slices that come without columns.
    pub(crate) fn encode<E>(
        &mut self,
        from_tick: u64,
        replay: impl FnOnce(&mut Encoding) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut encoding = Encoding { encoder: Encoder::new(), last_tick: from_tick };
        encoding.encoder.begin(from_tick);
        let done = replay(&mut encoding);
        // An offset has 32 bits, which no journal comes near.
        if u32::try_from(encoding.encoder.raw_bytes()).is_ok() {
            self.raw = encoding.encoder.finish();
            self.locate(from_tick, encoding.last_tick);
        }
        done
    }

    /// Finds the slices of the payload in `raw`: those before the first that is unsound.
    pub(crate) fn locate(&mut self, from_tick: u64, last_tick: u64) {
        self.first_offset.clear();
        self.offsets.clear();
        self.sites = 0;
        if self.try_locate(from_tick, last_tick).is_none() {
            self.plans.clear();
        }
        // Readers may take whole strides from the end of the last plane.
        self.raw.resize(self.raw.len() + JOIN_STRIDE, 0);
    }

    fn try_locate(&mut self, from_tick: u64, last_tick: u64) -> Option<()> {
        let mut rest = &self.raw[..];
        let header_bytes = usize::try_from(take(&mut rest)?).ok()?;
        let (headers, planes) = rest.split_at_checked(header_bytes)?;
        parse_plans(headers, from_tick, last_tick, &mut self.plans)?;
        let mut next = plane_starts(self.raw.len() - planes.len(), self.raw.len(), &self.plans)?;
        for (index, plan) in self.plans.iter().enumerate() {
            let first = self.offsets.len();
            for (column, &width) in plan.widths.iter().enumerate() {
                for start in &mut next[column * PLANES..][..width as usize] {
                    // A payload is at most 64 MiB.
                    self.offsets.push(*start as u32);
                    *start += plan.changes;
                }
            }
            let ids = &self.offsets[first..][..plan.widths[0] as usize];
            let Some(sites) = sites_of(&self.raw, ids, plan.changes) else {
                self.plans.truncate(index);
                return Some(());
            };
            self.sites = self.sites.max(sites);
            self.first_offset.push(first as u32);
        }
        Some(())
    }

    /// How many sites a slice names.
    #[inline]
    pub(crate) fn changes(&self, slice: usize) -> usize {
        self.plans[slice].changes
    }

    #[inline]
    pub(crate) fn widths(&self, slice: usize) -> &[u8; COLUMNS] {
        &self.plans[slice].widths
    }

    /// Where the planes of a slice begin, column by column; `widths` says how many each column has.
    #[inline]
    pub(crate) fn planes(&self, slice: usize) -> &[u32] {
        let first = self.first_offset[slice] as usize;
        &self.offsets[first..first + self.widths(slice).iter().map(|&width| width as usize).sum::<usize>()]
    }
}

/// Slices on their way into columns.
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

/// Where in the payload each plane begins. They must fill it exactly.
fn plane_starts(first: usize, end: usize, plans: &[Plan]) -> Option<[usize; COLUMNS * PLANES]> {
    let mut lengths = [0usize; COLUMNS * PLANES];
    for plan in plans {
        for (column, &width) in plan.widths.iter().enumerate() {
            for length in &mut lengths[column * PLANES..][..width as usize] {
                *length = length.checked_add(plan.changes)?;
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

/// One more than the last id of a slice; `None` if that is beyond the limit.
fn sites_of(raw: &[u8], id_planes: &[u32], changes: usize) -> Option<usize> {
    let mut sum = changes as u128;
    for (plane, &start) in id_planes.iter().enumerate() {
        let bytes = &raw[start as usize..][..changes];
        sum += u128::from(byte_sum(bytes)) << (8 * plane);
    }
    (sum <= MAX_SITES as u128).then_some(sum as usize)
}

/// Rows short enough for 16 bits vectorize.
pub(crate) fn byte_sum(bytes: &[u8]) -> u64 {
    let short = |row: &[u8]| u64::from(row.iter().map(|&byte| u16::from(byte)).sum::<u16>());
    bytes.chunks(256).map(short).sum()
}
