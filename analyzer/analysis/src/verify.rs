//! Checks a trace for damage: counts its undamaged and its damaged blocks.

use edleak_format::{Counters, SiteId, SliceHeader, SliceVisitor, Trace};
use edleak_text::units::plural;
use std::io::{self, Write};

/// The counts of the undamaged and the damaged parts of a trace.
#[derive(Debug)]
pub struct Verification {
    /// Version of the trace format.
    pub(crate) format_version: u32,
    /// Number of undamaged blocks: all their slices can be decoded.
    pub(crate) sound_blocks: u64,
    /// Number of slices in the undamaged blocks.
    pub(crate) slices: u64,
    /// Number of blocks that cannot be decoded, because they are incomplete or damaged, or because their
    /// content does not match their header.
    pub(crate) damaged_blocks: u64,
    /// Number of bytes that belong to no undamaged block.
    pub(crate) damaged_bytes: u64,
    /// Number of slices that are known to be lost.
    pub(crate) lost_slices: u64,
    /// Number of sites in the catalog.
    pub(crate) sites: u64,
    /// Number of modules in the catalog.
    pub(crate) modules: u64,
    /// Number of stacks in the catalog.
    pub(crate) stacks: u64,
    /// Whether the recording ended in an orderly way.
    pub(crate) is_ended: bool,
}

#[derive(Default)]
struct Count(u64);

impl SliceVisitor for Count {
    fn slice(&mut self, _header: &SliceHeader, _changed: &[(SiteId, Counters)]) {
        self.0 += 1;
    }
}

impl Verification {
    /// Reads all of `trace`.
    pub fn of(trace: &Trace) -> Self {
        let mut count = Count::default();
        let (mut sound_blocks, mut damaged_blocks) = (0, trace.damage().torn_blocks);
        for (index, block) in trace.blocks().iter().enumerate() {
            let before = count.0;
            let is_read = trace.replay_block(index, &mut count).is_ok();
            if is_read && count.0 - before == u64::from(block.slices) {
                sound_blocks += 1;
            } else {
                damaged_blocks += 1;
            }
        }
        Self {
            format_version: trace.format_version(),
            sound_blocks,
            slices: count.0,
            damaged_blocks,
            damaged_bytes: trace.damage().skipped_bytes,
            lost_slices: trace.damage().lost_slices,
            sites: trace.sites().len() as u64,
            modules: trace.modules().len() as u64,
            stacks: trace.stacks().len() as u64,
            is_ended: trace.end().is_some(),
        }
    }

    /// Whether the trace has no damage. The trace of an interrupted recording counts as undamaged if all
    /// its blocks are complete.
    pub fn is_sound(&self) -> bool {
        self.damaged_blocks == 0 && self.damaged_bytes == 0 && self.lost_slices == 0
    }

    /// Writes the result as a few lines of text.
    ///
    /// # Errors
    /// `out` cannot be written to.
    pub fn write(&self, name: &str, out: &mut dyn Write) -> io::Result<()> {
        let state = match (self.is_sound(), self.is_ended) {
            (true, true) => "sound and complete",
            (true, false) => "sound; the recording was cut short, or still runs",
            (false, _) => "damaged; what is sound was read",
        };
        writeln!(out, "{name}: {state}")?;
        writeln!(out, "format:  version {}", self.format_version)?;
        writeln!(
            out,
            "sound:   {} in {}; {}, {}, {}",
            plural(self.slices, "slice", "slices"),
            plural(self.sound_blocks, "block", "blocks"),
            plural(self.sites, "site", "sites"),
            plural(self.modules, "module", "modules"),
            plural(self.stacks, "stack", "stacks"),
        )?;
        if self.is_sound() {
            return writeln!(out, "damaged: nothing");
        }
        writeln!(
            out,
            "damaged: {}, {} outside of sound blocks, {} known to be lost",
            plural(self.damaged_blocks, "block", "blocks"),
            plural(self.damaged_bytes, "byte", "bytes"),
            plural(self.lost_slices, "slice", "slices"),
        )
    }
}
