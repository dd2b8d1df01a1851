//! A pipe between two processes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Both ends of a pipe, the end for reading first; exec closes them.
pub(crate) fn pipe() -> io::Result<(File, File)> {
    let (read, write) = io::pipe()?;
    Ok((OwnedFd::from(read).into(), OwnedFd::from(write).into()))
}
