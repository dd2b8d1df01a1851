//! Reserves the name of a trace: renames an older file of this name to `.old`, and prevents other collectors
//! from using the name.
//!
//! To reserve a name such as `t.edl`, a collector creates and locks the file before the first slice. A
//! collector also locks an existing trace before it renames the trace. If another collector has already
//! locked the existing trace, the collector reports that the name is in use, and renames nothing. A collector
//! also locks the file `t.edl.old` before it replaces this file, because this file may be the trace of a
//! running recording.

use crate::error::{Error, ErrorKind};
use edleak_format::{TraceWriter, place};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

const ANOTHER: &str = "choose another file with -o";

/// The error to report if another recording uses the name of the trace.
fn in_use(path: &Path) -> Error {
    let message = format!("another recording is writing `{}`", path.display());
    Error::new(ErrorKind::InUse, message).with_remedy(ANOTHER)
}

/// The error to report if edleak cannot create a trace with the wanted name.
fn failed(message: String) -> Error {
    Error::new(ErrorKind::Output, message).with_remedy(ANOTHER)
}

/// The name of a trace, which this recording has reserved until its trace is finished.
#[derive(Debug)]
pub(crate) struct Reserved {
    path: PathBuf,
    /// The device and the inode of the file that this process created.
    made: Option<(u64, u64)>,
    kept: Option<Kept>,
}

/// The file that edleak-record has renamed to `.old`, and the older file that had the `.old` name before.
/// When this value is dropped, the older file is deleted.
#[derive(Debug)]
pub(crate) struct Kept {
    old: PathBuf,
    /// The older `.old` file, which edleak-record keeps until the new recording has started successfully.
    older: Option<Older>,
}

/// The `.old` file of an earlier recording. The file of the earlier recording has a temporary name until
/// edleak-record deletes it, and is locked while this value exists.
#[derive(Debug)]
struct Older {
    path: PathBuf,
    held: Held,
}

/// The lock of a file: while this value exists, no recording writes the file. `None`: the user may not open
/// the file, so edleak cannot lock it; but for the same reason, no other recording of this user can write the
/// file.
#[derive(Debug)]
struct Held(Option<File>);

impl Held {
    /// Locks the file at `path`; `None`: there is no file.
    fn at(path: &Path) -> Result<Option<Held>, Error> {
        let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(None) };
        if !metadata.is_file() {
            return Err(failed(format!("`{}` is not a file", path.display())));
        }
        let file = match place::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Ok(Some(Held(None))),
        };
        // Another collector may have had the lock of this file until now, and may have renamed the file and
        // created its own trace under the name `path`. So check again whether the locked file is at `path`.
        if !place::lock(&file) || !place::is_at(&file, path) {
            return Err(in_use(path));
        }
        Ok(Some(Held(Some(file))))
    }

    fn is_at(&self, path: &Path) -> bool {
        self.0.as_ref().is_none_or(|file| place::is_at(file, path))
    }

    fn release(&self) {
        // On a file system without locks, unlocking a file fails, and the error does not matter.
        let _ = self.0.as_ref().map(File::unlock);
    }

    fn is_empty(&self) -> bool {
        self.0.as_ref().is_some_and(|file| file.metadata().is_ok_and(|metadata| metadata.len() == 0))
    }
}

impl Older {
    /// Renames the file `old` to an unused name; `None`: there is no file `old`.
    fn of(old: &Path) -> Result<Option<Older>, Error> {
        const MOST: u32 = 100;
        let Some(held) = Held::at(old)? else { return Ok(None) };
        let own = std::process::id();
        let mut error = io::Error::from(io::ErrorKind::AlreadyExists);
        for attempt in 0..MOST {
            let path = with_ending(old, &format!(".{own}-{attempt}"));
            match place::rename_new(old, &path) {
                Ok(()) if held.is_at(&path) => return Ok(Some(Older { path, held })),
                Ok(()) => {
                    let _ = place::rename_new(&path, old);
                    return Err(in_use(old));
                }
                Err(failure) if failure.kind() == io::ErrorKind::AlreadyExists => {}
                Err(failure) => {
                    error = failure;
                    break;
                }
            }
        }
        Err(failed(format!("failed to replace `{}`: {error}", old.display())))
    }

    fn remove(&self) {
        if self.held.is_at(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.older.iter().for_each(Older::remove);
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Maximum number of attempts to create a trace. After the collector has renamed the old file, another
/// process may create a trace with the same name before the collector does; but this hardly happens several
/// times in a row.
const ATTEMPTS: u32 = 8;

/// Creates the trace `path`, and renames an existing file to `path.old`. If `path` exists and is not a
/// regular file, the result is an error.
pub(crate) fn reserve(path: &Path, capacity_bytes: u64) -> Result<(TraceWriter, Reserved), Error> {
    let mut attempt = 0;
    loop {
        let mut reserved = Reserved { path: path.to_owned(), made: None, kept: keep_old(path)? };
        attempt += 1;
        // If an empty file exists already, for example from mktemp, the collector writes the trace into this
        // file.
        let before = made_at(path);
        let created = TraceWriter::create(path, capacity_bytes);
        reserved.made = made_at(path);
        let error = match created {
            Ok(writer) => return Ok((writer, reserved)),
            Err(error) if error.kind() == edleak_format::ErrorKind::AlreadyExists && attempt < ATTEMPTS => {
                continue;
            }
            Err(error) => error,
        };
        let refused = Error::output(&error, ANOTHER);
        if refused.kind() == ErrorKind::InUse {
            return Err(refused);
        }
        if before.is_none() && fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0)
        {
            reserved.give_back();
        }
        return Err(refused);
    }
}

/// Creates the file of a trace that was only in memory until now. If a file already exists at `path`, the
/// function renames this file to `path.old`.
pub(crate) fn create_file(writer: &mut TraceWriter, path: &Path) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let kept = keep_old(path)?;
        match writer.create_file() {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == edleak_format::ErrorKind::AlreadyExists => {}
            Err(error) => {
                if let Some(kept) = kept {
                    kept.put_back(path);
                }
                return Err(Error::output(&error, ANOTHER));
            }
        }
    }
    Err(in_use(path))
}

impl Kept {
    /// If no file has the name `path`, gives the two older files back the names that they had before the
    /// recording.
    fn put_back(mut self, path: &Path) {
        if place::rename_new(&self.old, path).is_ok()
            && let Some(older) = self.older.take()
        {
            let _ = place::rename_new(&older.path, &self.old);
        }
    }
}

impl Reserved {
    /// After a recording that recorded nothing, gives the older files the names back that they had before the
    /// recording, unless another process has created a file with the name of the trace.
    pub(crate) fn give_back(&self) {
        if self.made.is_none() || made_at(&self.path) != self.made {
            return;
        }
        let Some(Kept { old, older }) = &self.kept else {
            let _ = fs::remove_file(&self.path);
            return;
        };
        // Exchange the names of the trace and of the older file in one atomic step, so that a file with the
        // name of the trace exists at any time and no other process can create a file with this name.
        let is_back = match place::exchange(&self.path, old) {
            Ok(()) if made_at(old) == self.made => fs::remove_file(old).is_ok(),
            Ok(()) => {
                let _ = place::exchange(&self.path, old);
                false
            }
            Err(_) => fs::rename(old, &self.path).is_ok(),
        };
        if let (Some(older), true) = (older, is_back) {
            let _ = place::rename_new(&older.path, old);
            older.held.release();
        }
    }

    /// Deletes the `.old` file of an earlier recording. The caller calls this function after the new
    /// recording has started.
    pub(crate) fn delete_earlier(&self) {
        self.kept.iter().filter_map(|kept| kept.older.as_ref()).for_each(Older::remove);
    }
}

/// The path of the file that a trace at `path` replaces. If `path` is a symbolic link, the result is the path
/// of the file to which the link leads, so the trace does not replace the link.
pub(crate) fn followed(path: &Path) -> Result<PathBuf, Error> {
    let refused = |reason: &dyn fmt::Display| {
        failed(format!("a trace cannot be written to `{}`: {reason}", path.display()))
    };
    let place = place::followed(path).map_err(|error| refused(&error))?;
    if is_standard(&place) {
        return Err(refused(&"the program reads or writes it"));
    }
    Ok(place)
}

/// Whether `path` is the file to which stdin, stdout or stderr leads. The target inherits stdin, stdout and
/// stderr, and may write to the file to which they lead.
fn is_standard(path: &Path) -> bool {
    let standard = [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()]
        .map(|fd| fd.try_clone_to_owned().and_then(|fd| File::from(fd).metadata()));
    let mut files = standard.into_iter().flatten().filter(Metadata::is_file);
    fs::symlink_metadata(path).is_ok_and(|there| {
        let there = place::identity(&there);
        files.any(|file| place::identity(&file) == there)
    })
}

/// Renames an existing file at `path` to `path.old`. An empty file is not renamed, because it contains
/// nothing to keep.
pub(crate) fn keep_old(path: &Path) -> Result<Option<Kept>, Error> {
    let Some(held) = Held::at(path)? else { return Ok(None) };
    if held.is_empty() {
        return Ok(None);
    }
    let old = with_ending(path, ".old");
    let older = Older::of(&old)?;
    let moved = place::rename_new(path, &old);
    if moved.is_ok() && held.is_at(&old) {
        return Ok(Some(Kept { old, older }));
    }
    // After this process locked the file, another process has given the name `path` to another file. If this
    // process has renamed the file of the other process, it now gives this file the name `path` back.
    if moved.is_ok() {
        let _ = place::rename_new(&old, path);
    }
    if let Some(older) = &older {
        let _ = place::rename_new(&older.path, &old);
    }
    moved.map_err(|error| failed(format!("failed to keep `{}` as `.old`: {error}", path.display())))?;
    Err(in_use(path))
}

fn made_at(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| place::identity(&file))
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
                    assert_eq!(refused.kind(), ErrorKind::InUse, "{refused}");
                }
            });
            assert_eq!(taken.into_inner(), 1, "round {round}");
            assert_eq!(fs::read_to_string(&old).expect("it is kept"), content);
            fs::remove_file(&path).expect("the new one is there");
        }
        let _ = fs::remove_dir_all(directory);
    }

    #[test]
    fn a_live_recording_called_old_is_not_replaced() {
        let directory = directory("old");
        let (path, old) = (directory.join("t.edl"), directory.join("t.edl.old"));
        let (writer, _reserved) = reserve(&old, MIN_CAPACITY_BYTES).expect("nothing is there");
        fs::write(&path, "a trace").expect("it is ours");
        let refused = reserve(&path, MIN_CAPACITY_BYTES).map(drop).expect_err("it is being written");
        assert!(refused.kind() == ErrorKind::InUse && refused.message().contains("t.edl.old"), "{refused}");
        assert!(writer.is_at(&old));
        assert_eq!(fs::read_to_string(&path).expect("it is kept"), "a trace");
        drop(writer);
        reserve(&path, MIN_CAPACITY_BYTES).expect("nobody writes it any more");
        fs::remove_dir_all(directory).expect("it is ours");
    }

    #[test]
    fn a_lock_that_is_held_for_an_instant_is_waited_for() {
        let directory = directory("instant");
        let path = directory.join("t.edl");
        fs::write(&path, "a trace").expect("it is ours");
        let asked = File::open(&path).expect("it is there");
        asked.lock_shared().expect("nobody else has it");
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| reserve(&path, MIN_CAPACITY_BYTES).map(drop));
            std::thread::sleep(std::time::Duration::from_millis(5));
            asked.unlock().expect("we have it");
            assert!(taken.join().expect("no panic").is_ok());
        });
        fs::remove_dir_all(directory).expect("it is ours");
    }

    #[test]
    fn reserved_name_that_is_given_back_is_unchanged() {
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
        // After the start of the recording (`delete_earlier`), the earlier `.old` file is deleted, and only
        // the new `.old` file is left.
        let (writer, reserved) = reserve(&path, MIN_CAPACITY_BYTES).expect("it is moved");
        reserved.delete_earlier();
        assert_eq!((names(), text(&before).as_str()), (2, "old"));
        // `give_back` does not restore a name that another process has taken since the reservation.
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "theirs").expect("it is ours");
        drop(writer);
        reserved.give_back();
        assert_eq!((names(), text(&path).as_str()), (2, "theirs"));
        fs::remove_file(&before).expect("it is there");
        // An empty file exists already, as after a call of mktemp.
        fs::write(&path, "").expect("it is ours");
        let taken = reserve(&path, MIN_CAPACITY_BYTES).expect("an empty file may be written");
        assert_eq!(names(), 1);
        drop(taken);
        let _ = fs::remove_dir_all(directory);
    }
}
