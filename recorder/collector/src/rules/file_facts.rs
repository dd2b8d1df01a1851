//! Facts about the files of modules. The collector reads these facts once for each version of a file, because
//! a shell starts the same few programs thousands of times.

use edleak_binary::ErrorKind;
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// The facts about a file that the collector needs to add the file to the list of modules.
#[derive(Clone)]
pub(crate) struct FileFacts {
    /// The build ID; empty: the file has no build ID.
    pub(crate) build_id: Vec<u8>,
    /// The link-time address of the file's first byte.
    pub(crate) link_base: u64,
}

/// The kind of a mapped file.
#[derive(Clone)]
pub(crate) enum Kind {
    /// An ELF file, which may be a module.
    Elf(FileFacts),
    /// A file that is not an ELF file.
    NotElf,
    /// A file that the collector cannot read.
    Unreadable,
}

/// The facts that the collector has read from one version of a file.
struct Known {
    kind: Kind,
    /// The name of the allocator in a program without a symbol table. The search for the name of the
    /// allocator reads the whole file, so the collector searches only once.
    nameless_allocator: OnceLock<Option<&'static str>>,
}

impl Known {
    fn of(kind: Kind) -> Arc<Known> {
        Arc::new(Known { kind, nameless_allocator: OnceLock::new() })
    }
}

static KNOWN_FILES: LazyLock<Mutex<HashMap<FileVersion, Arc<Known>>>> = LazyLock::new(Mutex::default);
const MAX_KNOWN_FILES: usize = 4096;

/// The kind of the file at `path`.
pub(crate) fn kind(path: &Path) -> Kind {
    known(path).kind.clone()
}

/// The name of the allocator in a program without a symbol table; `None`: the program contains no allocator,
/// or has a symbol table.
pub(crate) fn nameless_allocator(path: &Path) -> Option<&'static str> {
    let known = known(path);
    let search = || Elf::parse(&FileBytes::open(path).ok()?).ok()?.nameless_allocator();
    *known.nameless_allocator.get_or_init(search)
}

fn known(path: &Path) -> Arc<Known> {
    // Never open a mapped device or pipe, because opening it may block or have side effects.
    let file = match std::fs::metadata(path) {
        Ok(file) if file.is_file() => file,
        Ok(_) => return Known::of(Kind::NotElf),
        Err(_) => return Known::of(Kind::Unreadable),
    };
    let version = FileVersion::of(&file);
    let files = || KNOWN_FILES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = files().get(&version) {
        return Arc::clone(known);
    }
    let Ok(bytes) = FileBytes::open(path) else { return Known::of(Kind::Unreadable) };
    let kind = match Elf::parse(&bytes) {
        Ok(elf) => Kind::Elf(FileFacts {
            build_id: elf.build_id().unwrap_or_default().to_vec(),
            link_base: elf.link_base(),
        }),
        Err(error) if error.kind() == ErrorKind::NotElf => Kind::NotElf,
        Err(_) => Kind::Unreadable,
    };
    let known = Known::of(kind);
    let mut files = files();
    if files.len() >= MAX_KNOWN_FILES {
        files.clear();
    }
    files.insert(version, Arc::clone(&known));
    known
}

/// Identifies one version of a file. The value changes if a new file replaces a file of the same name, or if
/// the content of the file changes.
#[derive(PartialEq, Eq, Hash)]
struct FileVersion {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds of the last change of the content.
    modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of any kind.
    changed: (i64, i64),
}

impl FileVersion {
    fn of(file: &Metadata) -> FileVersion {
        FileVersion {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}
