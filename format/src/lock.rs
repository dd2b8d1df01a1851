//! The lock of a trace: the collector holds it while it writes the trace.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

/// Whether a collector may be writing the trace at `path`; `true` on a file system without locks.
pub(crate) fn may_be_written(path: &Path) -> bool {
    matches!(ask(path), Some(Err(_)))
}

/// Tries to take a shared lock, as a reader does. `None`: no file exists at `path`, or this process cannot
/// open it.
fn ask(path: &Path) -> Option<Result<(), TryLockError>> {
    // Only a regular file can be a trace. Opening a FIFO, for example, might wait for another process.
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file.then(|| File::open(path).ok()).flatten().map(|file| file.try_lock_shared())
}

/// Takes the lock for writing; `false`: another writer holds the lock. A reader that checks whether a trace
/// is being written holds the lock for an instant, so `take` tries ten times. On a file system without locks
/// `take` returns `true`, and the writer works without a lock.
pub fn take(file: &File) -> bool {
    const ATTEMPTS: u32 = 10;
    (0..ATTEMPTS).any(|attempt| {
        std::thread::sleep(Duration::from_millis(attempt.into()));
        !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    })
}
