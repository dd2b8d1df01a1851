//! Tests a file system that is really full: a tmpfs of 200 KB in a mount namespace of the test.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{read, write};
use edleak_format::{DEFAULT_CAPACITY_BYTES, End, EndReason, ErrorKind, Record, Trace, TraceWriter};

/// Environment variable with the path of the small file system, for the process that runs in it.
const DIRECTORY: &str = "EDLEAK_TEST_FULL_DISK";

#[test]
fn a_full_file_system_ends_the_recording_and_the_trace_is_finished() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return fill(Path::new(&directory));
    }
    let directory = std::env::temp_dir().join(format!("edleak-full-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a new directory");
    let is_allowed =
        Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success());
    let status = is_allowed.then(|| {
        Command::new("unshare")
            .args([
                "-rm",
                "sh",
                "-ec",
                r#"mount -t tmpfs -o size=200k none "$1"; exec "$2" --nocapture"#,
                "sh",
            ])
            .args([&directory, &std::env::current_exe().expect("this test")])
            .env(DIRECTORY, &directory)
            .status()
            .expect("it was found above")
    });
    std::fs::remove_dir(&directory).expect("it was mounted on elsewhere");
    match status {
        Some(status) => assert!(status.success(), "{status}"),
        None => {
            assert!(std::env::var_os("CI").is_none(), "CI may make mount namespaces");
            eprintln!("not run: no right to mount a small file system");
        }
    }
}

fn fill(directory: &Path) {
    let file: PathBuf = directory.join("trace.edl");
    let mut writer = TraceWriter::create(&file, DEFAULT_CAPACITY_BYTES).expect("a page fits");
    let error = write(&mut writer, 300, 0..100_000).expect_err("200 KB are soon full");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(error.raw_os_error(), Some(28), "ENOSPC");
    let slices = read(&Trace::open(&file).expect("what was written")).len();
    assert!(slices > 100, "{slices} slices");

    writer.record(&Record::End(End { reason: EndReason::DiskFull, at_ns: 1 })).expect("it is only noted");
    writer.finish().expect("the journal has room for the end");
    let trace = Trace::open(&file).expect("a finished trace");
    assert_eq!(trace.end().map(|end| end.reason), Some(EndReason::DiskFull));
    assert_eq!(read(&trace).len(), slices);
    assert!(trace.damage().is_sound(), "{:?}", trace.damage());
}
