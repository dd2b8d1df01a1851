//! The name of a trace: what was there before is kept beside it, and nobody else takes it.
//!
//! A name is taken by making the file and locking it, before there is anything to write. Whoever moves a finished trace out of the way
//! holds its lock while doing so: of two that do so at once the second finds the name taken, and moves nothing.

use crate::sys::limits;
use edleak_format::{ErrorKind, TraceWriter};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ANOTHER: &str = "choose another file with -o";

/// A name that is ours until the trace is finished.
#[derive(Debug)]
pub(crate) struct Reserved {
    path: PathBuf,
    /// The file that we made: device and inode.
    made: Option<(u64, u64)>,
    kept: Option<Kept>,
}

/// What was moved out of the way. Dropped, what was moved out of the way before it is gone.
#[derive(Debug)]
pub(crate) struct Kept {
    old: PathBuf,
    /// What `old` was before, until it is settled that something came of this.
    older: PathBuf,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.older);
    }
}

/// Why a name cannot be had.
#[derive(Debug)]
pub(crate) enum Refusal {
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
pub(crate) fn reserve(path: &Path, capacity_bytes: u64) -> Result<(TraceWriter, Reserved), Refusal> {
    /// Somebody may put a trace there between our two steps; hardly again and again.
    const ATTEMPTS: u32 = 8;
    let mut attempt = 0;
    loop {
        let mut reserved = Reserved { path: path.to_owned(), made: None, kept: keep_old(path)? };
        attempt += 1;
        let created = TraceWriter::create(path, capacity_bytes);
        reserved.made = fs::metadata(path).ok().map(identity);
        let error = match created {
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
    /// Nothing came of it: all is as it was, unless the name is somebody else's by now.
    pub(crate) fn give_back(&self) {
        if self.made.is_none() || fs::metadata(&self.path).ok().map(identity) != self.made {
            return;
        }
        let _ = fs::remove_file(&self.path);
        if let Some(kept) = &self.kept {
            let _ = fs::rename(&kept.old, &self.path);
            let _ = fs::rename(&kept.older, &kept.old);
        }
    }

    /// Something comes of it: what was moved out of the way before is replaced.
    pub(crate) fn settle(&self) {
        if let Some(kept) = &self.kept {
            let _ = fs::remove_file(&kept.older);
        }
    }
}

/// Where a trace goes that is called `path`: through a link, so that what it leads to is replaced and not the link.
pub(crate) fn followed(path: &Path) -> PathBuf {
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        return path.to_owned();
    }
    // What it leads to may not be there yet.
    let target = || fs::read_link(path).map(|target| path.parent().unwrap_or(Path::new("")).join(target));
    fs::canonicalize(path).or_else(|_| target()).unwrap_or_else(|_| path.to_owned())
}

/// Moves what is there to `path.old`. An empty file is nothing to keep.
pub(crate) fn keep_old(path: &Path) -> Result<Option<Kept>, Refusal> {
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
    let with = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let kept = Kept { old: with(".old"), older: with(&format!(".old.{}", std::process::id())) };
    if fs::metadata(&kept.old).is_ok_and(|file| file.is_file()) {
        fs::rename(&kept.old, &kept.older).map_err(failed)?;
    }
    if let Err(error) = fs::rename(path, &kept.old) {
        let _ = fs::rename(&kept.older, &kept.old);
        return Err(failed(error));
    }
    Ok(Some(kept))
}

fn identity(file: fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn is_at(file: &File, path: &Path) -> bool {
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
        let before = directory.join("t.edl.old");
        fs::write(&path, "old").expect("it is ours");
        fs::write(&before, "older").expect("it is ours");
        let (writer, reserved) = reserve(&path, MIN_CAPACITY_BYTES).expect("it is moved");
        assert_eq!((names(), fs::read_to_string(&before).expect("it is kept").as_str()), (3, "old"));
        drop(writer);
        reserved.give_back();
        let text = |path: &Path| fs::read_to_string(path).expect("it is back");
        assert_eq!((names(), text(&path).as_str(), text(&before).as_str()), (2, "old", "older"));
        // Once something comes of it, what was before it is replaced.
        let (writer, reserved) = reserve(&path, MIN_CAPACITY_BYTES).expect("it is moved");
        reserved.settle();
        assert_eq!((names(), text(&before).as_str()), (2, "old"));
        // A name that somebody else has taken meanwhile is not given back.
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "theirs").expect("it is ours");
        drop(writer);
        reserved.give_back();
        assert_eq!((names(), text(&path).as_str()), (2, "theirs"));
        fs::remove_file(&before).expect("it is there");
        // Made for us, as by mktemp.
        fs::write(&path, "").expect("it is ours");
        let taken = reserve(&path, MIN_CAPACITY_BYTES).expect("an empty file may be written");
        assert_eq!(names(), 1);
        drop(taken);
        let _ = fs::remove_dir_all(directory);
    }
}
