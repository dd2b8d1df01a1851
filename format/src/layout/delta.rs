//! The payload of a block of slices. The payload holds differences from predicted values, stored by column.
//!
//! ```text
//! payload = header_bytes | slice headers | planes
//! ```
//! `header_bytes` and the slice headers are varints. A slice header holds the tick, the time, RssAnon,
//! VmSwap, and the number of changed sites. The tick is stored as the difference from the previous tick; for
//! the first slice, from the block's `from_tick`. RssAnon and VmSwap are stored as differences from the
//! previous slice. For the time, the header stores a difference of distances: the distance from the previous
//! slice, minus the distance between the two slices before. The numbers for the time, RssAnon and VmSwap have
//! zig-zag encoding. Three bytes with the widths of the five columns follow, low nibble first. The sixth
//! nibble is 1 if changed memory areas follow ([`Areas`]), else 0.
//!
//! A column holds one number for each changed site. The first column holds the site id minus the previous id
//! minus 1. The other four columns hold allocations, frees, allocated bytes and freed bytes. Each number is
//! the zig-zag difference from the value that [`SiteState`] predicts. A column of width w is stored in w
//! planes; plane j holds byte j of every number. The payload stores each plane for all slices together: first
//! plane 0 of the ids in all slices, then plane 1 of the ids in all slices, …, at last plane 7 of the freed
//! bytes. So similar bytes are close together, which zstd compresses well, and the decoder's loops need no
//! branch for each number.

use crate::ids::{AreaId, SiteId};
use crate::layout::areas::Areas;
use crate::layout::varint::{put, take, unzigzag, zigzag};
use crate::memory::AreaBytes;
use crate::slice::{Counters, SliceHeader, SliceVisitor};

/// Every site id is below `MAX_SITES`. A reader rejects a block with an id of `MAX_SITES` or more, so
/// `MAX_SITES` bounds the memory that a reader needs.
pub(crate) const MAX_SITES: usize = 1 << 20;

pub(crate) const COLUMNS: usize = 5;
pub(crate) const PLANES: usize = 8;
/// Number of values of one column that the decoder decodes in one step. The values that one step decodes for
/// all five columns fit in the first-level cache.
const TILE: usize = 256;

/// The state of a site after the previous slices. The state predicts the counters in the next slice.
#[derive(Clone, Copy, Default)]
struct SiteState {
    counters: Counters,
    /// Number of allocations in the last slice in which the site changed. The state predicts that the site
    /// makes the same number of allocations in the next slice.
    step: u64,
    /// Mean size of an allocation, in bytes. The encoder computes the mean again only when the number of
    /// allocations needs one more bit, so divisions are rare. If all allocations of a site have one size, the
    /// predicted number of bytes is exact.
    mean_bytes: u64,
}

impl SiteState {
    /// Predicts the number of frees: 0 for a site that has never freed; for any other site, the number of
    /// allocations.
    #[inline]
    fn expected_frees(&self, allocs: u64) -> u64 {
        select(self.counters.frees == 0, 0, allocs)
    }

    #[inline]
    fn add_allocs(&mut self, allocs: u64, bytes: u64) {
        let before = self.counters.allocs;
        self.counters.allocs = before.wrapping_add(allocs);
        self.counters.allocated_bytes = self.counters.allocated_bytes.wrapping_add(bytes);
        if gained_a_bit(before, self.counters.allocs) {
            self.mean_bytes = self.counters.allocated_bytes.checked_div(self.counters.allocs).unwrap_or(0);
        }
        self.step = allocs;
    }

    /// Predicts the freed bytes. If the numbers of frees and allocations are equal, the program probably
    /// freed the allocations that it had just made, so the function predicts as many freed bytes as allocated
    /// bytes.
    #[inline]
    fn expected_freed_bytes(&self, allocs: u64, bytes: u64, frees: u64) -> u64 {
        select(frees == allocs, bytes, frees.wrapping_mul(self.mean_bytes))
    }

    /// Returns the differences of the counters `now` from the predicted counters, and stores `now` as the new
    /// state.
    fn encode(&mut self, now: &Counters) -> [u64; COLUMNS - 1] {
        let was = self.counters;
        let allocs = now.allocs.wrapping_sub(was.allocs);
        let frees = now.frees.wrapping_sub(was.frees);
        let bytes = now.allocated_bytes.wrapping_sub(was.allocated_bytes);
        let freed_bytes = now.freed_bytes.wrapping_sub(was.freed_bytes);
        let expected_bytes = allocs.wrapping_mul(self.mean_bytes);
        let step = self.step;
        self.add_allocs(allocs, bytes);
        let unforeseen = [
            allocs.wrapping_sub(step),
            frees.wrapping_sub(self.expected_frees(allocs)),
            bytes.wrapping_sub(expected_bytes),
            freed_bytes.wrapping_sub(self.expected_freed_bytes(allocs, bytes, frees)),
        ];
        self.counters = *now;
        unforeseen.map(zigzag)
    }

    /// The inverse of [`SiteState::encode`].
    #[inline]
    fn decode(&mut self, unforeseen: [u64; COLUMNS - 1], now: &mut Counters) {
        let [allocs, frees, bytes, freed_bytes] = unforeseen.map(unzigzag);
        let allocs = allocs.wrapping_add(self.step);
        let bytes = bytes.wrapping_add(allocs.wrapping_mul(self.mean_bytes));
        let frees = frees.wrapping_add(self.expected_frees(allocs));
        self.add_allocs(allocs, bytes);
        let freed_bytes = freed_bytes.wrapping_add(self.expected_freed_bytes(allocs, bytes, frees));
        self.counters.frees = self.counters.frees.wrapping_add(frees);
        self.counters.freed_bytes = self.counters.freed_bytes.wrapping_add(freed_bytes);
        // Copy each field: a copy of the whole struct would wait until the processor has written all four
        // fields of `self.counters`.
        now.allocated_bytes = self.counters.allocated_bytes;
        now.allocs = self.counters.allocs;
        now.freed_bytes = self.counters.freed_bytes;
        now.frees = self.counters.frees;
    }
}

/// Computes `if which { a } else { b }` without a branch. With a branch, the processor would predict `which`
/// wrongly in about half of the calls.
#[inline]
fn select(which: bool, a: u64, b: u64) -> u64 {
    let mask = u64::from(which).wrapping_neg();
    (a & mask) | (b & !mask)
}

/// Whether the highest set bits of `before` and `after` are at different positions.
#[inline]
fn gained_a_bit(before: u64, after: u64) -> bool {
    (before ^ after) > (before & after)
}

/// The fields of the slice header that are stored as differences.
#[derive(Clone, Copy, Default)]
struct Clock {
    header: SliceHeader,
    time_step: u64,
}

/// Turns slices into the payload of one block.
pub(crate) struct Encoder {
    states: Vec<SiteState>,
    clock: Clock,
    headers: Vec<u8>,
    /// The areas of the next slice. The field `areas` holds the areas of the previous slice.
    memory: Vec<AreaBytes>,
    areas: Areas,
    area_bytes: Vec<u8>,
    planes: [Vec<u8>; COLUMNS * PLANES],
    columns: [Vec<u64>; COLUMNS],
    slices: u32,
    first_tick: u64,
}

impl Encoder {
    pub(crate) fn new() -> Encoder {
        Encoder {
            states: Vec::new(),
            clock: Clock::default(),
            headers: Vec::new(),
            memory: Vec::new(),
            areas: Areas::default(),
            area_bytes: Vec::new(),
            planes: [const { Vec::new() }; COLUMNS * PLANES],
            columns: [const { Vec::new() }; COLUMNS],
            slices: 0,
            first_tick: 0,
        }
    }

    /// Begins a block whose first tick is `from_tick`.
    pub(crate) fn begin(&mut self, from_tick: u64) {
        self.states.fill(SiteState::default());
        self.clock = Clock::default();
        self.clock.header.tick = from_tick;
        self.headers.clear();
        self.memory.clear();
        self.areas.clear();
        self.planes.iter_mut().for_each(Vec::clear);
        self.slices = 0;
        self.first_tick = from_tick;
    }

    pub(crate) fn slices(&self) -> u32 {
        self.slices
    }

    /// Tick of the block's first slice; the block's `from_tick` if the block has no slice yet.
    pub(crate) fn first_tick(&self) -> u64 {
        self.first_tick
    }

    /// Upper bound of the size of the payload that is encoded so far, in bytes.
    pub(crate) fn raw_bytes(&self) -> usize {
        10 + self.headers.len() + self.planes.iter().map(Vec::len).sum::<usize>()
    }

    /// Sets the memory areas for the next slice and all later slices.
    pub(crate) fn memory(&mut self, all: &[AreaBytes]) {
        self.memory.clear();
        self.memory.extend_from_slice(all);
    }

    /// Sets the memory areas as [`Encoder::memory`] does; the caller passes only the areas that changed.
    pub(crate) fn memory_changed(&mut self, changed: &[(AreaId, AreaBytes)]) {
        for &(AreaId(id), bytes) in changed {
            let index = id as usize;
            if index >= self.memory.len() {
                self.memory.resize(index + 1, AreaBytes::ZERO);
            }
            self.memory[index] = bytes;
        }
    }

    /// Appends a slice. The sites must have ascending ids; an unchanged site takes no bytes.
    pub(crate) fn slice(&mut self, header: &SliceHeader, sites: impl Iterator<Item = (SiteId, Counters)>) {
        self.columns.iter_mut().for_each(Vec::clear);
        let mut next_id = 0;
        for (SiteId(id), now) in sites {
            let index = id as usize;
            if index >= self.states.len() {
                self.states.resize(index + 1, SiteState::default());
            }
            let state = &mut self.states[index];
            if state.counters == now {
                continue;
            }
            self.columns[0].push(u64::from(id - next_id));
            next_id = id + 1;
            for (column, number) in self.columns[1..].iter_mut().zip(state.encode(&now)) {
                column.push(number);
            }
        }
        self.put_header(header);
        let mut widths = [0; COLUMNS];
        for (column, numbers) in self.columns.iter().enumerate() {
            let all_bits = numbers.iter().fold(0, |bits, number| bits | number);
            let width = (64 - all_bits.leading_zeros()).div_ceil(8) as usize;
            // An id takes at least one byte. So each changed site needs at least one byte of payload, and the
            // length of the payload limits the memory that a reader needs.
            let width = if column == 0 && !numbers.is_empty() { width.max(1) } else { width };
            widths[column] = width as u8;
            for plane in 0..width {
                let bytes = numbers.iter().map(|number| (number >> (8 * plane)) as u8);
                self.planes[column * PLANES + plane].extend(bytes);
            }
        }
        let [ids, allocs, frees, bytes, freed] = widths;
        self.area_bytes.clear();
        let has_areas = self.areas.encode(&self.memory, &mut self.area_bytes);
        self.headers.extend([ids | allocs << 4, frees | bytes << 4, freed | u8::from(has_areas) << 4]);
        self.headers.extend_from_slice(&self.area_bytes);
        self.slices += 1;
    }

    fn put_header(&mut self, header: &SliceHeader) {
        if self.slices == 0 {
            self.first_tick = header.tick;
        }
        let Clock { header: was, time_step } = self.clock;
        let step = header.time_ns.wrapping_sub(was.time_ns);
        put(&mut self.headers, header.tick.wrapping_sub(was.tick));
        put(&mut self.headers, zigzag(step.wrapping_sub(time_step)));
        put(&mut self.headers, zigzag(header.rss_anon_bytes.wrapping_sub(was.rss_anon_bytes)));
        put(&mut self.headers, zigzag(header.swap_bytes.wrapping_sub(was.swap_bytes)));
        put(&mut self.headers, self.columns[0].len() as u64);
        self.clock = Clock { header: *header, time_step: step };
    }

    /// Returns the payload before compression.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.raw_bytes());
        put(&mut payload, self.headers.len() as u64);
        payload.extend_from_slice(&self.headers);
        self.planes.iter().for_each(|plane| payload.extend_from_slice(plane));
        payload
    }
}

/// One parsed slice header with the widths of its columns.
pub(crate) struct SliceShape {
    pub header: SliceHeader,
    pub changes: usize,
    pub widths: [u8; COLUMNS],
    /// The memory areas that the slice changes.
    pub areas: Vec<(AreaId, AreaBytes)>,
}

/// Turns the payload of one block into slices. One `Decoder` decodes many blocks and reuses its buffers.
pub(crate) struct Decoder {
    states: Vec<SiteState>,
    shapes: Vec<SliceShape>,
    changed: Vec<(SiteId, Counters)>,
    tiles: Box<[[u64; TILE]; COLUMNS]>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            states: Vec::new(),
            shapes: Vec::new(),
            changed: Vec::new(),
            tiles: Box::new([[0; TILE]; COLUMNS]),
        }
    }
}

impl Decoder {
    /// Passes every slice to `visitor`. For a damaged payload the function returns `None`; it may have
    /// passed some slices before.
    pub(crate) fn decode<V: SliceVisitor + ?Sized>(
        &mut self,
        payload: &[u8],
        from_tick: u64,
        last_tick: u64,
        visitor: &mut V,
    ) -> Option<u32> {
        let mut rest = payload;
        let header_bytes = usize::try_from(take(&mut rest)?).ok()?;
        let (headers, planes) = rest.split_at_checked(header_bytes)?;
        parse_shapes(headers, from_tick, last_tick, &mut self.shapes)?;
        let mut planes = split_planes(planes, &self.shapes)?;
        self.states.fill(SiteState::default());
        for index in 0..self.shapes.len() {
            self.slice(index, &mut planes)?;
            let SliceShape { header, areas, .. } = &self.shapes[index];
            if !areas.is_empty() {
                visitor.memory(header, areas);
            }
            visitor.slice(header, &self.changed);
        }
        u32::try_from(self.shapes.len()).ok()
    }

    /// Decodes the changes of one slice into `self.changed` and removes the numbers of this slice from the
    /// front of the planes.
    fn slice(&mut self, index: usize, planes: &mut [&[u8]; COLUMNS * PLANES]) -> Option<()> {
        let SliceShape { changes, widths, .. } = self.shapes[index];
        self.changed.resize(changes, (SiteId(0), Counters::ZERO));
        let mut done = 0;
        let mut next_id = 0;
        let mut left = changes;
        while left > 0 {
            let count = left.min(TILE);
            left -= count;
            for (column, tile) in self.tiles.iter_mut().enumerate() {
                let planes = &mut planes[column * PLANES..][..PLANES];
                join_planes(&mut planes[..widths[column] as usize], &mut tile[..count])?;
            }
            next_id = self.tile(done, count, next_id)?;
            done += count;
        }
        Some(())
    }

    fn tile(&mut self, done: usize, count: usize, mut next_id: u64) -> Option<u64> {
        let [gaps, allocs, frees, bytes, freed] = &*self.tiles;
        let last = gaps[..count].iter().try_fold(next_id, |id, gap| id.checked_add(*gap)?.checked_add(1))?;
        if last > MAX_SITES as u64 {
            return None;
        }
        if last as usize > self.states.len() {
            self.states.resize(last as usize, SiteState::default());
        }
        let numbers = gaps.iter().zip(allocs).zip(frees.iter().zip(bytes)).zip(freed);
        for (slot, (((gap, allocs), (frees, bytes)), freed)) in
            self.changed[done..done + count].iter_mut().zip(numbers)
        {
            let id = next_id + gap;
            next_id = id + 1;
            slot.0 = SiteId(id as u32);
            self.states[id as usize].decode([*allocs, *frees, *bytes, *freed], &mut slot.1);
        }
        Some(next_id)
    }
}

/// Turns the encoded slice headers of a block into `SliceShape`s. `None`: a header is damaged, so the
/// positions of the planes are unknown.
pub(crate) fn parse_shapes(
    mut headers: &[u8],
    from_tick: u64,
    last_tick: u64,
    shapes: &mut Vec<SliceShape>,
) -> Option<()> {
    shapes.clear();
    let mut clock = Clock::default();
    clock.header.tick = from_tick;
    let mut areas = Areas::default();
    while !headers.is_empty() {
        let was = clock.header;
        let gap = take(&mut headers)?;
        let time_step = clock.time_step.wrapping_add(unzigzag(take(&mut headers)?));
        let header = SliceHeader {
            tick: was.tick.checked_add(gap)?,
            time_ns: was.time_ns.wrapping_add(time_step),
            rss_anon_bytes: was.rss_anon_bytes.wrapping_add(unzigzag(take(&mut headers)?)),
            swap_bytes: was.swap_bytes.wrapping_add(unzigzag(take(&mut headers)?)),
        };
        let changes = usize::try_from(take(&mut headers)?).ok()?;
        let (&[a, b, c], rest) = headers.split_first_chunk::<3>()?;
        headers = rest;
        let widths = [a & 15, a >> 4, b & 15, b >> 4, c & 15];
        areas.begin_slice();
        match c >> 4 {
            0 => {}
            1 => areas.decode(&mut headers)?,
            _ => return None,
        }
        let is_sound = header.tick <= last_tick
            && (gap > 0 || shapes.is_empty())
            && changes <= MAX_SITES
            && widths.iter().all(|&width| width as usize <= PLANES)
            && (changes == 0 || widths[0] > 0);
        is_sound.then_some(())?;
        // A slice without changes has no bytes in any plane, but its header may hold widths other than 0, so
        // set the widths to 0.
        let widths = if changes == 0 { [0; COLUMNS] } else { widths };
        shapes.push(SliceShape { header, changes, widths, areas: areas.changed().to_vec() });
        clock = Clock { header, time_step };
    }
    Some(())
}

/// Splits the payload into planes. The slice headers determine the lengths of the planes. If the lengths of
/// all planes together are not the length of the payload, the function returns `None`.
fn split_planes<'a>(mut bytes: &'a [u8], shapes: &[SliceShape]) -> Option<[&'a [u8]; COLUMNS * PLANES]> {
    let mut lengths = [0usize; COLUMNS * PLANES];
    for shape in shapes {
        for (column, &width) in shape.widths.iter().enumerate() {
            for length in &mut lengths[column * PLANES..][..width as usize] {
                *length = length.checked_add(shape.changes)?;
            }
        }
    }
    let mut planes = [&bytes[..0]; COLUMNS * PLANES];
    for (plane, length) in planes.iter_mut().zip(lengths) {
        (*plane, bytes) = bytes.split_at_checked(length)?;
    }
    bytes.is_empty().then_some(planes)
}

/// Builds each number from its bytes in the planes, and removes these bytes from the front of each plane.
#[inline]
fn join_planes(planes: &mut [&[u8]], numbers: &mut [u64]) -> Option<()> {
    let Some((low, high)) = planes.split_first_mut() else {
        numbers.fill(0);
        return Some(());
    };
    let (bytes, rest) = low.split_at_checked(numbers.len())?;
    *low = rest;
    for (number, &byte) in numbers.iter_mut().zip(bytes) {
        *number = u64::from(byte);
    }
    for (plane, shift) in high.iter_mut().zip((8..).step_by(8)) {
        let (bytes, rest) = plane.split_at_checked(numbers.len())?;
        *plane = rest;
        for (number, &byte) in numbers.iter_mut().zip(bytes) {
            *number |= u64::from(byte) << shift;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::Collect;
    use proptest::prelude::*;

    fn decode(payload: &[u8], from_tick: u64, last_tick: u64) -> (Option<u32>, Collect) {
        let mut collect = Collect::default();
        let slices = Decoder::default().decode(payload, from_tick, last_tick, &mut collect);
        (slices, collect)
    }

    /// Small numbers, numbers near each power of two, and the largest numbers.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..100u64,
            (0..64u32, 0..3u64).prop_map(|(bit, n)| (1u64 << bit).wrapping_sub(n)),
            any::<u64>()
        ]
    }

    fn counters() -> impl Strategy<Value = Counters> {
        [number(), number(), number(), number()].prop_map(|[allocated_bytes, allocs, freed_bytes, frees]| {
            Counters { allocated_bytes, allocs, freed_bytes, frees }
        })
    }

    fn slice_header() -> impl Strategy<Value = SliceHeader> {
        [number(), number(), number(), number()].prop_map(|[gap, time_ns, rss_anon_bytes, swap_bytes]| {
            SliceHeader { tick: 1 + gap % 1000, time_ns, rss_anon_bytes, swap_bytes }
        })
    }

    proptest! {
        #[test]
        fn any_slices_survive(
            slices in prop::collection::vec(
                (slice_header(), prop::collection::btree_map(0u32..600, counters(), 0..40)), 0..12),
            from_tick in number(),
        ) {
            let from_tick = from_tick.min(u64::MAX - 100_000);
            let mut encoder = Encoder::new();
            // Data of an earlier block must not appear in the next block.
            let earlier = [(SiteId(5), Counters { allocs: 9, ..Counters::ZERO })];
            encoder.slice(&SliceHeader::default(), earlier.into_iter());
            encoder.begin(from_tick);
            let mut tick = from_tick;
            let mut table = std::collections::BTreeMap::new();
            let mut model = crate::common::Slices::new();
            for (header, changed) in &slices {
                tick += header.tick;
                let header = SliceHeader { tick, ..*header };
                table.extend(changed.clone());
                encoder.slice(&header, table.iter().map(|(id, now)| (SiteId(*id), *now)));
                let non_zero = table.iter().filter(|(_, now)| **now != Counters::ZERO);
                model.insert(tick, (header, non_zero.map(|(id, now)| (*id, *now)).collect()));
            }
            let payload = encoder.finish();
            prop_assert!(payload.len() <= encoder.raw_bytes());
            let (count, collect) = decode(&payload, from_tick, tick);
            prop_assert_eq!(count, Some(slices.len() as u32));
            prop_assert_eq!(collect.slices, model);
            // A payload that is too short or too long is damaged.
            prop_assert_eq!(decode(&[&payload[..], &[0]].concat(), from_tick, tick).0, None);
            if let Some((_, cut)) = payload.split_last() {
                prop_assert_eq!(decode(cut, from_tick, tick).0, None);
            }
        }

        #[test]
        fn no_payload_makes_the_decoder_panic(payload: Vec<u8>) {
            struct Ignore;
            impl SliceVisitor for Ignore {
                fn slice(&mut self, _: &SliceHeader, changed: &[(SiteId, Counters)]) {
                    assert!(changed.len() <= MAX_SITES);
                }
            }
            let _unsound = Decoder::default().decode(&payload, 0, u64::MAX, &mut Ignore);
        }
    }

    #[test]
    fn ids_from_the_limit_on_are_unsound() {
        let changed = |id| [(SiteId(id), Counters { allocs: 1, ..Counters::ZERO })].into_iter();
        let mut encoder = Encoder::new();
        for (id, slices) in [(MAX_SITES as u32 - 1, Some(1)), (MAX_SITES as u32, None)] {
            encoder.begin(0);
            encoder.slice(&SliceHeader::default(), changed(id));
            assert_eq!(decode(&encoder.finish(), 0, 0).0, slices);
        }
    }

    #[test]
    fn ticks_outside_the_block_are_unsound() {
        let mut encoder = Encoder::new();
        encoder.begin(10);
        for tick in [10, 15] {
            encoder.slice(&SliceHeader { tick, ..SliceHeader::default() }, std::iter::empty());
        }
        assert_eq!(decode(&encoder.finish(), 10, 15).0, Some(2));
        assert_eq!(decode(&encoder.finish(), 10, 14).0, None);
        // A block in which two slices have the same tick is damaged.
        encoder.slice(&SliceHeader { tick: 15, ..SliceHeader::default() }, std::iter::empty());
        assert_eq!(decode(&encoder.finish(), 10, 15).0, None);
    }

    #[test]
    fn steady_sites_of_one_size_cost_one_byte_of_id_and_nothing_else() {
        let mut encoder = Encoder::new();
        encoder.begin(0);
        let mut before = 0;
        for tick in 0..20u64 {
            // The number of allocations begins at 2^9, and each slice adds 16, so this number takes ten bits
            // in all slices of the test.
            let allocs = 512 + 16 * tick;
            let now =
                Counters { allocated_bytes: allocs * 48, allocs, freed_bytes: allocs * 48, frees: allocs };
            let header = SliceHeader { tick, ..SliceHeader::default() };
            encoder.slice(&header, (0..100).map(|id| (SiteId(id), now)));
            let planes: usize = encoder.planes.iter().map(Vec::len).sum();
            if tick > 1 {
                assert_eq!(planes - before, 100, "slice {tick}");
            }
            before = planes;
        }
    }
}
