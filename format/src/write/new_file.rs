//! The beginning of a trace: checks the capacity, creates and locks the file, and makes the first page.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, ErrorKind};
use crate::layout::header::{FORMAT_VERSION, Header};
use crate::place;

/// The smallest capacity that holds a useful trace: 256 KiB.
pub const MIN_CAPACITY_BYTES: u64 = 256 << 10;

/// Creates and locks the file of a trace. Only the owner of the file can read it. If the file exists already,
/// it must be empty.
pub(crate) fn create(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => Error::new(ErrorKind::Io, "it is a link (name the file that it leads to)"),
            _ => Error::io("cannot create the file", error),
        })?;
    if !place::lock(&file) {
        return Err(Error::new(ErrorKind::InUse, "another recording is writing it"));
    }
    let made = file.metadata().map_err(|error| Error::io("cannot inspect the file", error))?;
    if place::is_foreign(path, &made) {
        let reason =
            "it belongs to another user, in a directory that everybody may write to (choose another file)";
        return Err(Error::new(ErrorKind::Io, reason));
    }
    if !place::is_at(&file, path) {
        return Err(Error::new(ErrorKind::InUse, "another recording has just taken its name"));
    }
    if made.len() > 0 {
        return Err(
            Error::new(ErrorKind::AlreadyExists, "there is a file of that name").with_remedy("move it away")
        );
    }
    Ok(file)
}

/// Rounds the capacity to whole pages.
pub(crate) fn checked_capacity(capacity_bytes: u64) -> Result<u64, Error> {
    if capacity_bytes < MIN_CAPACITY_BYTES {
        return Err(Error::new(
            ErrorKind::CapacityTooSmall,
            format!("a capacity of {capacity_bytes} bytes is less than {MIN_CAPACITY_BYTES}"),
        )
        .with_remedy("use --size 256K or more"));
    }
    Ok(capacity_bytes / 4096 * 4096)
}

/// A new salt, and the first page of a trace with this salt.
pub(crate) fn first_page(capacity_bytes: u64) -> (u64, Vec<u8>) {
    let salt = random_salt();
    (salt, Header { version: FORMAT_VERSION, capacity_bytes, salt }.to_page())
}

/// A number that is different for each trace. The number need not be secret, because it only keeps apart the
/// blocks of different traces.
fn random_salt() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
