//! The paths of the traces that edleak writes into the directory of the root process's trace.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The path of a child's trace: `NAME.PID.edl`, in the directory of the root process's trace.
pub(crate) fn child_path(output: &Path, pid: u32) -> PathBuf {
    beside(output, &pid.to_string())
}

/// The path `NAME.WORD.edl`, in the directory of `NAME.edl`.
pub(super) fn beside(output: &Path, word: &str) -> PathBuf {
    let name = output.file_name().unwrap_or_default().as_bytes();
    let stem = name.strip_suffix(b".edl").unwrap_or(name);
    let name = [stem, b".", word.as_bytes(), b".edl"].concat();
    output.with_file_name(OsStr::from_bytes(&name))
}

#[cfg(test)]
mod tests {
    use super::child_path;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    #[test]
    fn children_have_traces_of_their_own() {
        assert_eq!(child_path(Path::new("/tmp/a/trace.edl"), 7), Path::new("/tmp/a/trace.7.edl"));
        assert_eq!(child_path(Path::new("out"), 7), Path::new("out.7.edl"));
        let (output, child) = (OsStr::from_bytes(b"/a/t\xff.edl"), OsStr::from_bytes(b"/a/t\xff.7.edl"));
        assert_eq!(child_path(Path::new(output), 7), Path::new(child));
    }
}
