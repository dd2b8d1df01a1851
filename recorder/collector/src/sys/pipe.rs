//! A pipe between two processes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Makes a pipe. The first file of the result is the end for reading, the second is the end for writing. An
/// exec closes both ends of the pipe.
pub(crate) fn pipe() -> io::Result<(File, File)> {
    let (read, write) = io::pipe()?;
    Ok((OwnedFd::from(read).into(), OwnedFd::from(write).into()))
}
