//! Tells one image of a process (the program between two execs) from the next one.

use crate::sys::proc_file;
use crate::sys::process;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Identifies one image of a process by the program file and by the start of the process's stack. After an
/// exec, the stack starts at another address, even if the process executes the same file again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Image {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) stack_start: u64,
}

impl Image {
    /// The current image of a process; `None`: the process has ended, is just executing a program, or this
    /// user may not inspect it.
    pub(crate) fn of(pid: u32) -> Option<Image> {
        let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        let stack_start = stack_start(&proc_file::read_text(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Image { device: file.dev(), inode: file.ino(), stack_start })
    }

    /// Whether a process with the image `before` has executed another program since then, or is executing one
    /// now. If `before` is `None`, the result is `false`.
    pub(crate) fn has_changed(pid: u32, before: Option<Image>) -> bool {
        before.is_some() && Image::of(pid) != before
    }
}

/// The start of the process's stack: the 28th field of /proc/PID/stat. The kernel shows 0 if this user
/// may not inspect the process.
fn stack_start(stat: &str) -> Option<u64> {
    process::stat_field(stat, 28).filter(|&address| address != 0)
}
