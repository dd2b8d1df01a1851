//! What the traces beside that of the root process are called.

use std::path::{Path, PathBuf};

/// `NAME.PID.edl`, beside the trace of the root process.
pub(crate) fn child_path(output: &Path, pid: u32) -> PathBuf {
    beside(output, &pid.to_string())
}

/// `NAME.WORD.edl`, beside `NAME.edl`.
pub(super) fn beside(output: &Path, word: &str) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.strip_suffix(".edl").unwrap_or(&name);
    output.with_file_name(format!("{stem}.{word}.edl"))
}

#[cfg(test)]
mod tests {
    use super::child_path;
    use std::path::Path;

    #[test]
    fn children_have_traces_of_their_own() {
        assert_eq!(child_path(Path::new("/tmp/a/trace.edl"), 7), Path::new("/tmp/a/trace.7.edl"));
        assert_eq!(child_path(Path::new("out"), 7), Path::new("out.7.edl"));
    }
}
