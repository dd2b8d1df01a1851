//! The blocks of one window, decompressed, and the grid points of their slices.

use edleak_format::{Columns, Grid, SliceHeader, Trace};

/// A block, decompressed.
#[derive(Default)]
pub(super) struct Opened {
    /// Its slices.
    pub columns: Columns,
    /// For each slice of the block, the point from which its values apply.
    pub steps: Vec<Step>,
    /// Whether the block could not be read to its end. `columns` holds the slices before the unreadable part.
    pub is_unreadable: bool,
}

/// The point from which the values of a slice apply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The values apply from this grid point on. For a slice after the last point, this is the number of
    /// points; only the totals of such a slice count.
    pub point: u32,
    /// Whether the slice lies on the grid.
    pub counts: bool,
}

impl Opened {
    /// Opens block `index` and reuses the buffers.
    pub(super) fn open(&mut self, trace: &Trace, index: usize, grid: Grid) {
        self.is_unreadable = trace.columns(index, &mut self.columns).is_err();
        self.steps.clear();
        self.steps.extend((0..self.columns.slices()).map(|slice| {
            let point = grid.point_of(self.columns.header(slice).tick);
            // The number fits: a grid has fewer points than a u32 holds.
            Step { point: point.unwrap_or(grid.points) as u32, counts: point.is_some() }
        }));
    }

    /// The headers of its slices.
    pub(super) fn headers(&self) -> impl Iterator<Item = &SliceHeader> {
        (0..self.columns.slices()).map(|slice| self.columns.header(slice))
    }
}
