//! Copies a trace with a changed catalog. edleak uses this to embed symbols and to remove names.

use std::path::Path;

use crate::error::Error;
use crate::ids::{AreaId, SiteId};
use crate::layout::delta::Encoder;
use crate::memory::AreaBytes;
use crate::read::trace::Trace;
use crate::record::Record;
use crate::slice::{Counters, SliceHeader, SliceVisitor};
use crate::write::trace_writer::TraceWriter;

/// Copies `from` to the file `to` and returns the length of the new file. `map` gets every record and returns
/// the record to write; if `map` returns `None`, the copy does not have the record. After these records, the
/// copy gets the records of `extra`. Blocks of slices are copied unchanged.
///
/// `capacity_bytes` must be enough for the whole copy. The length of the file `from` plus
/// [`DEFAULT_CAPACITY_BYTES`](crate::DEFAULT_CAPACITY_BYTES) is always enough for the slices.
///
/// # Errors
/// The errors of reading `from` and of writing `to`.
pub fn rewrite(
    from: &Trace,
    to: &Path,
    capacity_bytes: u64,
    map: impl FnMut(Record) -> Option<Record>,
    extra: impl IntoIterator<Item = Record>,
) -> Result<u64, Error> {
    let mut writer = TraceWriter::create(to, capacity_bytes)?;
    for record in from.records().into_iter().filter_map(map).chain(extra) {
        writer.record(&record)?;
    }
    writer.sync()?;
    for index in 0..from.blocks().len() {
        match from.compressed_block(index)? {
            Some((header, payload)) => writer.copy_compressed(&header, &payload)?,
            None => {
                let header = from.block_header(index);
                writer.encoder.begin(header.from_tick);
                from.replay_block(index, &mut Reencode(&mut writer.encoder))?;
                writer.add_copied(header)?;
            }
        }
    }
    writer.finish()
}

struct Reencode<'a>(&'a mut Encoder);

impl SliceVisitor for Reencode<'_> {
    fn memory(&mut self, _: &SliceHeader, changed: &[(AreaId, AreaBytes)]) {
        self.0.memory_changed(changed);
    }

    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        self.0.slice(header, changed.iter().copied());
    }
}
