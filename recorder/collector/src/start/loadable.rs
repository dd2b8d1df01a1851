//! Checks two conditions for a preload library: its path can be written in LD_PRELOAD (without spaces and
//! colons), and the loader can map its code.
#![allow(unsafe_code)] // maps a file to test whether this is possible

use crate::error::{Error, ErrorKind};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The file name of the preload library.
pub(crate) const NAME: &str = "libedleak_preload.so";

/// The error to report if edleak-record cannot use a library file.
pub(crate) fn library(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Library, why.to_string())
}

/// Checks that the path can be written in LD_PRELOAD.
pub(crate) fn can_be_named(path: &Path) -> Result<(), Error> {
    if path.as_os_str().as_bytes().iter().any(|byte| b" \t\n:;".contains(byte)) {
        return Err(library(
            "its path holds a space, a colon or a semicolon, which LD_PRELOAD cannot express",
        ));
    }
    Ok(())
}

/// Checks that the loader can map code from the file, which is impossible if the file system is mounted with
/// `noexec`.
pub(crate) fn can_be_executed(path: &Path) -> Result<(), Error> {
    let file = File::open(path).map_err(library)?;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
    // SAFETY: the kernel chooses the address of the new mapping, and no code reads from this mapping.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 1, protection, flags, file.as_raw_fd(), 0) };
    if mapped == libc::MAP_FAILED {
        let error = io::Error::last_os_error();
        return Err(library(format!("code cannot be loaded from there: {error}"))
            .with_remedy("is it mounted noexec?"));
    }
    // SAFETY: the mmap call above made this mapping, and no code uses the mapping.
    unsafe { libc::munmap(mapped, 1) };
    Ok(())
}
