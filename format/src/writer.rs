//! Slices and records to the trace file.
#![allow(missing_docs)]
use crate::{Counters, Error, Record, SliceHeader, Trace};
use std::path::Path;

/// The capacity of a trace when nobody asks for another: 64 MiB.
pub const DEFAULT_CAPACITY_BYTES: u64 = 64 << 20;
/// The smallest capacity that holds a trace.
pub const MIN_CAPACITY_BYTES: u64 = 256 << 10;

pub struct TraceWriter {}

impl TraceWriter {
    pub fn create(_path: &Path, _capacity_bytes: u64) -> Result<TraceWriter, Error> {
        unimplemented!()
    }
    pub fn record(&mut self, _record: &Record) -> Result<(), Error> {
        unimplemented!()
    }
    pub fn slice(&mut self, _header: &SliceHeader, _counters: &[Counters]) -> Result<(), Error> {
        unimplemented!()
    }
    pub fn sync(&mut self) -> Result<(), Error> {
        unimplemented!()
    }
    pub fn bytes(&self) -> u64 {
        unimplemented!()
    }
    pub fn finish(self) -> Result<u64, Error> {
        unimplemented!()
    }
}

/// Copies a trace: every record passes through `map` (None drops it), `extra` is appended, slices are copied as they are.
pub fn rewrite(
    _from: &Trace,
    _to: &Path,
    _capacity_bytes: u64,
    _map: impl FnMut(Record) -> Option<Record>,
    _extra: impl IntoIterator<Item = Record>,
) -> Result<u64, Error> {
    unimplemented!()
}
