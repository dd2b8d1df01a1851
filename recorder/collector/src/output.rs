//! The name of a trace: what was there before is kept beside it, and nobody else takes it.
//!
//! A name is taken by making the file and locking it, before there is anything to write. Whoever moves a finished trace out of the way
//! holds its lock while doing so: of two that do so at once the second finds the name taken, and moves nothing.

use crate::limits;
use edleak_format::{ErrorKind, TraceWriter};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ANOTHER: &str = "choose another file with -o";

/// A name that is ours until the trace is finished.
#[derive(Debug)]
pub struct Reserved {
    path: PathBuf,
    old: Option<PathBuf>,
}

/// Why a name cannot be had.
#[derive(Debug)]
pub enum Refusal {
    /// Another recording has it.
    InUse(String),
    /// Whatever else.
    Failed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::InUse(message) | Refusal::Failed(message) => message.fmt(f),
        }
    }
}

/// Makes the trace `path` and keeps what is there as `path.old`. Anything that is no regular file is left alone.
pub fn reserve(path: &Path, capacity_bytes: u64) -> Result<(TraceWriter, Reserved), Refusal> {
    /// Somebody may put a trace there between our two steps; hardly again and again.
    const ATTEMPTS: u32 = 8;
    let mut attempt = 0;
    loop {
        let reserved = Reserved { path: path.to_owned(), old: keep_old(path)? };
        attempt += 1;
        let error = match TraceWriter::create(path, capacity_bytes) {
            Ok(writer) => return Ok((writer, reserved)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < ATTEMPTS => continue,
            Err(error) => error,
        };
        let remedy = limits::remedy(error.raw_os_error(), ANOTHER);
        let message = limits::with_remedy(&error, &remedy);
        if matches!(error.kind(), ErrorKind::InUse | ErrorKind::AlreadyExists) {
            return Err(Refusal::InUse(message));
        }
        if fs::metadata(path).is_ok_and(|file| file.len() == 0) {
            reserved.give_back();
        }
        return Err(Refusal::Failed(message));
    }
}

impl Reserved {
    /// Nothing came of it: all is as it was.
    pub fn give_back(&self) {
        let _ = fs::remove_file(&self.path);
        if let Some(old) = &self.old {
            let _ = fs::rename(old, &self.path);
        }
    }
}

/// Where a trace goes that is called `path`: through a link, so that what it leads to is replaced and not the link.
pub fn followed(path: &Path) -> PathBuf {
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        return path.to_owned();
    }
    // What it leads to may not be there yet.
    let target = || fs::read_link(path).map(|target| path.parent().unwrap_or(Path::new("")).join(target));
    fs::canonicalize(path).or_else(|_| target()).unwrap_or_else(|_| path.to_owned())
}

/// Moves what is there to `path.old`, and says where that is. An empty file is nothing to keep.
pub fn keep_old(path: &Path) -> Result<Option<PathBuf>, Refusal> {
    let in_use = || Refusal::InUse(format!("another recording is writing `{}` ({ANOTHER})", path.display()));
    let failed = |error: io::Error| {
        Refusal::Failed(format!("failed to keep `{}` as `.old`: {error} ({ANOTHER})", path.display()))
    };
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    if !metadata.is_file() {
        return Err(Refusal::Failed(format!("`{}` is not a file ({ANOTHER})", path.display())));
    }
    let locked = match File::open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // What is not ours to read can still be ours to move. No recording of ours writes it.
        Err(_) => None,
    };
    if let Some(file) = &locked {
        // Whoever had the lock before us may have moved it, and have made a trace of its own in its place.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !is_at(file, path) {
            return Err(in_use());
        }
        if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            return Ok(None);
        }
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".old");
    let old = PathBuf::from(old);
    fs::rename(path, &old).map_err(failed)?;
    Ok(Some(old))
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => identity(file) == identity(there),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_format::MIN_CAPACITY_BYTES;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("edleak-output-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("temporary files can be made");
        path
    }

    #[test]
    fn one_of_many_gets_the_name_and_the_old_trace_is_kept() {
        let directory = directory("race");
        let (path, old) = (directory.join("t.edl"), directory.join("t.edl.old"));
        for round in 0..60 {
            let content = format!("a trace of round {round}");
            fs::write(&path, &content).expect("it is ours");
            let taken = AtomicU32::new(0);
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            let reserved = reserve(&path, MIN_CAPACITY_BYTES);
                            taken.fetch_add(u32::from(reserved.is_ok()), Ordering::Relaxed);
                            reserved
                        })
                    })
                    .collect();
                let all: Vec<_> =
                    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
                for refused in all.iter().filter_map(|reserved| reserved.as_ref().err()) {
                    assert!(matches!(refused, Refusal::InUse(_)), "{refused}");
                }
            });
            assert_eq!(taken.into_inner(), 1, "round {round}");
            assert_eq!(fs::read_to_string(&old).expect("it is kept"), content);
            fs::remove_file(&path).expect("the new one is there");
        }
        let _ = fs::remove_dir_all(directory);
    }

    #[test]
    fn what_is_given_back_is_as_it_was() {
        let directory = directory("back");
        let path = directory.join("t.edl");
        let names = || fs::read_dir(&directory).expect("it is there").count();
        let (writer, reserved) = reserve(&path, MIN_CAPACITY_BYTES).expect("nothing is there");
        drop(writer);
        reserved.give_back();
        assert_eq!(names(), 0);
        fs::write(&path, "old").expect("it is ours");
        let (writer, reserved) = reserve(&path, MIN_CAPACITY_BYTES).expect("it is moved");
        assert_eq!(names(), 2);
        drop(writer);
        reserved.give_back();
        assert_eq!((names(), fs::read_to_string(&path).expect("it is back").as_str()), (1, "old"));
        // Made for us, as by mktemp.
        fs::write(&path, "").expect("it is ours");
        let taken = reserve(&path, MIN_CAPACITY_BYTES).expect("an empty file may be written");
        assert_eq!(names(), 1);
        drop(taken);
        let _ = fs::remove_dir_all(directory);
    }
}
