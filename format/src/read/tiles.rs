//! HOT: reads the numbers of sixteen neighbouring sites together, slice by slice. A reader spends most of its
//! time in the functions of this file.
//!
//! ```text
//!   slices  ▒▒░▒ ░▒▒░ …   place: each slice's numbers for a tile of sites become a row of cells;
//!     │     ▒░▒▒ ▒▒░▒             a site that the slice does not name has a zero cell
//!     ▼     ░▒▒░ ▒░▒▒      advance: sixteen sites side by side, down through the rows
//! ```
//!
//! The steps do not depend on the number of sites that changed, so the processor mispredicts no branch. Each
//! step is one loop over sixteen lanes, which the compiler turns into vector instructions. All functions are
//! inlined, so the calling function decides which vector instructions the compiler may use. `SiteState` in
//! [`crate::layout::delta`] defines the encoding of the numbers.

use crate::layout::delta::PLANES;
use crate::layout::varint::unzigzag;
use crate::read::columns::{Columns, JOIN_STRIDE, byte_sum};
use crate::read::prefetch::prefetch;
use crate::slice::Counters;

/// Number of sites that one step reads side by side: two vectors of eight. With only one vector, the
/// processor would wait for the result of each step before it begins the next step; with two vectors, the
/// processor computes one vector while it waits for the other.
pub const GROUP_SITES: usize = 16;
/// Number of sites whose cells one call of `place` fills.
pub const TILE_SITES: usize = 128;
/// Number of slices whose cells one call of `place` fills. For 24 slices, the cells of a tile take 24 KiB, so
/// the first-level cache still has room for other data.
pub const CHUNK_SLICES: usize = 24;
/// The bit that is set in a cell if the site changed in the slice. If the site's four numbers together fit in
/// seven bytes, the lower bits of the cell hold these numbers.
const NAMED: u64 = 1 << 63;
const CELL_BYTES: usize = 7;
/// Length of a cache line, in bytes. The first cache line of the next tile is already loaded, so the reader
/// prefetches the second line.
const LINE_BYTES: usize = 64;
/// Number of columns, without the column of ids.
const NUMBERS: usize = 4;

/// One number for each of sixteen neighbouring sites.
pub type GroupValues = [u64; GROUP_SITES];

/// The numbers of sixteen sites in one slice.
#[derive(Clone, Copy, Default, Debug)]
#[repr(align(64))]
pub struct Row {
    /// A mask for each site: all bits are 1 if the site changed in the slice, else all bits are 0. If the
    /// mask of a site is 0, the other fields of the site have no meaning.
    pub named: GroupValues,
    /// Bytes allocated and not yet freed.
    pub live_bytes: GroupValues,
    /// Allocations not yet freed.
    pub live_count: GroupValues,
    /// Number of allocations of all sixteen sites since the previous slice; in the first slice of a block,
    /// since the recording began.
    pub allocs: u64,
}

impl Row {
    /// A row in which no site changed.
    pub const NOTHING: Row = Row {
        named: [0; GROUP_SITES],
        live_bytes: [0; GROUP_SITES],
        live_count: [0; GROUP_SITES],
        allocs: 0,
    };
}

/// The state of sixteen sites after the slices of this block that were already read.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct States {
    allocs: GroupValues,
    frees: GroupValues,
    allocated_bytes: GroupValues,
    freed_bytes: GroupValues,
    step: GroupValues,
    mean_bytes: GroupValues,
}

/// The position in a slice at which the next tile begins.
#[derive(Clone, Copy, Default)]
struct Cursor {
    /// Number of changes already read.
    taken: u32,
    /// One more than the site id of the last change that was read.
    next_id: u32,
}

/// The layout of a row's cells.
#[derive(Clone, Copy)]
enum Layout {
    Packed {
        shifts: [u32; NUMBERS],
        masks: [u64; NUMBERS],
    },
    /// The numbers of the slice are stored column by column in a row of wide cells. `Wide` holds the index of
    /// the slice's row in the list of wide rows.
    Wide(usize),
}

/// The layout of a row in which no site changed.
const NOTHING: Layout = Layout::Packed { shifts: [0; NUMBERS], masks: [0; NUMBERS] };

/// One number for each site of a tile. The row is aligned, because loading a vector that extends over two
/// cache lines takes as long as loading two vectors.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct CellRow([u64; TILE_SITES]);

/// Reads one block tile by tile. The reader reads a tile from the first slice of the block to the last slice,
/// and then the next tile.
pub struct TileReader<'a> {
    columns: &'a Columns,
    first_site: usize,
    cursors: Vec<Cursor>,
    states: [States; TILE_SITES / GROUP_SITES],
    layouts: Vec<Layout>,
    cells: Vec<CellRow>,
    wide: Vec<[CellRow; NUMBERS]>,
}

impl<'a> TileReader<'a> {
    /// Creates a reader that begins with the tile whose first site is `first_site`.
    pub fn new(columns: &'a Columns, first_site: usize) -> Self {
        let cursors = (0..columns.slices()).map(|slice| skip(columns, slice, first_site)).collect();
        Self {
            columns,
            first_site,
            cursors,
            states: [States::default(); TILE_SITES / GROUP_SITES],
            layouts: Vec::new(),
            cells: Vec::new(),
            wide: Vec::new(),
        }
    }

    /// Moves on to the next tile. Before this call, the caller must read all slices of the present tile.
    pub fn next_tile(&mut self) {
        self.first_site += TILE_SITES;
        self.states = [States::default(); TILE_SITES / GROUP_SITES];
    }

    /// Fills the cells of `slices` slices, at most [`CHUNK_SLICES`], beginning with the slice that has the
    /// index `first` in the block.
    #[inline(always)]
    pub fn place(&mut self, first: usize, slices: usize) {
        self.layouts.clear();
        self.wide.clear();
        self.cells.resize(slices, CellRow([0; TILE_SITES]));
        for (slice, cells) in (first..first + slices).zip(&mut self.cells) {
            cells.0.fill(0);
            let cursor = &mut self.cursors[slice];
            self.layouts.push(place(self.columns, slice, self.first_site, cursor, cells, &mut self.wide));
        }
    }

    /// Writes the rows of one group of sixteen sites of the tile into `rows`: one row for each slice that the
    /// last call of `place` read. After each call of `place`, call `rows` once for each group of the tile.
    #[inline(always)]
    pub fn rows(&mut self, group: usize, rows: &mut Vec<Row>) {
        rows.resize(self.layouts.len(), Row::default());
        advance(&mut self.states[group], &self.layouts, &self.cells, &self.wide, group * GROUP_SITES, rows);
    }

    /// The counters of one site of the tile after the slices that were already read; zeros if the site
    /// changed in no slice of this block.
    pub fn counters(&self, site: usize) -> Counters {
        let (states, lane) = (&self.states[site / GROUP_SITES], site % GROUP_SITES);
        Counters {
            allocated_bytes: states.allocated_bytes[lane],
            allocs: states.allocs[lane],
            freed_bytes: states.freed_bytes[lane],
            frees: states.frees[lane],
        }
    }
}

/// Returns the position, among the changes of a slice, of the first site whose id is at least `first_site`.
fn skip(columns: &Columns, slice: usize, first_site: usize) -> Cursor {
    const STRIDE: usize = 256;
    let changes = columns.changes(slice);
    let mut cursor = Cursor::default();
    if changes == 0 || first_site == 0 {
        return cursor;
    }
    let gaps = Gaps::new(columns, slice);
    if gaps.is_narrow() {
        for bytes in gaps.bytes(0).chunks_exact(STRIDE) {
            let next_id = cursor.next_id + (byte_sum(bytes) as usize + STRIDE) as u32;
            if next_id as usize > first_site {
                break;
            }
            cursor = Cursor { taken: cursor.taken + STRIDE as u32, next_id };
        }
    }
    while (cursor.taken as usize) < changes {
        let id = cursor.next_id + gaps.at(cursor.taken as usize);
        if id as usize >= first_site {
            break;
        }
        cursor = Cursor { taken: cursor.taken + 1, next_id: id + 1 };
    }
    cursor
}

/// The ids of the sites that changed in one slice, as gaps between ids. The ids are checked: every sum of
/// gaps is an id within the limit.
struct Gaps<'a> {
    raw: &'a [u8],
    planes: &'a [u32],
    changes: usize,
}

impl<'a> Gaps<'a> {
    fn new(columns: &'a Columns, slice: usize) -> Self {
        let planes = &columns.planes(slice)[..columns.widths(slice)[0] as usize];
        Self { raw: &columns.raw, planes, changes: columns.changes(slice) }
    }

    fn is_narrow(&self) -> bool {
        self.planes.len() == 1
    }

    fn bytes(&self, plane: usize) -> &'a [u8] {
        &self.raw[self.planes[plane] as usize..][..self.changes]
    }

    /// Returns the gap between the id of a changed site and the id of the previous changed site. In an
    /// undamaged trace, a gap has at most three bytes.
    fn at(&self, change: usize) -> u32 {
        let planes = self.planes.iter().take(3).enumerate();
        planes.fold(0, |gap, (i, &start)| gap | u32::from(self.raw[start as usize + change]) << (8 * i))
    }
}

/// Fills a row of cells with the numbers of one slice for the sites of a tile.
#[inline(always)]
fn place(
    columns: &Columns,
    slice: usize,
    first_site: usize,
    cursor: &mut Cursor,
    cells: &mut CellRow,
    wide: &mut Vec<[CellRow; NUMBERS]>,
) -> Layout {
    let taken = cursor.taken as usize;
    if taken == columns.changes(slice) {
        return NOTHING;
    }
    let mut sites = [0u8; TILE_SITES];
    let named = sites_in_tile(columns, slice, first_site, cursor, &mut sites);
    let sites = &sites[..named];
    for &start in columns.planes(slice) {
        prefetch(&columns.raw, start as usize + taken + named + LINE_BYTES);
    }
    let widths = columns.widths(slice);
    let mut planes = columns.planes(slice)[widths[0] as usize..].iter().map(|&start| start as usize + taken);

    let bytes: usize = widths[1..].iter().map(|&width| width as usize).sum();
    if bytes > CELL_BYTES {
        let mut numbers = [CellRow([0; TILE_SITES]); NUMBERS];
        for (numbers, &width) in numbers.iter_mut().zip(&widths[1..]) {
            let mut starts = [0; PLANES];
            starts.iter_mut().zip(planes.by_ref().take(width as usize)).for_each(|(to, from)| *to = from);
            scatter(sites, &join(&columns.raw, &starts[..width as usize], named, 0), numbers);
        }
        scatter(sites, &CellRow([NAMED; TILE_SITES]), cells);
        wide.push(numbers);
        return Layout::Wide(wide.len() - 1);
    }
    let mut starts = [0; CELL_BYTES];
    starts.iter_mut().zip(planes.take(bytes)).for_each(|(to, from)| *to = from);
    scatter(sites, &join(&columns.raw, &starts[..bytes], named, NAMED), cells);
    let (mut shifts, mut masks, mut shift) = ([0; NUMBERS], [0; NUMBERS], 0);
    for (column, &width) in widths[1..].iter().enumerate() {
        shifts[column] = shift;
        masks[column] = (1u64 << (8 * width)) - 1;
        shift += 8 * u32::from(width);
    }
    Layout::Packed { shifts, masks }
}

/// Reads the ids of the sites of a tile that changed in one slice; the slice must have unread changes.
/// Returns the number of sites that changed; `sites` receives their positions in the tile.
#[inline(always)]
fn sites_in_tile(
    columns: &Columns,
    slice: usize,
    first_site: usize,
    cursor: &mut Cursor,
    sites: &mut [u8; TILE_SITES],
) -> usize {
    let taken = cursor.taken as usize;
    let gaps = Gaps::new(columns, slice);
    // The changed site before the first changed site of the tile is in an earlier tile, so the gap between
    // the two may be larger than a tile.
    let before = first_site - cursor.next_id as usize;
    let mut next = 0;
    let mut named = 0;
    let mut take = |gap: u32, slot: &mut u8, skipped: usize| {
        let site = next + gap as usize - skipped;
        if site >= TILE_SITES {
            return false;
        }
        *slot = site as u8;
        next = site + 1;
        named += 1;
        true
    };
    if gaps.is_narrow() {
        let mut gaps = gaps.bytes(0)[taken..].iter().zip(&mut *sites);
        if let Some((&gap, slot)) = gaps.next()
            && take(u32::from(gap), slot, before)
        {
            for (&gap, slot) in gaps {
                if !take(u32::from(gap), slot, 0) {
                    break;
                }
            }
        }
    } else {
        let mut skipped = before;
        for (change, slot) in (taken..columns.changes(slice)).zip(&mut *sites) {
            if !take(gaps.at(change), slot, skipped) {
                break;
            }
            skipped = 0;
        }
    }
    if named > 0 {
        *cursor = Cursor { taken: (taken + named) as u32, next_id: (first_site + next) as u32 };
    }
    named
}

/// Builds numbers from their bytes, low bytes first, and sets the bits of `start` in each number. The
/// function always builds a multiple of `JOIN_STRIDE` numbers. The buffer is padded, so reading too many
/// bytes is safe, and no caller uses the extra numbers.
#[inline(always)]
fn join(raw: &[u8], planes: &[usize], numbers: usize, start: u64) -> CellRow {
    let mut joined = CellRow([0; TILE_SITES]);
    for (at, numbers) in
        joined.0.as_chunks_mut::<JOIN_STRIDE>().0[..numbers.div_ceil(JOIN_STRIDE)].iter_mut().enumerate()
    {
        let mut stride = [start; JOIN_STRIDE];
        for (plane, first) in planes.iter().enumerate() {
            let bytes: &[u8; JOIN_STRIDE] =
                raw[first + at * JOIN_STRIDE..].first_chunk().expect("the buffer is padded by a stride");
            for l in 0..JOIN_STRIDE {
                stride[l] |= u64::from(bytes[l]) << (8 * plane);
            }
        }
        *numbers = stride;
    }
    joined
}

#[inline(always)]
fn scatter(sites: &[u8], numbers: &CellRow, cells: &mut CellRow) {
    for (&site, &number) in sites.iter().zip(&numbers.0) {
        cells.0[site as usize % TILE_SITES] = number;
    }
}

/// Updates the states of sixteen sites, slice by slice, for the slices of the last call of `place`.
#[inline(always)]
fn advance(
    states: &mut States,
    layouts: &[Layout],
    cells: &[CellRow],
    wide: &[[CellRow; NUMBERS]],
    lane: usize,
    rows: &mut [Row],
) {
    let group_of = |cells: &CellRow| -> GroupValues {
        *cells.0[lane..].first_chunk().expect("a tile is a whole number of groups")
    };
    for ((layout, cells), row) in layouts.iter().zip(cells).zip(rows) {
        let cells = group_of(cells);
        if cells.iter().fold(0, |all, cell| all | cell) == 0 {
            *row = Row::NOTHING;
            continue;
        }
        let mut numbers = [[0; GROUP_SITES]; NUMBERS];
        match layout {
            Layout::Packed { shifts, masks } => {
                for (numbers, (shift, mask)) in numbers.iter_mut().zip(shifts.iter().zip(masks)) {
                    for l in 0..GROUP_SITES {
                        numbers[l] = (cells[l] >> shift) & mask;
                    }
                }
            }
            Layout::Wide(index) => {
                for (numbers, wide) in numbers.iter_mut().zip(&wide[*index]) {
                    *numbers = group_of(wide);
                }
            }
        }
        step(states, &cells, &numbers, row);
    }
}

/// Updates the states of sixteen sites for one slice. The numbers of a site that did not change are masked to
/// zero.
#[inline(always)]
fn step(states: &mut States, cells: &GroupValues, numbers: &[GroupValues; NUMBERS], row: &mut Row) {
    let [allocs_column, frees_column, bytes_column, freed_column] = numbers;
    let mut named = [0u64; GROUP_SITES];
    let (mut allocs, mut bytes) = ([0u64; GROUP_SITES], [0u64; GROUP_SITES]);
    let mut has_gained = 0u64;
    for l in 0..GROUP_SITES {
        let is_named = ((cells[l] as i64) >> 63) as u64;
        let step = unzigzag(allocs_column[l]).wrapping_add(states.step[l]) & is_named;
        let size = unzigzag(bytes_column[l]).wrapping_add(step.wrapping_mul(states.mean_bytes[l])) & is_named;
        let (before, after) = (states.allocs[l], states.allocs[l].wrapping_add(step));
        has_gained |= u64::from((before ^ after) > (before & after));
        states.allocs[l] = after;
        states.allocated_bytes[l] = states.allocated_bytes[l].wrapping_add(size);
        states.step[l] = (step & is_named) | (states.step[l] & !is_named);
        (named[l], allocs[l], bytes[l]) = (is_named, step, size);
    }
    row.allocs = allocs.iter().fold(0, |sum, step| sum.wrapping_add(*step));
    if has_gained != 0 {
        renew_means(states, &allocs);
    }
    for l in 0..GROUP_SITES {
        let had_frees = u64::from(states.frees[l] == 0).wrapping_sub(1);
        let frees = unzigzag(frees_column[l]).wrapping_add(had_frees & allocs[l]) & named[l];
        let same = u64::from(frees != allocs[l]).wrapping_sub(1);
        let expected = (same & bytes[l]) | (!same & frees.wrapping_mul(states.mean_bytes[l]));
        let freed = unzigzag(freed_column[l]).wrapping_add(expected) & named[l];
        states.frees[l] = states.frees[l].wrapping_add(frees);
        states.freed_bytes[l] = states.freed_bytes[l].wrapping_add(freed);
        row.named[l] = named[l];
        row.live_bytes[l] = states.allocated_bytes[l].saturating_sub(states.freed_bytes[l]);
        row.live_count[l] = states.allocs[l].saturating_sub(states.frees[l]);
    }
}

/// Computes the mean size again for each site whose number of allocations needs one more bit than before. The
/// number needs one more bit each time it has about doubled.
#[cold]
#[inline(never)]
fn renew_means(states: &mut States, steps: &GroupValues) {
    for (l, step) in steps.iter().enumerate() {
        let (before, after) = (states.allocs[l].wrapping_sub(*step), states.allocs[l]);
        if (before ^ after) > (before & after) {
            states.mean_bytes[l] = states.allocated_bytes[l].checked_div(after).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SiteId;
    use crate::layout::delta::{Decoder, Encoder};
    use crate::slice::{SliceHeader, SliceVisitor};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Live bytes and live count, with the slice and the site as the key.
    type Live = BTreeMap<(usize, u32), (u64, u64)>;

    #[derive(Default)]
    struct ByTime {
        slices: usize,
        live: Live,
        newest: BTreeMap<u32, Counters>,
        /// For each slice, the number of allocations of all sites from the start up to this slice.
        allocs: Vec<u64>,
    }

    impl SliceVisitor for ByTime {
        fn slice(&mut self, _: &SliceHeader, changed: &[(SiteId, Counters)]) {
            for (SiteId(id), counters) in changed {
                self.live.insert((self.slices, *id), (counters.live_bytes(), counters.live_count()));
                self.newest.insert(*id, *counters);
            }
            self.slices += 1;
            self.allocs.push(self.newest.values().fold(0, |sum: u64, now| sum.wrapping_add(now.allocs)));
        }
    }

    fn by_site(columns: &Columns, first_site: usize) -> (Live, BTreeMap<u32, Counters>, Vec<u64>) {
        let (mut live, mut newest) = (Live::new(), BTreeMap::new());
        let mut allocs = vec![0u64; columns.slices()];
        let (mut reader, mut rows) = (TileReader::new(columns, first_site), Vec::new());
        for tile in (first_site..columns.sites()).step_by(TILE_SITES) {
            for first in (0..columns.slices()).step_by(CHUNK_SLICES) {
                reader.place(first, CHUNK_SLICES.min(columns.slices() - first));
                for group in 0..TILE_SITES / GROUP_SITES {
                    reader.rows(group, &mut rows);
                    for (slice, row) in rows.iter().enumerate() {
                        allocs[first + slice] = allocs[first + slice].wrapping_add(row.allocs);
                        for lane in (0..GROUP_SITES).filter(|&lane| row.named[lane] != 0) {
                            let id = (tile + group * GROUP_SITES + lane) as u32;
                            live.insert((first + slice, id), (row.live_bytes[lane], row.live_count[lane]));
                        }
                    }
                }
            }
            let counters = (0..TILE_SITES).map(|site| ((tile + site) as u32, reader.counters(site)));
            newest.extend(counters.filter(|(_, counters)| *counters != Counters::ZERO));
            reader.next_tile();
        }
        let sum = |sum: &mut u64, since: u64| {
            *sum = sum.wrapping_add(since);
            Some(*sum)
        };
        (live, newest, allocs.into_iter().scan(0, sum).collect())
    }

    /// Checks that reading a payload site by site and reading it slice by slice give equal values.
    fn assert_same(payload: &[u8], last_tick: u64) {
        let mut by_time = ByTime::default();
        let _slices = Decoder::default().decode(payload, 0, last_tick, &mut by_time);
        let mut columns = Columns::default();
        columns.raw.extend_from_slice(payload);
        columns.locate(0, last_tick);
        assert_eq!(columns.slices(), by_time.slices);
        by_time.newest.retain(|_, counters| *counters != Counters::ZERO);
        for first_site in [0, TILE_SITES, 5 * TILE_SITES] {
            let (live, newest, allocs) = by_site(&columns, first_site);
            if first_site == 0 {
                assert_eq!(allocs, by_time.allocs);
            }
            by_time.live.retain(|(_, id), _| *id as usize >= first_site);
            by_time.newest.retain(|id, _| *id as usize >= first_site);
            assert_eq!(live, by_time.live);
            assert_eq!(newest, by_time.newest);
        }
    }

    /// Makes counters with few bits and counters with many bits, so that the test uses both layouts of cells.
    fn counters() -> impl Strategy<Value = Counters> {
        (any::<[u64; 4]>(), 0..64u32).prop_map(|(numbers, shift)| {
            let [allocated_bytes, allocs, freed_bytes, frees] = numbers.map(|number| number >> shift);
            Counters { allocated_bytes, allocs, freed_bytes, frees }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn by_site_and_by_time_are_the_same(
            slices in prop::collection::vec(
                prop::collection::btree_map(0u32..1000, counters(), 0..60), 0..2 * CHUNK_SLICES + 2),
            crowd in 0u32..1000,
        ) {
            let mut encoder = Encoder::new();
            encoder.begin(0);
            let mut table = BTreeMap::new();
            for (tick, changed) in (0..).zip(&slices) {
                table.extend(changed.clone());
                // Many ids that are close together, and one id that is far away.
                let steady = |id| (id, Counters { allocs: tick + 1, ..Counters::ZERO });
                table.extend((2000..2000 + crowd).chain([50_000]).map(steady));
                let header = SliceHeader { tick, ..SliceHeader::default() };
                encoder.slice(&header, table.iter().map(|(id, now)| (SiteId(*id), *now)));
            }
            assert_same(&encoder.finish(), u64::MAX);
        }

        #[test]
        fn no_payload_makes_the_reader_panic(payload: Vec<u8>) {
            assert_same(&payload, u64::MAX);
        }
    }
}
