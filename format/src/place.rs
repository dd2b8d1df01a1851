//! Safe use of a file by its name: links are followed, files are locked, and a rename replaces no file.
//!
//! After a program has checked a file, another process may put another file under the same name. So the
//! caller of the functions in this file first opens and locks the file, and then checks it. After each
//! rename, the caller checks that the renamed file is the opened file.

pub use crate::lock::take as lock;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Maximum length of a chain of links; the kernel has the same limit.
const MAX_LINKS: u32 = 40;

/// The name of the file that `path` leads to, after all links. A writer that renames its file to the returned
/// name replaces the file and leaves the links as they are. The file need not exist yet.
///
/// # Errors
/// `PermissionDenied` for two kinds of link:
/// - a link that another user put into a sticky directory in which everybody may write (the rule of the
///   kernel's setting `fs.protected_symlinks`, here also if the setting is off);
/// - a link to an open descriptor, such as `/dev/stdout`.
pub fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(link) = fs::symlink_metadata(&place) else { return Ok(place) };
        if !link.is_symlink() {
            return Ok(place);
        }
        let directory = directory_of(&place);
        let denied = |reason| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        if is_foreign(&place, &link) {
            return denied("another user's link in a directory that everybody may write to");
        }
        if fs::canonicalize(&directory).is_ok_and(|directory| directory.starts_with("/proc")) {
            return denied("it leads to an open descriptor and not to a file");
        }
        place = directory.join(fs::read_link(&place)?);
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Whether a file is foreign: it belongs to another user and is in a sticky directory in which everybody may
/// write, such as /tmp. In such a directory, another user can put a file as a trap for edleak. But a file of
/// the directory's owner is not foreign, because edleak trusts this owner.
pub fn is_foreign(path: &Path, file: &Metadata) -> bool {
    const SHARED: u32 = libc::S_ISVTX | libc::S_IWOTH;
    let own = rustix::process::geteuid().as_raw();
    let is_shared = |directory: Metadata| {
        directory.mode() & SHARED == SHARED && directory.uid() != file.uid() && file.uid() != own
    };
    fs::metadata(directory_of(path)).is_ok_and(is_shared)
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) => PathBuf::from("."),
        None => PathBuf::from("/"),
    }
}

/// The identity of a file: its device and inode.
pub fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Whether the name `path` now leads to the open file `file`.
pub fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(there)) => identity(&file) == identity(&there),
        _ => false,
    }
}

/// Opens a file so that the caller can lock and check the file. If the path is a link, the function returns
/// an error. `open` never waits for another process, not even if the file is a FIFO.
///
/// # Errors
/// The errors of opening a file.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Renames a file to a name that no other file has.
///
/// # Errors
/// `AlreadyExists` if the name `to` is taken.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_with(from, to, RenameFlags::NOREPLACE) {
        // Some file systems do not support `NOREPLACE`. On such a file system, create a hard link instead,
        // because creating a link also fails if the name is taken.
        Err(error) if is_unsupported(&error) => fs::hard_link(from, to).and_then(|()| fs::remove_file(from)),
        done => done,
    }
}

/// Exchanges the names of two files in one step.
///
/// # Errors
/// `Unsupported` if the file system cannot exchange files.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    rename_with(one, other, RenameFlags::EXCHANGE).map_err(|error| {
        if is_unsupported(&error) { io::Error::from(io::ErrorKind::Unsupported) } else { error }
    })
}

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, flags)?)
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("edleak-place-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("temporary files can be made");
        path
    }

    #[test]
    fn a_rename_to_a_taken_name_changes_nothing() {
        let directory = directory("rename");
        let [one, two, three] = ["one", "two", "three"].map(|name| directory.join(name));
        fs::write(&one, "1").expect("writable");
        fs::write(&two, "2").expect("writable");
        assert_eq!(rename_new(&one, &two).expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
        rename_new(&one, &three).expect("free");
        exchange(&two, &three).expect("both are there");
        assert_eq!(fs::read(&two).expect("it is there"), b"1");
        assert_eq!(fs::read(&three).expect("it is there"), b"2");
        let held = open(&two).expect("it is there");
        assert!(is_at(&held, &two) && !is_at(&held, &three) && !is_at(&held, &one));
        fs::remove_dir_all(directory).expect("it is ours");
    }

    #[test]
    fn own_links_are_followed_and_links_to_descriptors_are_not() {
        let directory = directory("links");
        let [first, second] = ["first", "second"].map(|name| directory.join(name));
        symlink("second", &first).expect("writable");
        symlink("not-there", &second).expect("writable");
        assert_eq!(followed(&first).expect("ours"), directory.join("not-there"));
        assert_eq!(followed(&directory).expect("no link"), directory);
        assert!(open(&first).is_err());
        for path in ["/dev/stdout", "/proc/self/fd/2"] {
            let refused = followed(Path::new(path)).expect_err("no file");
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{path}");
        }
        symlink("loop", directory.join("loop")).expect("writable");
        assert!(followed(&directory.join("loop")).is_err());
        fs::remove_dir_all(directory).expect("it is ours");
    }

    #[test]
    fn a_strangers_link_in_a_shared_directory_is_not_followed() {
        let directory = directory("foreign");
        let link = directory.join("link");
        symlink("elsewhere", &link).expect("writable");
        const NOBODY: u32 = 65534;
        if std::os::unix::fs::lchown(&link, Some(NOBODY), None).is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI runs as root");
            return eprintln!("not run: only root can give a link away");
        }
        let set_mode = |mode| {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("it is ours");
        };
        for (mode, is_followed) in [(0o1777, false), (0o755, true), (0o777, true), (0o1755, true)] {
            set_mode(mode);
            assert_eq!(followed(&link).is_ok(), is_followed, "{mode:o}");
        }
        set_mode(0o1777);
        std::os::unix::fs::chown(&directory, Some(NOBODY), None).expect("we are root");
        assert!(followed(&link).is_ok(), "the owner of the directory is trusted");
        fs::remove_dir_all(directory).expect("it is ours");
    }
}
