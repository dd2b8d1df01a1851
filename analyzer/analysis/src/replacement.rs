//! Replaces a file only when the new content is complete. So if the disk is full or edleak is interrupted,
//! the old file stays unchanged.

use edleak_format::place;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempPath};

/// A temporary file in the folder of another file, which it will replace. The drop of a `Replacement` removes
/// the temporary file.
#[derive(Debug)]
pub struct Replacement {
    made: File,
    beside: TempPath,
    place: PathBuf,
    /// The file to replace, with a lock, so that no recording can begin to write to this file in the
    /// meantime. `None`: there is no file to replace.
    held: Option<File>,
}

impl Replacement {
    /// Creates a temporary file in the folder of `to`. If `to` is a symbolic link, the temporary file will
    /// replace the file to which the link points. If there is no file to replace, the new file gets `mode`,
    /// without the bits of the umask.
    ///
    /// # Errors
    /// - `InvalidInput`: `to` is neither a file nor a free name.
    /// - `ResourceBusy`: `to` is still being recorded.
    /// - The temporary file cannot be created.
    pub fn of(to: &Path, mode: u32) -> io::Result<Replacement> {
        let place = place::followed(to)?;
        let held = match std::fs::symlink_metadata(&place) {
            Ok(there) if !there.is_file() => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
            }
            Ok(_) => Some(place::open(&place)?),
            Err(_) => None,
        };
        if held.as_ref().is_some_and(|file| !place::lock(file)) {
            let reason = "it is still being recorded, and the rest would be lost";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, reason));
        }
        let (made, beside) = new_beside(&place, mode)?.into_parts();
        Ok(Replacement { made, beside, place, held })
    }

    /// The temporary file, open for writing.
    pub fn file(&self) -> &File {
        &self.made
    }

    /// The path of the temporary file.
    pub(crate) fn path(&self) -> &Path {
        &self.beside
    }

    /// Renames the temporary file to the name of the file to replace. Call this function when the new content
    /// is complete. The new file gets the owner and the mode of the old file.
    ///
    /// # Errors
    /// The file cannot be renamed, or another program has put another file at its name.
    pub fn put_in_place(self) -> io::Result<()> {
        let Replacement { made, beside, place, held } = self;
        if let Some(old) = held.as_ref().and_then(|file| file.metadata().ok()) {
            // If the user may not change the owner of a file, the new file belongs to this user. The function
            // ignores a failed change of the owner, because the new file is complete.
            let _ = std::os::unix::fs::fchown(&made, Some(old.uid()), Some(old.gid()));
            let _ = made.set_permissions(old.permissions());
        }
        let put = put_in_place(&beside, &place, held.as_ref());
        if put.is_err() && !place::is_at(&made, &beside) {
            // Another program has put its own file at the path `beside`. Without the call of `keep`, the drop
            // of `beside` would remove the file of the other program.
            let _ = beside.keep();
        }
        put
    }
}

/// Renames the file `beside` to `place`. The rename may replace only the file `held`: if another file has the
/// name `place` now, the function returns an error.
fn put_in_place(beside: &Path, place: &Path, held: Option<&File>) -> io::Result<()> {
    let taken = || io::Error::new(io::ErrorKind::AlreadyExists, "another file has its name now");
    let Some(held) = held else {
        return place::rename_new(beside, place).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(),
            _ => error,
        });
    };
    match place::exchange(beside, place) {
        Ok(()) if place::is_at(held, beside) => std::fs::remove_file(beside),
        Ok(()) => {
            place::exchange(beside, place)?;
            Err(taken())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(taken()),
        // If the file system cannot exchange the names of two files, the function checks that `place` is
        // still the file `held`, and then renames `beside` to `place`.
        Err(_) if place::is_at(held, place) => std::fs::rename(beside, place),
        Err(_) => Err(taken()),
    }
}

/// Creates a temporary file in the folder of `place`. The drop of the returned `NamedTempFile` removes the
/// file.
fn new_beside(place: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut prefix = place.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    let directory = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".new").permissions(Permissions::from_mode(mode));
    builder.tempfile_in(directory)
}
