//! Finds the files of a module: its binary, and the debug files that were separated from the binary.
//!
//! edleak uses a file only if the file belongs to the recorded build. To check that a file belongs to the
//! recorded build, edleak compares build IDs. For a debug file without a build ID, edleak compares the file's
//! checksum with the checksum in `.gnu_debuglink` of the binary. edleak searches the user's directories
//! first, and then the usual places of distributions and debuggers:
//!
//! | place                          | for a module `/usr/bin/prog`, build ID abcdef…, directory DIR   |
//! |--------------------------------|-----------------------------------------------------------------|
//! | tree of build IDs              | `DIR/.build-id/ab/cdef….debug`, `DIR/ab/cdef….debug`            |
//! | plain directory                | `DIR/prog`, `DIR/prog.debug`, `DIR/` + name in `.gnu_debuglink` |
//! | root of another system         | `DIR/usr/bin/prog`, `DIR/usr/bin/prog.debug`, `DIR/usr/lib/debug/…` |
//! | this system                    | `/usr/lib/debug/.build-id/…`, `/usr/lib/debug/usr/bin/…`        |
//! | beside the binary              | `/usr/bin/…`, `/usr/bin/.debug/…`                               |
//!
//! edleak does not search subdirectories, because a build tree may contain a million files.

use super::binary_file::BinaryFile;
use super::debuginfod::{Artifact, Servers};
use super::elf::Debuglink;
use super::outcome::{Hex, Source};
use edleak_format::Module;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Maximum size of the section `.gnu_debugdata` after decompression, in bytes. A section `.gnu_debugdata`
/// contains only a small symbol table, so a larger size means that the file is damaged or hostile.
const MAX_MINI_BYTES: u64 = 256 << 20;

/// Maximum memory for the decompression of `.gnu_debugdata`, in KiB. The section is an xz file, whose header
/// says how much memory its decompression needs. A file made with `xz -9`, the highest level, needs a little
/// more than 64 MiB; a hostile file may request 4 GiB.
const MAX_MINI_MEMORY_KB: u32 = 66 << 10;

/// The directory in which the system keeps debug files.
const SYSTEM_DEBUG: &str = "/usr/lib/debug";

/// Places in which edleak looks for symbols, in addition to the module's own file and the system's debug
/// files.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Directories in which edleak looks for debug files, as the user gave them. Each directory may be a
    /// tree of build IDs, a plain directory, or the root of another system.
    pub debug_dirs: Vec<PathBuf>,
    /// Whether edleak also asks the debuginfod servers of `DEBUGINFOD_URLS`. edleak runs the program
    /// `debuginfod-find` to ask the servers.
    pub debuginfod: bool,
}

/// The files of one module.
#[derive(Debug)]
pub(crate) struct Files {
    /// The binary.
    pub(crate) binary: Option<BinaryFile>,
    /// A separate file with the debug information. `None`: the debug information is in the binary, or edleak
    /// found none.
    pub(crate) debug: Option<BinaryFile>,
    /// The supplementary file (dwz): debug information that several debug files share.
    pub(crate) shared: Option<BinaryFile>,
    /// The package of split debug files.
    pub(crate) package: Option<BinaryFile>,
    /// The file with the symbol table that was unpacked from `.gnu_debugdata`.
    pub(crate) mini: Option<BinaryFile>,
    /// The reason why no binary was found. `None`: the binary was found.
    pub(crate) missing: Option<Source>,
}

impl Files {
    /// The file whose debug information edleak uses: the separate debug file, or else the binary.
    pub(crate) fn dwarf(&self) -> Option<&BinaryFile> {
        self.debug.iter().chain(&self.binary).find(|elf| elf.has_dwarf())
    }
}

/// Finds the files of `module`.
pub(crate) fn find(module: &Module, options: &Options, servers: Option<&Servers>) -> Files {
    let finder = Finder { build_id: &module.build_id, path: binary_path(&module.path), options, servers };
    let (binary, missing) = finder.binary();
    let has_dwarf = binary.as_ref().is_some_and(BinaryFile::has_dwarf);
    let debug = if has_dwarf { None } else { finder.debug(binary.as_ref()) };
    let dwarf = if has_dwarf { binary.as_ref() } else { debug.as_ref() };
    let shared = dwarf.and_then(|elf| finder.shared(elf));
    let package = dwarf.and_then(|_| finder.package(binary.as_ref(), debug.as_ref()));
    let mini = binary.as_ref().and_then(unpack_mini);
    Files { binary, debug, shared, package, mini, missing }
}

/// Finds the debug file of the module at `path`; `binary` is the module's own file.
pub(crate) fn find_debug(path: &str, binary: &BinaryFile, options: &Options) -> Option<BinaryFile> {
    let finder = Finder { build_id: binary.build_id(), path: binary_path(path), options, servers: None };
    finder.debug(Some(binary))
}

/// The path of a module's file. `None`: the module has no file. Modules without a file are, for example,
/// `[vdso]` and the memory of a memfd.
fn binary_path(path: &str) -> Option<&Path> {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let is_none = path.is_empty() || path.starts_with('[') || path.starts_with("/memfd:");
    (!is_none).then(|| Path::new(path))
}

struct Finder<'a> {
    /// The build ID of the module in the trace; empty if the trace has none.
    build_id: &'a [u8],
    path: Option<&'a Path>,
    options: &'a Options,
    servers: Option<&'a Servers>,
}

impl Finder<'_> {
    fn binary(&self) -> (Option<BinaryFile>, Option<Source>) {
        // A relative path in a trace is relative to the directory of the target, which edleak does not know.
        // So edleak looks for a file with a relative path only in the directories that the user gives.
        let own = self.path.filter(|path| path.is_absolute());
        let mut candidates: Vec<PathBuf> = own.map(Path::to_owned).into_iter().collect();
        for dir in &self.options.debug_dirs {
            candidates.extend(self.in_directory(dir, ""));
            candidates.extend(self.in_build_id_trees(dir, ""));
        }
        let mut missing = None;
        for path in candidates {
            match BinaryFile::open(&path) {
                Ok(elf) if self.build_id.is_empty() || elf.build_id() == self.build_id => {
                    return (Some(elf), None);
                }
                // If no candidate is the right file, the user sees only the problem with the first candidate.
                // The first candidate is the module's own path, which the user knows.
                Ok(elf) => {
                    missing.get_or_insert_with(|| Source::Rebuilt {
                        file: path,
                        found: elf.build_id().to_vec(),
                        expected: self.build_id.to_vec(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    missing
                        .get_or_insert_with(|| Source::Unreadable { file: path, reason: error.to_string() });
                }
            }
        }
        if let Some(elf) = self.fetch(Artifact::Executable) {
            return (Some(elf), None);
        }
        let absent = match self.path {
            Some(_) => Source::Missing { build_id: self.build_id.to_vec() },
            None => Source::NoFile,
        };
        (None, Some(missing.unwrap_or(absent)))
    }

    fn debug(&self, binary: Option<&BinaryFile>) -> Option<BinaryFile> {
        let link = binary.and_then(|binary| binary.elf().ok()?.debuglink());
        let mut candidates = Vec::new();
        for dir in &self.options.debug_dirs {
            candidates.extend(self.in_build_id_trees(dir, ".debug"));
            candidates.extend(self.in_directory(dir, ".debug"));
            candidates.extend(self.in_directory(dir, ""));
            candidates.extend(self.linked(link.as_ref(), dir));
            candidates.extend(self.linked(link.as_ref(), &below(dir, Path::new(SYSTEM_DEBUG))));
            candidates.extend(link.as_ref().map(|link| dir.join(&link.name)));
        }
        candidates.extend(self.in_build_id_trees(Path::new(SYSTEM_DEBUG), ".debug"));
        if let (Some(link), Some(binary)) = (&link, binary) {
            let beside = binary.path().parent().unwrap_or(Path::new("/"));
            candidates.push(beside.join(&link.name));
            candidates.push(beside.join(".debug").join(&link.name));
        }
        candidates.extend(self.linked(link.as_ref(), Path::new(SYSTEM_DEBUG)));
        candidates
            .iter()
            .find_map(|path| {
                let elf = BinaryFile::open(path).ok()?;
                (self.is_same_build(&elf, link.as_ref()) && elf.has_dwarf()).then_some(elf)
            })
            .or_else(|| self.fetch(Artifact::DebugInfo))
    }

    /// Whether `elf` belongs to the recorded build. edleak refuses a file with another build ID, even if
    /// `.gnu_debuglink` names this file.
    fn is_same_build(&self, elf: &BinaryFile, link: Option<&Debuglink>) -> bool {
        if !self.build_id.is_empty() && !elf.build_id().is_empty() {
            return elf.build_id() == self.build_id;
        }
        link.is_some_and(|link| crc32fast::hash(elf.bytes()) == link.crc)
    }

    /// The supplementary file that `elf` names in `.gnu_debugaltlink`.
    fn shared(&self, elf: &BinaryFile) -> Option<BinaryFile> {
        let (name, build_id) = elf.elf().ok()?.debugaltlink()?;
        let named = Path::new(OsStr::from_bytes(name));
        // The name in `.gnu_debugaltlink` is relative to the directory of the file `elf`, after all symbolic
        // links are resolved.
        let real = std::fs::canonicalize(elf.path()).unwrap_or_else(|_| elf.path().to_owned());
        let mut candidates = Vec::new();
        let base = named.file_name().unwrap_or_default();
        for dir in &self.options.debug_dirs {
            candidates.extend(in_build_id_tree(&dir.join(".build-id"), build_id, ".debug"));
            candidates.push(dir.join(".dwz").join(base));
            candidates.push(dir.join(base));
            candidates.push(below(dir, named));
        }
        candidates.push(real.parent().unwrap_or(Path::new("/")).join(named));
        candidates.extend(in_build_id_tree(&Path::new(SYSTEM_DEBUG).join(".build-id"), build_id, ".debug"));
        candidates
            .iter()
            .filter_map(|path| BinaryFile::open(path).ok())
            .find(|elf| elf.build_id() == build_id)
    }

    /// The package of split debug files. A package (.dwp) has no build ID. So edleak checks the id of each
    /// unit when a lookup uses this unit.
    fn package(&self, binary: Option<&BinaryFile>, debug: Option<&BinaryFile>) -> Option<BinaryFile> {
        let mut candidates = Vec::new();
        for dir in &self.options.debug_dirs {
            candidates.extend(self.in_directory(dir, ".dwp"));
        }
        for elf in debug.into_iter().chain(binary) {
            let mut name = elf.path().as_os_str().to_owned();
            name.push(".dwp");
            candidates.push(PathBuf::from(name));
            candidates.push(elf.path().with_extension("dwp"));
        }
        candidates.extend(self.path.map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dwp");
            PathBuf::from(name)
        }));
        candidates.iter().find_map(|path| BinaryFile::open(path).ok())
    }

    fn fetch(&self, artifact: Artifact) -> Option<BinaryFile> {
        self.servers?.fetch(artifact, self.build_id)
    }

    /// The paths to try in `dir`: one for the case that `dir` is a plain directory, and one for the case that
    /// `dir` is the root of another system.
    fn in_directory(&self, dir: &Path, suffix: &str) -> Vec<PathBuf> {
        let Some(path) = self.path else { return Vec::new() };
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let path = Path::new(&name);
        path.file_name().map(|name| dir.join(name)).into_iter().chain([below(dir, path)]).collect()
    }

    fn in_build_id_trees(&self, dir: &Path, suffix: &str) -> Vec<PathBuf> {
        [dir.join(".build-id"), dir.to_owned(), below(dir, Path::new(SYSTEM_DEBUG)).join(".build-id")]
            .iter()
            .filter_map(|tree| in_build_id_tree(tree, self.build_id, suffix))
            .collect()
    }

    /// The path at which the file named in `.gnu_debuglink` may be: below the directory `root`, in a
    /// directory with the same path as the module's directory.
    fn linked(&self, link: Option<&Debuglink>, root: &Path) -> Option<PathBuf> {
        Some(below(root, self.path?.parent()?).join(&link?.name))
    }
}

/// The absolute path `path`, moved below `dir`: `/usr/bin/prog` becomes `dir/usr/bin/prog`.
fn below(dir: &Path, path: &Path) -> PathBuf {
    dir.join(path.strip_prefix("/").unwrap_or(path))
}

fn in_build_id_tree(tree: &Path, build_id: &[u8], suffix: &str) -> Option<PathBuf> {
    let (first, rest) = build_id.split_first()?;
    (!rest.is_empty()).then(|| tree.join(format!("{first:02x}")).join(format!("{}{suffix}", Hex(rest))))
}

/// Decompresses the section `.gnu_debugdata`. Fedora and other distributions add the section
/// `.gnu_debugdata` to stripped binaries. The section contains a small compressed ELF file with
/// symbols.
pub(crate) fn unpack_mini(binary: &BinaryFile) -> Option<BinaryFile> {
    let piece = binary.piece(".gnu_debugdata");
    if piece.len() == 0 {
        return None;
    }
    let packed = binary.slice(&piece);
    let mut unpacked = Vec::new();
    lzma_rust2::XzReader::new_mem_limit(packed, false, MAX_MINI_MEMORY_KB)
        .take(MAX_MINI_BYTES)
        .read_to_end(&mut unpacked)
        .ok()?;
    BinaryFile::from_bytes(binary.path(), unpacked).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_format::ModuleId;

    #[test]
    fn a_module_with_a_relative_path_is_found_in_the_users_directories_only() {
        let own = std::env::current_exe().expect("Linux has /proc");
        let name = own.file_name().expect("a file").display().to_string();
        let build_id = BinaryFile::open(&own).expect("it runs, so it is sound").build_id().to_vec();
        let at = ModuleId(0);
        let (start, end) = (0x1000, 0x2000);
        let path = format!("./{name}");
        let module =
            Module { id: at, path, build_id, load_bias: start, start, end, loaded_ns: 0, unloaded_ns: 0 };
        let mut options = Options::default();
        let missing = find(&module, &options, None).missing;
        assert!(matches!(missing, Some(Source::Missing { .. })), "it has a file: {missing:?}");
        options.debug_dirs.push(own.parent().expect("a directory").to_owned());
        assert!(find(&module, &options, None).binary.is_some());
        let vdso = Module { path: "[vdso]".into(), build_id: Vec::new(), ..module };
        assert!(matches!(find(&vdso, &options, None).missing, Some(Source::NoFile)));
    }
}
