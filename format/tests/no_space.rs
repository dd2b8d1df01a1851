//! A full disk ends the recording with an error, and all slices before the error stay readable.

mod common;

use common::{TempFile, read, write};
use edleak_format::{DEFAULT_CAPACITY_BYTES, End, EndReason, ErrorKind, Record, Trace, TraceWriter};

/// This test must be the only test of its file, because the limit of the file size applies to the whole
/// process.
#[test]
fn a_file_size_limit_is_an_error_and_not_a_signal() {
    const LIMIT: u64 = 200_000;
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a valid rlimit, and the call only reads it.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);

    let file = TempFile::new("no-space");
    let mut writer = TraceWriter::create(&file.0, DEFAULT_CAPACITY_BYTES).expect("a page fits");
    let mut last = 0;
    let error = loop {
        // Each call of `write` begins again with counters of 0. The new counters do no harm, because the test
        // compares only the ticks of the last slices.
        match write(&mut writer, 300, last..last + 50) {
            Ok(_) => last += 50,
            Err(error) => break error,
        }
        assert!(last < 100_000, "the limit was never met");
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("no-space.edl"), "{error}");
    assert!(error.to_string().ends_with("use a smaller --size)"), "{error}");
    let while_full = Trace::open(&file.0).expect("what was written");
    let before = read(&while_full).len() as u64;
    assert!(before >= last && before < last + 50, "{before} of {last} slices");

    writer
        .record(&Record::End(End { reason: EndReason::DiskFull, at_ns: u64::MAX }))
        .expect("it is only noted");
    let length = writer.finish().expect("a full disk does not keep a trace from ending");
    assert!(length <= LIMIT);
    let trace = Trace::open(&file.0).expect("a finished trace");
    assert_eq!(trace.end().map(|end| end.reason), Some(EndReason::DiskFull));
    assert_eq!(read(&trace).len() as u64, before);
    assert_eq!(trace.sites().len(), 300);
    assert!(trace.damage().is_sound(), "{:?}", trace.damage());
}
