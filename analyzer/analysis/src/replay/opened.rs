//! The decompressed blocks of one window (the blocks that a replay keeps in memory at the same time), and the
//! grid points of their slices.

use edleak_format::{Columns, Grid, SliceHeader, Trace};

/// A decompressed block.
#[derive(Default)]
pub(super) struct Opened {
    /// The slices of the block.
    pub(crate) columns: Columns,
    /// For each slice of the block, the grid point from which the values of the slice apply.
    pub(crate) steps: Vec<Step>,
    /// Whether only the first slices of the block could be read, because the rest is damaged. `columns` holds
    /// the slices before the unreadable part.
    pub(crate) is_unreadable: bool,
}

/// The grid point from which the values of a slice apply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The values of the slice apply from this grid point on. For a slice after the last grid point, `point`
    /// is the number of grid points; the values of such a slice serve as totals at the end of the recording,
    /// and as the end of a gap.
    pub(crate) point: u32,
    /// Whether the slice belongs to the grid, so that its values are part of the series.
    pub(crate) counts: bool,
}

impl Opened {
    /// Decompresses the block `index` into the buffers of this `Opened`, which keep their memory for the next
    /// block.
    pub(super) fn open(&mut self, trace: &Trace, index: usize, grid: Grid) {
        self.is_unreadable = trace.columns(index, &mut self.columns).is_err();
        self.steps.clear();
        self.steps.extend((0..self.columns.slices()).map(|slice| {
            let point = grid.point_of(self.columns.header(slice).tick);
            // The point fits into a u32, because a grid has less than 2³² points.
            Step { point: point.unwrap_or(grid.points) as u32, counts: point.is_some() }
        }));
    }

    /// The headers of the block's slices.
    pub(super) fn headers(&self) -> impl Iterator<Item = &SliceHeader> {
        (0..self.columns.slices()).map(|slice| self.columns.header(slice))
    }
}
