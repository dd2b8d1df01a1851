//! Unpacks the copy of the library inside edleak-record into a directory to which no other user can write.
//!
//! edleak-record does not delete the unpacked file after the recording. A program that runs on still has the
//! path of this file in LD_PRELOAD, so the loader of each of its child processes needs the file. Each version
//! of edleak has its own directory, so no version overwrites the library of another version.

use crate::error::Error;
use crate::start::loadable::{NAME, can_be_executed, can_be_named, library};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes `bytes` to a file, unless the file is already there, and returns the path of the file.
///
/// # Errors
/// There is no directory into which the file can be written. The message names each directory that
/// edleak-record tried, and the environment variable to set.
pub(crate) fn unpack(bytes: &[u8]) -> Result<PathBuf, Error> {
    unpack_into(&places(|name| std::env::var_os(name), effective_ids().0), bytes)
}

fn unpack_into(places: &[Place], bytes: &[u8]) -> Result<PathBuf, Error> {
    // If edleak-record cannot write into several directories for the same reason, the message contains this
    // reason only once.
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for place in places {
        let why = match place.unpack(bytes) {
            Ok(path) => return Ok(path),
            Err(why) => why.to_string(),
        };
        let shown = format!("`{}`", place.directory.display());
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, places)) => places.push(shown),
            None => reasons.push((why, vec![shown])),
        }
    }
    let reasons: Vec<_> =
        reasons.iter().map(|(why, places)| format!("{}: {why}", places.join(", "))).collect();
    Err(library(format!("no place for `{NAME}`: {}", reasons.join("; "))).with_remedy(
        "set XDG_CACHE_HOME to a directory of yours that allows writing and executing, or EDLEAK_PRELOAD to \
         a library that `edleak-record unpack DIR` made",
    ))
}

/// A directory into which the library may be unpacked.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    directory: PathBuf,
    /// Whether edleak-record creates missing parents of this directory: yes for a cache directory, no for a
    /// temporary directory.
    makes_parents: bool,
}

/// The directories into which edleak-record tries to unpack the library, in this order.
fn places(variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> Vec<Place> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = |path: PathBuf| Place { directory: path.join("edleak"), makes_parents: true };
    let temporary = |path: PathBuf| Place { directory: path, makes_parents: false };
    let own = format!("edleak-{uid}");
    let mut places = Vec::new();
    match absolute("XDG_CACHE_HOME") {
        Some(path) => places.push(cache(path)),
        None => {
            // If the user is root, first try to unpack the library into a directory that other users can
            // read. A service that root starts may give up its privileges, and must still be able to load the
            // library when it executes a program.
            places.extend((uid == 0).then(|| cache("/var/cache".into())));
            places.extend(
                absolute("HOME").filter(|home| home != Path::new("/")).map(|home| cache(home.join(".cache"))),
            );
        }
    }
    let runtime = absolute("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}").into());
    places.push(temporary(runtime.join("edleak")));
    places.extend(absolute("TMPDIR").map(|path| temporary(path.join(&own))));
    places.extend(["/tmp", "/var/tmp", "/dev/shm"].map(|path| temporary(Path::new(path).join(&own))));
    let mut seen = Vec::new();
    places.retain(|place| !seen.contains(&place.directory) && (seen.push(place.directory.clone()), true).1);
    places
}

impl Place {
    fn unpack(&self, bytes: &[u8]) -> Result<PathBuf, Error> {
        can_be_named(&self.directory)?;
        make(&self.directory, self.makes_parents)?;
        // From here on, use the path of the directory without symbolic links, so that no other user can
        // redirect a part of the path.
        let directory = fs::canonicalize(&self.directory).map_err(library)?;
        check_ancestors(&directory)?;
        let version = format!("{}-{:016x}", env!("CARGO_PKG_VERSION"), fnv1a(bytes));
        let directory = directory.join(version);
        make(&directory, false)?;
        check_owner(&directory)?;
        let path = directory.join(NAME);
        can_be_named(&path)?;
        if !is_whole(&path, bytes) {
            write(&path, bytes, 0o644).map_err(library)?;
            if !is_whole(&path, bytes) {
                return Err(library("the file that was written there reads back differently"));
            }
        }
        can_be_executed(&path)?;
        Ok(path)
    }
}

/// Creates a directory to which only this user may write, unless the directory exists.
fn make(directory: &Path, with_parents: bool) -> Result<(), Error> {
    if with_parents && let Some(parent) = directory.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(library)?;
    }
    let mode = if directory.starts_with("/var/cache") { 0o755 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(directory) {
        // Set the mode again, because the umask may have removed bits of the mode.
        Ok(()) => fs::set_permissions(directory, Permissions::from_mode(mode)).map_err(library),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(library(error)),
    }
}

/// The effective user ID and group ID. When the kernel checks the access to files, it uses the effective IDs,
/// which can differ from the real IDs.
pub(crate) fn effective_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Returns an error if another user could replace the directory or one of its parents.
fn check_ancestors(directory: &Path) -> Result<(), Error> {
    check_owner(directory)?;
    let mut path = directory.to_path_buf();
    while path.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            return Err(library(format!("`{}` cannot be inspected", path.display())));
        };
        let (uid, _) = effective_ids();
        // In a user namespace that contains only one user, the kernel shows the overflow user as the owner of
        // root's directories.
        let is_roots = metadata.uid() == 0 || (is_well_known(&path) && metadata.uid() == overflow_uid());
        if !is_roots && metadata.uid() != uid {
            return Err(library(format!(
                "`{}` belongs to another user (uid {})",
                path.display(),
                metadata.uid()
            )));
        }
        // In a directory with the sticky bit, no user can rename the files of another user.
        if metadata.mode() & 0o022 != 0 && metadata.mode() & libc::S_ISVTX == 0 {
            return Err(library(format!("other users may write to `{}`", path.display())));
        }
    }
    Ok(())
}

/// Returns an error for a directory that belongs to another user, or to which another user can write.
fn check_owner(directory: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(directory).map_err(library)?;
    if !metadata.is_dir() {
        return Err(library("it is not a directory"));
    }
    if metadata.uid() != effective_ids().0 {
        return Err(library(format!("it belongs to another user (uid {})", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(library("other users may write to it"));
    }
    Ok(())
}

fn is_well_known(path: &Path) -> bool {
    let names =
        ["/", "/dev", "/dev/shm", "/home", "/run", "/run/user", "/tmp", "/var", "/var/cache", "/var/tmp"];
    names.iter().any(|name| path == Path::new(name))
}

fn overflow_uid() -> u32 {
    const DEFAULT: u32 = 65534;
    let text = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT)
}

/// Whether the file belongs to this user, contains exactly `bytes`, and is not writable for other users.
fn is_whole(path: &Path, bytes: &[u8]) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let Ok(file) = opened else { return false };
    let Ok(metadata) = file.metadata() else { return false };
    let is_ours = metadata.is_file() && metadata.uid() == effective_ids().0 && metadata.mode() & 0o022 == 0;
    if !is_ours || metadata.len() != bytes.len() as u64 {
        return false;
    }
    let mut found = Vec::with_capacity(bytes.len());
    file.take(bytes.len() as u64 + 1).read_to_end(&mut found).is_ok() && found == bytes
}

/// Writes a file under a temporary name, and then renames the file to `path`. So no process sees a
/// half-written file. A process that has loaded an older file of this name keeps the content of the older
/// file.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(&format!(".{name}.")).tempfile_in(directory)?;
    file.write_all(bytes)?;
    // Set the mode again, because the umask may have removed bits of the mode.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    // Call sync_data, because some file systems report a full disk only at this call.
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

/// Copies edleak-record, its library and the C headers into `directory`, for a container image or a shared
/// volume. `headers` holds the name and the text of each header.
///
/// # Errors
/// edleak-record cannot write a file.
pub fn copy_to(directory: &Path, bytes: &[u8], headers: &[(&str, &str)]) -> Result<(), Error> {
    let failed = |path: &Path, error: io::Error| {
        library(format!("failed to write `{}`: {error}", path.display()))
            .with_remedy("name another directory")
    };
    fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    let own = fs::read("/proc/self/exe").or_else(|_| fs::read(std::env::current_exe()?));
    let own = own.map_err(|error| {
        library(format!("edleak-record cannot read its own program: {error}")).with_remedy("copy it by hand")
    })?;
    let headers = headers.iter().map(|(name, text)| (*name, text.as_bytes(), 0o644));
    let programs = [(NAME, bytes, 0o644), ("edleak-record", own.as_slice(), 0o755)];
    for (name, bytes, mode) in headers.chain(programs) {
        let path = directory.join(name);
        write(&path, bytes, mode).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// Computes a hash for the name of the directory of one version of the library. Two versions of the library
/// may have the same hash by chance, so the caller also compares the bytes of the file.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::os::unix::fs::symlink;

    const BYTES: &[u8] = b"\x7fELF and the rest of a library";

    type Spoil = (&'static str, fn(&Path));

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("edleak-unpack-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).expect("writable");
            fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("ours");
            Dir(fs::canonicalize(dir).expect("made above"))
        }

        fn place(&self, name: &str) -> Place {
            Place { directory: self.0.join(name), makes_parents: true }
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn second_call_uses_the_copy_of_the_first() {
        let dir = Dir::new("twice");
        let path = dir.place("cache").unpack(BYTES).expect("writable");
        let first = fs::metadata(&path).expect("it is there");
        assert_eq!(fs::read(&path).expect("it is there"), BYTES);
        assert_eq!(dir.place("cache").unpack(BYTES), Ok(path.clone()));
        assert_eq!(fs::metadata(&path).expect("it is there").ino(), first.ino());
    }

    #[test]
    fn versions_lie_side_by_side() {
        let dir = Dir::new("versions");
        let one = dir.place("cache").unpack(BYTES).expect("writable");
        let other = dir.place("cache").unpack(b"\x7fELF another").expect("writable");
        assert_ne!(one, other);
        assert_eq!(fs::read(&one).expect("it is there"), BYTES);
    }

    #[test]
    fn half_written_changed_or_open_file_is_replaced() {
        let dir = Dir::new("half");
        let path = dir.place("cache").unpack(BYTES).expect("writable");
        let spoil: [Spoil; 4] = [
            ("cut off", |path| fs::write(path, &BYTES[..9]).expect("ours")),
            ("another of the same length", |path| fs::write(path, [7; BYTES.len()]).expect("ours")),
            ("writable for others", |path| {
                fs::set_permissions(path, Permissions::from_mode(0o666)).expect("ours")
            }),
            ("a link", |path| {
                fs::rename(path, path.with_extension("moved")).expect("ours");
                symlink(path.with_extension("moved"), path).expect("writable");
            }),
        ];
        for (what, spoil) in spoil {
            spoil(&path);
            assert!(!is_whole(&path, BYTES), "{what}");
            assert_eq!(dir.place("cache").unpack(BYTES), Ok(path.clone()), "{what}");
            assert!(is_whole(&path, BYTES), "{what}");
        }
    }

    #[test]
    fn directory_that_others_may_change_is_not_used() {
        let dir = Dir::new("open");
        let place = dir.place("cache");
        fs::create_dir(&place.directory).expect("writable");
        fs::set_permissions(&place.directory, Permissions::from_mode(0o777)).expect("ours");
        assert!(place.unpack(BYTES).is_err_and(|why| why.message().contains("other users may write")));
        fs::remove_dir(&place.directory).expect("ours");

        // edleak-record must also reject a directory if another user could rename the parent of this
        // directory.
        fs::set_permissions(&dir.0, Permissions::from_mode(0o777)).expect("ours");
        assert!(place.unpack(BYTES).is_err_and(|why| why.message().contains("other users may write to `")));
        fs::set_permissions(&dir.0, Permissions::from_mode(0o1777)).expect("ours");
        assert!(place.unpack(BYTES).is_ok(), "in a sticky directory they cannot");
    }

    #[test]
    fn directory_of_another_user_is_not_used() {
        if effective_ids().0 != 0 {
            assert!(std::env::var_os("CI").is_none(), "CI runs as root");
            return eprintln!("not run: only root can create a directory of another user");
        }
        let dir = Dir::new("foreign");
        let place = dir.place("cache");
        fs::create_dir(&place.directory).expect("writable");
        std::os::unix::fs::chown(&place.directory, Some(65534), Some(65534)).expect("root may");
        let next = dir.place("next");
        let found = unpack_into(&[place.clone(), next.clone()], BYTES).expect("the next one is ours");
        assert!(found.starts_with(&next.directory));
        let message = unpack_into(&[place], BYTES).expect_err("there is no other").to_string();
        assert!(message.contains("it belongs to another user (uid 65534)"), "{message}");
        assert!(message.contains("set XDG_CACHE_HOME") && message.ends_with(')'), "{message}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn file_system_without_room_or_execution_is_named() {
        let full = Place { directory: "/proc/edleak".into(), makes_parents: false };
        assert!(full.unpack(BYTES).is_err());
        let spaced = Place { directory: "/tmp/a b".into(), makes_parents: false };
        assert!(spaced.unpack(BYTES).is_err_and(|why| why.message().contains("LD_PRELOAD cannot express")));
    }

    #[test]
    fn cache_directory_comes_before_temporary_ones() {
        let with = |pairs: &[(&str, &str)], uid| -> Vec<String> {
            let map: HashMap<_, _> = pairs.iter().copied().collect();
            let found = places(|name| map.get(name).map(OsString::from), uid);
            found.into_iter().map(|place| place.directory.display().to_string()).collect()
        };
        let temporary = ["/run/user/7/edleak", "/tmp/edleak-7", "/var/tmp/edleak-7", "/dev/shm/edleak-7"];
        assert_eq!(with(&[], 7), temporary);
        assert_eq!(with(&[("HOME", "/"), ("XDG_CACHE_HOME", "relative")], 7), temporary);
        assert_eq!(with(&[("HOME", "/home/a")], 7)[0], "/home/a/.cache/edleak");
        assert_eq!(
            with(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")], 7)[..2],
            ["/c/edleak", "/run/user/7/edleak"]
        );
        assert_eq!(with(&[("HOME", "/root")], 0)[..2], ["/var/cache/edleak", "/root/.cache/edleak"]);
        let own = with(&[("XDG_RUNTIME_DIR", "/r"), ("TMPDIR", "/t")], 7);
        assert_eq!(own[..2], ["/r/edleak", "/t/edleak-7"]);
    }
}
