//! One ELF file: its kind, its code, its sections, and the names of its debug files.
//!
//! An offset is a link-time address minus the link-time address of the file's first byte. So a PIE, a library
//! and a fixed-address executable all have offsets that begin at 0. An offset has 32 bits, which suffice for
//! files up to 4 GiB. A damaged file may contain wrong sizes. So the code compares each size with the number
//! of bytes in the file before it allocates memory of this size.

use crate::arch::{self, Arch};
use crate::error::{Error, ErrorKind};
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::ReadRef;
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader, SymbolTable};
use object::{CompressionFormat, LittleEndian, Object, ObjectSection};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::Read;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Greatest ratio of a section's decompressed size to its compressed size. Real debug information has a
/// ratio of at most about 10. Without a greatest ratio, a hostile file of a few megabytes could fill
/// gigabytes of memory, because deflate allows a ratio of 1,032.
const MAX_RATIO: u64 = 64;
/// A decompressed section may have up to this number of bytes, even if the ratio of its decompressed size to
/// its compressed size is greater than `MAX_RATIO`. For example, a small section full of zeros has a greater
/// ratio, but needs little memory.
const FREE_BYTES: u64 = 16 << 20;
/// Maximum size of a decompressed section, in bytes. Linkers never write more than 16 GiB of debug
/// information.
const MAX_SECTION_BYTES: u64 = 16 << 30;

pub(crate) const LE: LittleEndian = LittleEndian;
type Header = FileHeader64<LittleEndian>;
type Segment = ProgramHeader64<LittleEndian>;
pub(crate) type Symbols<'data> = SymbolTable<'data, Header>;

/// An ELF file with parsed headers, for a machine on which edleak can record.
///
/// The program headers must be undamaged, because the kernel needs them, too, to run the program. Section
/// headers and symbols may be missing or broken, for example after `sstrip`. Without section headers and
/// symbols, the functions of the file have no names.
pub struct Elf<'data> {
    data: &'data [u8],
    header: &'data Header,
    segments: &'data [Segment],
    /// The sections and symbols of the file. `None`: the table of sections is missing or damaged.
    file: Option<ElfFile64<'data, LittleEndian>>,
    arch: Arch,
    base: u64,
}

/// The bytes of a section, either as a range of its file or as decompressed bytes.
#[derive(Debug)]
pub(crate) enum Piece {
    Within(Range<usize>),
    Unpacked(Vec<u8>),
}

impl Default for Piece {
    fn default() -> Self {
        Piece::Within(0..0)
    }
}

impl Piece {
    /// The number of bytes of the section.
    pub(crate) fn len(&self) -> usize {
        match self {
            Piece::Within(range) => range.len(),
            Piece::Unpacked(bytes) => bytes.len(),
        }
    }
}

/// The debug file that a `.gnu_debuglink` section names.
pub(crate) struct Debuglink {
    pub(crate) name: PathBuf,
    pub(crate) crc: u32,
}

impl<'data> Elf<'data> {
    /// Reads the headers of a file.
    ///
    /// # Errors
    /// The bytes are no ELF file, are an ELF file for a machine on which edleak cannot record, or have
    /// damaged headers.
    pub fn parse(data: &'data [u8]) -> Result<Elf<'data>, Error> {
        if !data.starts_with(&elf::ELFMAG) {
            return Err(Error::new(ErrorKind::NotElf, "not an ELF file"));
        }
        let (Some(&class), Some(machine)) = (data.get(4), data.get(18..20)) else {
            return Err(Error::damaged("its header is cut short"));
        };
        let machine = u16::from_le_bytes([machine[0], machine[1]]);
        let is_little_endian = data[5] == elf::ELFDATA2LSB.0;
        let arch = Arch::of(machine).filter(|_| class == elf::ELFCLASS64.0 && is_little_endian);
        let Some(arch) = arch else {
            // In a big-endian file, the bytes of the machine number are swapped.
            let machine = if is_little_endian { machine } else { machine.swap_bytes() };
            let message = format!("an ELF file for {}", arch::machine_name(class, machine));
            return Err(Error::new(ErrorKind::Foreign, message));
        };
        let header = Header::parse(data)?;
        let segments = header.program_headers(LE, data)?;
        let first_load = segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
        let base = first_load.map(|segment| segment.p_vaddr(LE) & !0xfff).min().unwrap_or(0);
        Ok(Elf { data, header, segments, file: ElfFile64::parse(data).ok(), arch, base })
    }

    /// Checks that the file contains all bytes that a loader maps. The check fails for a separate debug
    /// file, because such a file has the debug information but not the code.
    ///
    /// # Errors
    /// A segment lies beyond the end of the file.
    pub fn check_segments(&self) -> Result<(), Error> {
        let is_cut = |segment: &Segment| {
            let (offset, size) = segment.file_range(LE);
            segment.p_type(LE) == elf::PT_LOAD && self.data.read_bytes_at(offset, size).is_err()
        };
        match self.segments.iter().any(is_cut) {
            true => Err(Error::damaged("a segment lies beyond the end of the file")),
            false => Ok(()),
        }
    }

    /// Whether the table of sections is undamaged. The table of sections is at the end of the file, so it
    /// is missing if the download of the file was interrupted.
    pub(crate) fn has_sections(&self) -> bool {
        self.file.is_some()
    }

    /// The machine of the file.
    pub(crate) fn arch(&self) -> Arch {
        self.arch
    }

    /// The bytes of the file.
    pub(crate) fn data(&self) -> &'data [u8] {
        self.data
    }

    /// The link-time address from which offsets are counted: the first page of the first loaded segment.
    pub fn link_base(&self) -> u64 {
        self.base
    }

    /// Size of the address space from the file's first byte to the end of its last segment, in bytes.
    pub fn extent(&self) -> u64 {
        let loads = self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
        let end = loads.map(|segment| segment.p_vaddr(LE).saturating_add(segment.p_memsz(LE))).max();
        end.unwrap_or(0).saturating_sub(self.base)
    }

    /// The offset of a link-time address of this file. `None`: the address is below the first byte, or the
    /// offset does not fit in 32 bits.
    pub fn offset_of(&self, address: u64) -> Option<u32> {
        u32::try_from(address.checked_sub(self.base)?).ok()
    }

    /// The kind of the file (`e_type`).
    pub fn file_type(&self) -> elf::FileType {
        self.header.e_type(LE)
    }

    /// The path of the dynamic loader that the file requests (`PT_INTERP`). `None`: the program is statically
    /// linked.
    pub fn interpreter(&self) -> Option<PathBuf> {
        let path =
            self.segments.iter().find_map(|segment| segment.interpreter(LE, self.data).ok().flatten())?;
        Some(PathBuf::from(OsStr::from_bytes(path)))
    }

    /// The content of the first note in the note segments of the file that has the given owner and
    /// kind.
    pub fn note(&self, owner: &[u8], kind: elf::NoteType) -> Option<&'data [u8]> {
        self.segments.iter().find_map(|segment| {
            let mut notes = segment.notes(LE, self.data).ok().flatten()?;
            while let Ok(Some(note)) = notes.next() {
                if note.name() == owner && note.n_type(LE) == kind {
                    return Some(note.desc());
                }
            }
            None
        })
    }

    /// All notes in the note segments of the file that have the given owner and kind. Each result is
    /// the link-time address of a note's content, and the content.
    pub fn notes(&self, owner: &[u8], kind: u32) -> impl Iterator<Item = (u64, &'data [u8])> {
        let mut found = Vec::new();
        for segment in self.segments {
            let Ok(Some(mut notes)) = segment.notes(LE, self.data) else { continue };
            let (offset, _) = segment.file_range(LE);
            while let Ok(Some(note)) = notes.next() {
                if note.name() == owner && note.n_type(LE).0 == kind {
                    let at = note.desc().as_ptr().addr() - self.data.as_ptr().addr();
                    found.push((segment.p_vaddr(LE) + at as u64 - offset, note.desc()));
                }
            }
        }
        found.into_iter()
    }

    /// The GNU build ID.
    pub fn build_id(&self) -> Option<&'data [u8]> {
        let in_segment = self.note(elf::ELF_NOTE_GNU, elf::NT_GNU_BUILD_ID);
        // A supplementary file that several debug files share (dwz) has no segments. A supplementary file
        // has its build ID in a section.
        in_segment.or_else(|| self.file.as_ref()?.build_id().ok().flatten())
    }

    /// The SONAME of this library: the name under which other modules list it as a library that they need.
    pub fn soname(&self) -> Option<&'data str> {
        let sections = self.file.as_ref()?.elf_section_table();
        let (dynamic, strings) = sections.dynamic(LE, self.data).ok().flatten()?;
        let strings = sections.strings(LE, self.data, strings).ok()?;
        let soname = dynamic.iter().find(|entry| entry.tag(LE) == elf::DT_SONAME)?;
        std::str::from_utf8(soname.string(LE, strings).ok()?).ok()
    }

    /// The address and the decompressed bytes of the section called `name`.
    pub(crate) fn section(&self, name: &str) -> Option<(u64, Cow<'data, [u8]>)> {
        let address = self.file.as_ref()?.section_by_name(name)?.address();
        match self.piece(name)? {
            Piece::Within(range) => Some((address, self.data.get(range)?.into())),
            Piece::Unpacked(bytes) => Some((address, bytes.into())),
        }
    }

    /// Whether the file has a section called `name` that is not empty.
    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.file
            .as_ref()
            .and_then(|file| file.section_by_name(name)?.compressed_file_range().ok())
            .is_some_and(|range| range.compressed_size != 0)
    }

    /// The section called `name`, as a range of the file or as decompressed bytes.
    pub(crate) fn piece(&self, name: &str) -> Option<Piece> {
        // `section_by_name` also finds `.zdebug_info`, the GNU form of a compressed `.debug_info`.
        let range = self.file.as_ref()?.section_by_name(name)?.compressed_file_range().ok()?;
        let start = usize::try_from(range.offset).ok()?;
        let end = start.checked_add(usize::try_from(range.compressed_size).ok()?)?;
        let packed = self.data.get(start..end)?;
        if !may_unpack(&range) {
            return None;
        }
        match range.format {
            CompressionFormat::None => Some(Piece::Within(start..end)),
            CompressionFormat::Zstandard => {
                // Use the C library of zstd, which edleak needs for traces anyway. The C library is
                // several times as fast as the decoder in the crate `object`.
                let reader = zstd::stream::read::Decoder::with_buffer(packed).ok()?;
                read_exactly(reader, range.uncompressed_size).map(Piece::Unpacked)
            }
            CompressionFormat::Zlib => {
                let data = object::CompressedData {
                    format: range.format,
                    data: packed,
                    uncompressed_size: range.uncompressed_size,
                };
                Some(Piece::Unpacked(data.decompress().ok()?.into_owned()))
            }
            _ => None,
        }
    }

    /// The sections with code. Each result is the first address of a section and the address after its last
    /// byte.
    pub(crate) fn code_sections(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.file
            .iter()
            .flat_map(|file| file.sections())
            .filter(is_code)
            .map(|section| (section.address(), section.address().saturating_add(section.size())))
    }

    /// Whether the section with the index `section` contains code.
    pub(crate) fn is_code(&self, section: object::SectionIndex) -> bool {
        self.file
            .as_ref()
            .and_then(|file| file.section_by_index(section).ok())
            .is_some_and(|section| is_code(&section))
    }

    /// The full symbol table, or the dynamic symbol table if `is_dynamic`.
    pub(crate) fn symbols(&self, is_dynamic: bool) -> Option<&Symbols<'data>> {
        let file = self.file.as_ref()?;
        Some(if is_dynamic { file.elf_dynamic_symbol_table() } else { file.elf_symbol_table() })
    }

    /// The link-time addresses of all variables whose names end in `suffix`.
    pub fn variables(&self, suffix: &str) -> Vec<u64> {
        let Some(table) = self.symbols(false) else { return Vec::new() };
        let is_meant = |symbol: &&elf::Sym64<LittleEndian>| {
            let name = object::read::elf::Sym::name(*symbol, LE, table.strings());
            symbol.st_type() == elf::STT_OBJECT && name.is_ok_and(|name| name.ends_with(suffix.as_bytes()))
        };
        table.iter().filter(is_meant).map(|symbol| symbol.st_value.get(LE)).collect()
    }

    /// The debug file that the `.gnu_debuglink` section of this file names.
    pub(crate) fn debuglink(&self) -> Option<Debuglink> {
        let (name, crc) = self.file.as_ref()?.gnu_debuglink().ok().flatten()?;
        // The section `.gnu_debuglink` must contain a file name without directories. If a hostile file
        // contains a path, use only the last part of the path.
        let name = PathBuf::from(OsStr::from_bytes(name)).file_name()?.to_owned();
        Some(Debuglink { name: name.into(), crc })
    }

    /// Path and build ID of the supplementary file (dwz): the file with the debug information that this file
    /// shares with other files.
    pub(crate) fn debugaltlink(&self) -> Option<(&'data [u8], &'data [u8])> {
        self.file.as_ref()?.gnu_debugaltlink().ok().flatten()
    }

    /// The bytes in the file from `address` to the end of the segment that contains `address`.
    pub fn loaded_from(&self, address: u64) -> Option<&'data [u8]> {
        self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD).find_map(|segment| {
            let skip = usize::try_from(address.checked_sub(segment.p_vaddr(LE))?).ok()?;
            segment.data(LE, self.data).ok()?.get(skip..).filter(|rest| !rest.is_empty())
        })
    }

    /// The bytes of each segment that the loader maps.
    pub(crate) fn loaded_data(&self) -> impl Iterator<Item = &'data [u8]> + '_ {
        let loads = self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
        loads.filter_map(|segment| segment.data(LE, self.data).ok())
    }

    /// The segments with code. Each result is the link-time address of a segment and its bytes.
    pub fn code_segments(&self) -> impl Iterator<Item = (u64, &'data [u8])> + '_ {
        let loads = self
            .segments
            .iter()
            .filter(|segment| segment.p_type(LE) == elf::PT_LOAD && segment.p_flags(LE).contains(elf::PF_X));
        loads.filter_map(|segment| Some((segment.p_vaddr(LE), segment.data(LE, self.data).ok()?)))
    }

    /// Address of the segment `PT_GNU_EH_FRAME`. The segment contains the address of the section
    /// `.eh_frame`.
    pub(crate) fn eh_frame_hdr(&self) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.p_type(LE) == elf::PT_GNU_EH_FRAME)?;
        Some(segment.p_vaddr(LE))
    }

    /// The first symbol of the dynamic symbol table that has one of the `names`. A symbol that this file uses
    /// and another file defines counts, too. All names are compared in one pass, because a large program has
    /// hundreds of thousands of symbols.
    pub fn mentioned<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        let table = self.symbols(true)?;
        table.iter().find_map(|symbol| {
            let name = object::read::elf::Sym::name(symbol, LE, table.strings()).ok()?;
            names.iter().copied().find(|of| of.as_bytes() == name)
        })
    }
}

/// Whether a section contains code. The function checks the flags of the section and not its kind, because in
/// a separate debug file the section .text has no bytes. For a section without bytes, the crate `object`
/// reports the kind "uninitialized data".
fn is_code<'data>(section: &impl ObjectSection<'data>) -> bool {
    match section.flags() {
        object::SectionFlags::Elf { sh_flags, .. } => sh_flags.contains(elf::SHF_EXECINSTR),
        _ => false,
    }
}

/// Whether edleak may decompress a section: its decompressed size must be possible in an undamaged file. An
/// uncompressed section may have any size.
pub(crate) fn may_unpack(range: &object::CompressedFileRange) -> bool {
    let limit = range.compressed_size.saturating_mul(MAX_RATIO).clamp(FREE_BYTES, MAX_SECTION_BYTES);
    range.format == CompressionFormat::None || range.uncompressed_size <= limit
}

fn read_exactly(reader: impl Read, size: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).ok()?).ok()?;
    reader.take(size).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == size).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary_file::BinaryFile;
    use crate::functions::FunctionTable;
    use std::path::Path;

    #[test]
    fn foreign_files_are_distinguished() {
        let header = |class: u8, order: u8, machine: [u8; 2]| {
            let mut bytes = vec![0u8; 64];
            bytes[..4].copy_from_slice(b"\x7fELF");
            (bytes[4], bytes[5]) = (class, order);
            bytes[18..20].copy_from_slice(&machine);
            Elf::parse(&bytes).map(|_| ()).expect_err("no program headers")
        };
        let kind_of = |bytes: &[u8]| Elf::parse(bytes).err().map(|error| error.kind());
        assert_eq!(kind_of(b"#!/bin/sh"), Some(ErrorKind::NotElf));
        assert_eq!(kind_of(b""), Some(ErrorKind::NotElf));
        assert_eq!(kind_of(b"\x7fELF\x02\x01"), Some(ErrorKind::Damaged));
        assert_eq!(header(1, 1, [3, 0]).to_string(), "an ELF file for 32-bit x86");
        assert_eq!(header(2, 1, [183, 0]).to_string(), "an ELF file for aarch64");
        assert_eq!(header(2, 2, [0, 22]).to_string(), "an ELF file for s390");
    }

    #[test]
    fn this_test_program_names_its_own_functions() {
        let file = BinaryFile::open(Path::new("/proc/self/exe")).expect("a process can read its own file");
        let elf = file.elf().expect("it runs, so it is sound");
        assert!(elf.check_segments().is_ok());
        assert!(elf.interpreter().is_some_and(|path| path.is_absolute()));
        assert!(elf.own_malloc().is_none());
        let functions = FunctionTable::of(&elf).functions;
        assert!(functions.is_sorted_by_key(|function| function.start));
        assert!(functions.iter().any(|function| function.name == "main" && function.end > function.start));
    }

    #[test]
    fn a_section_that_claims_too_much_is_not_unpacked() {
        let may = |format, compressed_size, uncompressed_size| {
            may_unpack(&object::CompressedFileRange { format, offset: 0, compressed_size, uncompressed_size })
        };
        for format in [CompressionFormat::Zlib, CompressionFormat::Zstandard] {
            assert!(may(format, 100 << 20, 1 << 30), "debug information of a browser");
            assert!(may(format, 1000, 1 << 20), "a small table of zeros");
            assert!(!may(format, 3 << 20, 3 << 30), "3 GiB of 3 MiB");
            assert!(!may(format, u64::MAX, u64::MAX));
        }
        assert!(may(CompressionFormat::None, 3 << 30, 3 << 30));
    }
}
