//! The lock of a trace: a recorder holds it as long as it writes.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

/// Whether a recorder is writing the trace at `path`. Where a file system has no locks, nobody can tell: then it is not.
pub fn is_being_written(path: &Path) -> bool {
    matches!(ask(path), Some(Err(TryLockError::WouldBlock)))
}

/// Whether a recorder may be writing the trace at `path`. Where a file system has no locks it may be.
pub(crate) fn may_be_written(path: &Path) -> bool {
    matches!(ask(path), Some(Err(_)))
}

/// Asks for the lock as a reader; `None`: there is no such file.
fn ask(path: &Path) -> Option<Result<(), TryLockError>> {
    // Anything but a file is no trace, and opening it might wait for somebody.
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file.then(|| File::open(path).ok()).flatten().map(|file| file.try_lock_shared())
}

/// Takes the lock for writing. A reader that asks ([`is_being_written`]) holds it for an instant, which is no reason to give
/// up. A file system without locks has to do without.
pub fn take(file: &File) -> bool {
    const ATTEMPTS: u32 = 10;
    (0..ATTEMPTS).any(|attempt| {
        std::thread::sleep(Duration::from_millis(attempt.into()));
        !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    })
}
