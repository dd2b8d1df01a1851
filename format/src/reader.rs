//! The trace file to slices and records.
#![allow(missing_docs)]
use crate::{
    End, Error, Losses, Module, ModuleId, ModuleSymbols, Record, Site, SiteId, SliceVisitor, Stack, StackId,
    Start, Survivors,
};
use std::path::Path;

/// A sound block of slices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Tick of its first slice.
    pub first_tick: u64,
    /// The last tick it covers.
    pub last_tick: u64,
    /// How many slices it holds.
    pub slices: u32,
    /// Distance of its slices.
    pub stride_ticks: u64,
}

/// What of a trace is not sound.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Damage {
    /// Blocks whose content does not match their checksum, or that the end of the file cuts.
    pub torn_blocks: u64,
    /// Bytes that belong to no sound block.
    pub skipped_bytes: u64,
    /// Slices known to be lost (where only a span of ticks is known, the slices due in it).
    pub lost_slices: u64,
}

impl Damage {
    /// Nothing is damaged.
    pub fn is_sound(&self) -> bool {
        *self == Damage::default()
    }
}

/// The evenly spaced points of a trace: the multiples of `stride_ticks` from the first slice to the last.
///
/// The value at a point is that of the newest slice whose tick is not after it: where a due slice is missing, the previous
/// value is carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Distance of two points: the coarsest stride in the trace.
    pub stride_ticks: u64,
    /// Tick of the first point.
    pub first_tick: u64,
    /// Number of points.
    pub points: usize,
}

impl Grid {
    /// The first point at which a slice of this tick is in effect (a later slice with the same answer replaces it); `None`
    /// after the last point.
    pub fn point_of(&self, tick: u64) -> Option<usize> {
        let index = tick.saturating_sub(self.first_tick).div_ceil(self.stride_ticks);
        usize::try_from(index).ok().filter(|&index| index < self.points)
    }
    /// A slice of this tick lies on a point.
    pub fn contains(&self, tick: u64) -> bool {
        tick >= self.first_tick && tick % self.stride_ticks == 0 && self.point_of(tick).is_some()
    }
}

pub struct Trace {}

impl Trace {
    pub fn open(_path: &Path) -> Result<Trace, Error> {
        unimplemented!()
    }
    pub fn from_bytes(_bytes: Vec<u8>) -> Result<Trace, Error> {
        unimplemented!()
    }
    pub fn start(&self) -> &Start {
        unimplemented!()
    }
    pub fn end(&self) -> Option<&End> {
        unimplemented!()
    }
    pub fn losses(&self) -> &Losses {
        unimplemented!()
    }
    pub fn modules(&self) -> &[Module] {
        unimplemented!()
    }
    pub fn sites(&self) -> &[Site] {
        unimplemented!()
    }
    pub fn stacks(&self) -> &[Stack] {
        unimplemented!()
    }
    pub fn site(&self, _id: SiteId) -> Option<&Site> {
        unimplemented!()
    }
    pub fn module(&self, _id: ModuleId) -> Option<&Module> {
        unimplemented!()
    }
    pub fn stack(&self, _id: StackId) -> Option<&Stack> {
        unimplemented!()
    }
    pub fn survivors(&self) -> &[Survivors] {
        unimplemented!()
    }
    pub fn symbols(&self) -> &[ModuleSymbols] {
        unimplemented!()
    }
    /// Every record of the catalog, newest of each key: `Start` first, `Losses` and `End` last.
    pub fn records(&self) -> Vec<Record> {
        unimplemented!()
    }
    pub fn blocks(&self) -> &[BlockInfo] {
        unimplemented!()
    }
    pub fn replay_block<V: SliceVisitor>(&self, _index: usize, _visitor: &mut V) -> Result<(), Error> {
        unimplemented!()
    }
    pub fn damage(&self) -> &Damage {
        unimplemented!()
    }
    pub fn format_version(&self) -> u32 {
        unimplemented!()
    }
    /// The coarsest stride in the trace.
    pub fn stride_ticks(&self) -> u64 {
        unimplemented!()
    }
    pub fn grid(&self) -> Grid {
        unimplemented!()
    }
}
