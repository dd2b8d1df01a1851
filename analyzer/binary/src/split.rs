//! Split debug information: a .dwo file for each unit, or a .dwp package for many units.
//!
//! Neither a .dwo file nor a .dwp file has a build ID. To find the right file, each unit of debug information
//! has an id, which is a hash. The binary has a short entry for each unit (the skeleton) with the id of this
//! unit. If no unit in a .dwo or .dwp file has the id that the binary gives, the file belongs to another
//! build, and edleak does not use it.

use super::binary_file::BinaryFile;
use super::bounded::{BoundedSlice, Guard};
use super::cache::Opened;
use super::elf::Piece;
use super::sections::{size_of, split_sections};
use addr2line::SplitDwarfLoad;
use gimli::{Dwarf, DwarfPackage, DwarfSections, RunTimeEndian};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use typed_arena::Arena;

/// An opened .dwo file.
pub(crate) struct SplitFile {
    elf: BinaryFile,
    sections: DwarfSections<Piece>,
}

/// Finds the split debug information of a unit when a lookup first needs it.
pub(crate) struct Loader<'a> {
    package: Option<DwarfPackage<BoundedSlice<'a>>>,
    /// The opened .dwo files, which stay open until all lookups of this thread are done, because the lookups
    /// borrow data from these files.
    files: &'a Arena<SplitFile>,
    debug_dirs: &'a [PathBuf],
    beside: Option<&'a Path>,
    guard: &'a Guard,
    /// The ids of units whose split debug information was not found.
    pub(crate) missing: BTreeSet<u64>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(
        opened: &'a Opened,
        elf: &'a BinaryFile,
        files: &'a Arena<SplitFile>,
        debug_dirs: &'a [PathBuf],
        guard: &'a Guard,
    ) -> Self {
        let package = opened.package().and_then(|(elf, sections)| {
            // The budget of reads must be large enough for all units that lookups read. When edleak opens
            // a .dwo file, it adds the size of the file to the budget. For a package, edleak adds the size
            // of the whole package here.
            guard.admit(elf.bytes().len() as u64);
            let empty = BoundedSlice::new(&[], RunTimeEndian::Little, guard);
            sections
                .borrow(|piece| BoundedSlice::new(elf.slice(piece), RunTimeEndian::Little, guard), empty)
                .ok()
        });
        Loader { package, files, debug_dirs, beside: elf.path().parent(), guard, missing: BTreeSet::new() }
    }

    /// Finds the split debug information of the unit that `load` names.
    pub(crate) fn load(
        &mut self,
        load: &SplitDwarfLoad<BoundedSlice<'a>>,
    ) -> Option<Arc<Dwarf<BoundedSlice<'a>>>> {
        let found = self.in_package(load).or_else(|| self.in_file(load));
        if found.is_none() {
            self.missing.insert(load.dwo_id.0);
        }
        // Only one thread uses the debug information, so an `Rc` would do, but the interface of
        // addr2line needs an `Arc`.
        #[allow(clippy::arc_with_non_send_sync)]
        found.map(Arc::new)
    }

    fn in_package(&self, load: &SplitDwarfLoad<BoundedSlice<'a>>) -> Option<Dwarf<BoundedSlice<'a>>> {
        self.package.as_ref()?.find_cu(load.dwo_id, &load.parent).ok().flatten()
    }

    fn in_file(&self, load: &SplitDwarfLoad<BoundedSlice<'a>>) -> Option<Dwarf<BoundedSlice<'a>>> {
        let name = path_of(&load.path?);
        let in_build = load.comp_dir.map_or_else(|| name.to_owned(), |dir| path_of(&dir).join(name));
        let mut candidates = Vec::new();
        for dir in self.debug_dirs.iter().map(PathBuf::as_path).chain(self.beside) {
            candidates.push(dir.join(in_build.strip_prefix("/").unwrap_or(&in_build)));
            candidates.push(dir.join(name.strip_prefix("/").unwrap_or(name)));
            candidates.extend(name.file_name().map(|name| dir.join(name)));
        }
        if in_build.is_absolute() {
            candidates.push(in_build);
        }
        candidates.iter().find_map(|path| self.open(path, load))
    }

    fn open(&self, path: &Path, load: &SplitDwarfLoad<BoundedSlice<'a>>) -> Option<Dwarf<BoundedSlice<'a>>> {
        let elf = BinaryFile::open(path).ok()?;
        let sections = split_sections(&elf);
        let file: &'a SplitFile = self.files.alloc(SplitFile { elf, sections });
        self.guard.admit(size_of(&file.sections));
        let mut dwarf = file
            .sections
            .borrow(|piece| BoundedSlice::new(file.elf.slice(piece), RunTimeEndian::Little, self.guard));
        dwarf.make_dwo(&load.parent);
        let header = dwarf.units().next().ok()??;
        (dwarf.unit(header).ok()?.dwo_id == Some(load.dwo_id)).then_some(dwarf)
    }
}

fn path_of<'a>(name: &BoundedSlice<'a>) -> &'a Path {
    Path::new(OsStr::from_bytes(name.bytes()))
}
