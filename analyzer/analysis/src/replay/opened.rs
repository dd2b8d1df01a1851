//! The blocks of one window, opened, and where on the grid their slices lie.

use edleak_format::{Columns, Grid, SliceHeader, Trace};

/// A block, decompressed.
#[derive(Default)]
pub(super) struct Opened {
    /// Its slices.
    pub columns: Columns,
    /// For each slice, when its values come into effect.
    pub steps: Vec<Step>,
    /// The block could not be read after all; what could be is in `columns`.
    pub is_unreadable: bool,
}

/// When the values of a slice come into effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// From this grid point on; the number of points for a slice after the last one, where only the totals count.
    pub point: u32,
    /// It is no such slice.
    pub counts: bool,
}

impl Opened {
    /// Opens block `index`. The buffers are kept.
    pub(super) fn open(&mut self, trace: &Trace, index: usize, grid: Grid) {
        self.is_unreadable = trace.columns(index, &mut self.columns).is_err();
        self.steps.clear();
        self.steps.extend((0..self.columns.slices()).map(|slice| {
            let point = grid.point_of(self.columns.header(slice).tick);
            // A grid has fewer points than a u32 holds.
            Step { point: point.unwrap_or(grid.points) as u32, counts: point.is_some() }
        }));
    }

    /// The headers of its slices.
    pub(super) fn headers(&self) -> impl Iterator<Item = &SliceHeader> {
        (0..self.columns.slices()).map(|slice| self.columns.header(slice))
    }
}
