//! Finds the path under which a running process can open the library. If the process has another root
//! directory (a container), copies the library into a directory that the process sees.
//!
//! The programs in a container control the files of the container: a symbolic link in it may lead anywhere,
//! and may change at any time. So the collector lets the kernel resolve each path inside the root directory
//! of the process, and no path leads out of this directory.

use crate::error::{Error, refusal};
use crate::sys::process;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The path under which a process can open the library. `copy_into` is the directory for a copy of the
/// library; `None`: the user has named no directory.
pub(super) fn visible_path(pid: u32, library: &Path, copy_into: Option<&Path>) -> Result<PathBuf, Error> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    if is_visible(&root, library) {
        return Ok(library.to_owned());
    }
    let Some(directory) = copy_into else {
        let message = format!("it cannot open `{}`: it has other files", library.display());
        return Err(refusal(message, "copy the library into its files: `--copy-into /tmp`"));
    };
    let name = format!("libedleak_preload-{}.so", edleak_session::VERSION);
    let copy = directory.join(&name);
    let cannot = |error: io::Error| {
        let message = format!("`{}` cannot be written: {error}", copy.display());
        let remedy = match error.raw_os_error() {
            Some(libc::ENOSYS) => "--copy-into needs openat2 of Linux 5.6: start the process recorded",
            _ => "name a directory that exists there, or start edleak-record as root",
        };
        refusal(message, remedy)
    };
    fs::read(library).and_then(|bytes| place(&root, directory, &name, &bytes)).map_err(cannot)?;
    Ok(copy)
}

/// Whether a process with the root directory `root` and this process see the same file at `path`.
fn is_visible(root: &Path, path: &Path) -> bool {
    match open_in(root, path, OFlags::PATH) {
        Ok(file) => {
            let identity = |data: fs::Metadata| (data.dev(), data.ino());
            let theirs = File::from(file).metadata().map(identity);
            theirs.is_ok_and(|theirs| fs::metadata(path).is_ok_and(|ours| identity(ours) == theirs))
        }
        Err(Errno::NOSYS) => path.strip_prefix("/").is_ok_and(|path| {
            let ours = Path::new("/").join(path);
            process::is_same_file(&ours, &root.join(path))
        }),
        Err(_) => false,
    }
}

/// Opens the file that a process with the root directory `root` sees at `path`.
fn open_in(root: &Path, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, directory, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Writes a file with this name and content into a directory below `root`, unless the directory already
/// contains a file with this name and content.
fn place(root: &Path, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let directory = open_in(root, directory, OFlags::PATH | OFlags::DIRECTORY)?;
    let open = |flags: OFlags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o755)).map(File::from)
    };
    if let Ok(mut file) = open(OFlags::RDONLY) {
        let is_own = file.metadata().is_ok_and(|data| data.is_file() && data.uid() == own_user());
        let mut there = Vec::new();
        if is_own && file.read_to_end(&mut there).is_ok() && there == bytes {
            return Ok(());
        }
    }
    // Delete an existing file of this name and create a new file, because another user may have created the
    // existing file, or a link with this name.
    let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
    let mut file = open(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    file.write_all(bytes)
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory that stands for the root directory of a container.
    fn root(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("edleak-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("container/tmp")).expect("writable");
        fs::create_dir_all(root.join("outside")).expect("writable");
        root
    }

    #[test]
    fn link_of_a_container_does_not_lead_a_copy_out_of_it() {
        let base = root("copy-link");
        let (container, outside) = (base.join("container"), base.join("outside"));
        symlink(&outside, container.join("absolute")).expect("new");
        symlink("../outside", container.join("relative")).expect("new");
        symlink("tmp", container.join("inner")).expect("new");
        for link in ["/absolute", "/relative", "/../outside"] {
            place(&container, Path::new(link), "library.so", b"code").expect_err(link);
        }
        assert_eq!(fs::read_dir(&outside).expect("readable").count(), 0);
        place(&container, Path::new("/inner"), "library.so", b"code").expect("a link inside");
        assert_eq!(fs::read(container.join("tmp/library.so")).expect("written"), b"code");
        let _ = fs::remove_dir_all(&base);
    }

    #[test]
    fn link_with_the_name_of_the_copy_is_replaced() {
        let base = root("copy-name");
        let (container, victim) = (base.join("container"), base.join("outside/victim"));
        fs::write(&victim, "precious").expect("writable");
        symlink(&victim, container.join("tmp/library.so")).expect("new");
        place(&container, Path::new("/tmp"), "library.so", b"code").expect("writable");
        assert_eq!(fs::read(&victim).expect("readable"), b"precious");
        assert_eq!(fs::read(container.join("tmp/library.so")).expect("written"), b"code");
        let _ = fs::remove_dir_all(&base);
    }
}
