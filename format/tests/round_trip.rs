//! What was written is read, at every size boundary.

mod common;

use common::{TempFile, read, write};
use edleak_format::{DEFAULT_CAPACITY_BYTES, Trace, TraceWriter};

#[test]
fn every_slice_is_read_back_before_and_after_finish() {
    for (sites, slices) in [(0, 0), (0, 1), (1, 1), (1, 2), (1, 5000), (40, 700), (3000, 20)] {
        let file = TempFile::new(&format!("round-{sites}-{slices}"));
        let mut writer = TraceWriter::create(&file.0, DEFAULT_CAPACITY_BYTES).expect("a new file");
        let model = write(&mut writer, sites, 0..slices).expect("there is room");
        writer.sync().expect("there is room");
        let trace = Trace::open(&file.0).expect("open while writing");
        assert!(trace.damage().is_sound(), "{:?}", trace.damage());
        assert!(read(&trace) == model, "{sites} sites, {slices} slices, not finished");
        assert_eq!(trace.sites().len(), sites as usize);

        let length = writer.finish().expect("there is room");
        assert_eq!(length, std::fs::metadata(&file.0).expect("it is there").len());
        let trace = Trace::open(&file.0).expect("a finished trace");
        assert!(trace.damage().is_sound(), "{:?}", trace.damage());
        assert!(read(&trace) == model, "{sites} sites, {slices} slices");
        assert_eq!(trace.sites().len(), sites as usize);
        assert_eq!(trace.start().pid, 42);
        assert_eq!(trace.grid().points, slices as usize);
        assert_eq!(trace.blocks().iter().map(|block| u64::from(block.slices)).sum::<u64>(), slices);
    }
}
