//! A pipe between two processes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Makes a pipe. Returns the end for reading and then the end for writing. An exec closes both ends.
pub(crate) fn pipe() -> io::Result<(File, File)> {
    let (read, write) = io::pipe()?;
    Ok((OwnedFd::from(read).into(), OwnedFd::from(write).into()))
}
