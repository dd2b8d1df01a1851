//! One ELF file: what it is, where its code lies, which functions it names, whose `malloc` it uses.
//!
//! Offsets are link-time addresses minus the link-time address of the file's first byte, so they are the same for a
//! PIE, a library and a fixed-address executable, and 32 bits are enough for every file up to 4 GiB.
#![allow(unsafe_code)] // mapping a file

use memmap2::Mmap;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::ReadRef;
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader, SectionTable, Sym, SymbolTable};
use object::{LittleEndian, Object, ObjectSection};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The bytes of a file, or of a module that is no file (the vDSO).
pub enum FileBytes {
    /// A file, mapped: only what is looked at is read.
    Mapped(Mmap),
    /// Bytes copied from elsewhere.
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> io::Result<FileBytes> {
        // A target may name a pipe as its module: opening it must not wait, and only a file is worth opening.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(FileBytes::Owned(Vec::new())); // an empty mapping is an error, an empty file is not
        }
        // SAFETY: the mapping is private and read-only. Nobody can promise that another process does not truncate the
        // file while it is read (SIGBUS then); package managers and linkers replace files instead.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(FileBytes::Mapped(map))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Owned(bytes) => bytes,
        }
    }
}

/// Why bytes are not an ELF file that can be used here.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ElfError {
    /// They do not begin with the ELF magic.
    NotElf,
    /// An ELF file for another machine, word size or byte order.
    Foreign {
        /// `EI_CLASS`: 1 is 32-bit, 2 is 64-bit.
        class: u8,
        /// `e_machine`.
        machine: u16,
    },
    /// Cut short or inconsistent.
    Damaged(String),
}

impl std::fmt::Display for ElfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ElfError::NotElf => f.write_str("not an ELF file"),
            ElfError::Foreign { class, machine } => {
                write!(f, "an ELF file for {}", machine_name(*class, *machine))
            }
            ElfError::Damaged(how) => write!(f, "a damaged ELF file ({how})"),
        }
    }
}

impl std::error::Error for ElfError {}

impl From<object::Error> for ElfError {
    fn from(error: object::Error) -> ElfError {
        ElfError::Damaged(error.to_string().to_lowercase())
    }
}

/// A machine in words, for messages.
pub fn machine_name(class: u8, machine: u16) -> Cow<'static, str> {
    match (class, elf::Machine(machine)) {
        (1, elf::EM_386) => "32-bit x86".into(),
        (1, elf::EM_X86_64) => "x32 (x86-64 with 32-bit pointers)".into(),
        (_, elf::EM_X86_64) => "x86-64".into(),
        (_, elf::EM_AARCH64) => "aarch64".into(),
        (_, elf::EM_ARM) => "32-bit arm".into(),
        (_, elf::EM_RISCV) => "risc-v".into(),
        (_, elf::EM_PPC64) => "powerpc64".into(),
        (_, elf::EM_S390) => "s390".into(),
        (_, elf::EM_MIPS) => "mips".into(),
        _ => format!("machine {machine}").into(),
    }
}

const LE: LittleEndian = LittleEndian;
type Header = FileHeader64<LittleEndian>;
type Segment = ProgramHeader64<LittleEndian>;

/// A 64-bit x86 ELF file, its headers read.
///
/// Program headers must be sound, since the kernel reads them too; section headers and symbols may be missing or
/// broken, as after `sstrip`: the file then names no functions.
pub struct Elf<'data> {
    data: &'data [u8],
    header: &'data Header,
    segments: &'data [Segment],
    sections: SectionTable<'data, Header>,
    symtab: SymbolTable<'data, Header>,
    dynsym: SymbolTable<'data, Header>,
    base: u64,
}

/// A function that the file names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function<'data> {
    /// Offset of its first byte.
    pub start: u32,
    /// Offset one past its last byte.
    pub end: u32,
    /// Its name, as the linker knows it.
    pub name: &'data str,
}

/// An allocator that a program brings along.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnMalloc {
    /// The function found.
    pub symbol: String,
    /// Every module of the process calls it: the program exports it as `malloc`, and the program comes before any
    /// preloaded library. Otherwise only code that was linked with it does.
    pub replaces_all: bool,
}

impl<'data> Elf<'data> {
    /// Reads the headers of a file.
    pub fn parse(data: &'data [u8]) -> Result<Elf<'data>, ElfError> {
        if !data.starts_with(&elf::ELFMAG) {
            return Err(ElfError::NotElf);
        }
        let (Some(&class), Some(machine)) = (data.get(4), data.get(18..20)) else {
            return Err(ElfError::Damaged("its header is cut short".into()));
        };
        let machine = u16::from_le_bytes([machine[0], machine[1]]);
        let is_little_endian = data[5] == elf::ELFDATA2LSB.0;
        if class != elf::ELFCLASS64.0 || machine != elf::EM_X86_64.0 || !is_little_endian {
            // Another byte order puts the number of a machine that is not ours where a little-endian reader looks.
            let machine = if is_little_endian { machine } else { machine.swap_bytes() };
            return Err(ElfError::Foreign { class, machine });
        }
        let header = Header::parse(data)?;
        let segments = header.program_headers(LE, data)?;
        for segment in segments {
            let (offset, size) = segment.file_range(LE);
            if segment.p_type(LE) == elf::PT_LOAD && data.read_bytes_at(offset, size).is_err() {
                return Err(ElfError::Damaged("a segment lies beyond the end of the file".into()));
            }
        }
        let first_load = segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
        let base = first_load.map(|segment| segment.p_vaddr(LE) & !0xfff).min().unwrap_or(0);
        let sections = header.sections(LE, data).unwrap_or_default();
        let symtab = sections.symbols(LE, data, elf::SHT_SYMTAB).unwrap_or_default();
        let dynsym = sections.symbols(LE, data, elf::SHT_DYNSYM).unwrap_or_default();
        Ok(Elf { data, header, segments, sections, symtab, dynsym, base })
    }

    /// The link-time address that offsets count from: the first page of the first loaded segment.
    pub fn link_base(&self) -> u64 {
        self.base
    }

    /// Bytes of address space from the first byte to the end of the last segment.
    pub fn extent(&self) -> u64 {
        let loads = self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
        let end = loads.map(|segment| segment.p_vaddr(LE).saturating_add(segment.p_memsz(LE))).max();
        end.unwrap_or(0).saturating_sub(self.base)
    }

    /// An address of this file as an offset.
    pub fn offset_of(&self, address: u64) -> Option<u32> {
        u32::try_from(address.checked_sub(self.base)?).ok()
    }

    /// What kind of file it is (`e_type`).
    pub fn file_type(&self) -> elf::FileType {
        self.header.e_type(LE)
    }

    /// The dynamic loader that the file asks for. A program without one is statically linked.
    pub fn interpreter(&self) -> Option<PathBuf> {
        let path =
            self.segments.iter().find_map(|segment| segment.interpreter(LE, self.data).ok().flatten())?;
        Some(PathBuf::from(OsStr::from_bytes(path)))
    }

    /// The GNU build ID.
    pub fn build_id(&self) -> Option<&'data [u8]> {
        self.segments.iter().find_map(|segment| {
            let mut notes = segment.notes(LE, self.data).ok().flatten()?;
            while let Ok(Some(note)) = notes.next() {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
                    return Some(note.desc());
                }
            }
            None
        })
    }

    /// The name that other modules know this library by.
    pub fn soname(&self) -> Option<&'data str> {
        let (dynamic, strings) = self.sections.dynamic(LE, self.data).ok().flatten()?;
        let strings = self.sections.strings(LE, self.data, strings).ok()?;
        let soname = dynamic.iter().find(|entry| entry.tag(LE) == elf::DT_SONAME)?;
        std::str::from_utf8(soname.string(LE, strings).ok()?).ok()
    }

    /// Address and bytes of the section called `name`, decompressed.
    pub fn section(&self, name: &str) -> Option<(u64, Cow<'data, [u8]>)> {
        let file = ElfFile64::<LittleEndian>::parse(self.data).ok()?;
        let section = file.section_by_name(name)?;
        Some((section.address(), section.uncompressed_data().ok()?))
    }

    /// The bytes from `address` to the end of its segment's file contents.
    pub fn loaded_from(&self, address: u64) -> Option<&'data [u8]> {
        self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD).find_map(|segment| {
            let skip = usize::try_from(address.checked_sub(segment.p_vaddr(LE))?).ok()?;
            segment.data(LE, self.data).ok()?.get(skip..).filter(|rest| !rest.is_empty())
        })
    }

    /// Address of the segment that says where `.eh_frame` is.
    pub fn eh_frame_hdr(&self) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.p_type(LE) == elf::PT_GNU_EH_FRAME)?;
        Some(segment.p_vaddr(LE))
    }

    /// Whether the file has the full symbol table; a stripped one names only what it exports.
    pub fn has_symtab(&self) -> bool {
        !self.symtab.is_empty()
    }

    /// Whether `name` is in the dynamic symbol table, defined here or needed from elsewhere.
    pub fn mentions(&self, name: &str) -> bool {
        self.dynsym.iter().any(|symbol| symbol.name(LE, self.dynsym.strings()) == Ok(name.as_bytes()))
    }

    /// The functions the file names, by offset; functions with several names come several times.
    pub fn functions(&self) -> Vec<Function<'data>> {
        let table = if self.symtab.is_empty() { &self.dynsym } else { &self.symtab };
        let mut functions = Vec::new();
        for symbol in table.iter().filter(|symbol| is_function(symbol)) {
            let name = symbol.name(LE, table.strings()).ok().and_then(|name| std::str::from_utf8(name).ok());
            let address = symbol.st_value(LE);
            let (Some(name), Some(start)) = (name, self.offset_of(address)) else { continue };
            let Some(end) = self.offset_of(address.saturating_add(symbol.st_size(LE))) else { continue };
            functions.push(Function { start, end, name });
        }
        functions.sort_unstable_by_key(|function| (function.start, function.end));
        // Assembly often states no size: it then reaches to the next function, at most one page.
        for i in 0..functions.len() {
            if functions[i].end == functions[i].start {
                let next = functions[i..].iter().find(|later| later.start > functions[i].start);
                let most = functions[i].start.saturating_add(4096);
                functions[i].end = next.map_or(functions[i].start, |next| next.start.min(most));
            }
        }
        functions
    }

    /// The allocator the program brings along, if its symbols give one away. The libraries it needs do not count: a
    /// preloaded library comes before them.
    pub fn own_malloc(&self) -> Option<OwnMalloc> {
        let defines = |table: &SymbolTable<'data, Header>, wanted: &str| {
            table.iter().any(|symbol| {
                is_function(symbol) && symbol.name(LE, table.strings()) == Ok(wanted.as_bytes())
            })
        };
        if defines(&self.dynsym, "malloc") {
            return Some(OwnMalloc { symbol: "malloc".into(), replaces_all: true });
        }
        let table = if self.symtab.is_empty() { &self.dynsym } else { &self.symtab };
        let symbol = table.iter().filter(|symbol| is_function(symbol)).find_map(|symbol| {
            let name = symbol.name(LE, table.strings()).ok()?;
            OWN_MALLOCS.iter().find(|own| own.as_bytes() == name)
        })?;
        Some(OwnMalloc { symbol: (*symbol).into(), replaces_all: false })
    }
}

/// What the `malloc` of an allocator is called when it is linked into a program under its own name: jemalloc (as
/// configured by default, by Rust's and by ClickHouse's and Redis' builds), mimalloc, tcmalloc, snmalloc, rpmalloc,
/// musl's mallocng linked in by hand, Hoard, scudo.
const OWN_MALLOCS: [&str; 14] = [
    "malloc",
    "je_malloc",
    "_rjem_malloc",
    "_rjem_je_malloc",
    "__je_malloc",
    "mi_malloc",
    "tc_malloc",
    "TCMallocInternalMalloc",
    "sn_malloc",
    "__sn_rust_alloc",
    "sn_rust_alloc",
    "rpmalloc",
    "xxmalloc",
    "scudo_malloc",
];

fn is_function(symbol: &elf::Sym64<LittleEndian>) -> bool {
    symbol.st_type() == elf::STT_FUNC && symbol.st_shndx(LE) != elf::SHN_UNDEF && symbol.st_value(LE) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let header = |class: u8, order: u8, machine: [u8; 2]| {
            let mut bytes = vec![0u8; 64];
            bytes[..4].copy_from_slice(b"\x7fELF");
            (bytes[4], bytes[5]) = (class, order);
            bytes[18..20].copy_from_slice(&machine);
            Elf::parse(&bytes).map(|_| ()).expect_err("no program headers")
        };
        assert_eq!(Elf::parse(b"#!/bin/sh").map(|_| ()), Err(ElfError::NotElf));
        assert_eq!(Elf::parse(b"").map(|_| ()), Err(ElfError::NotElf));
        assert!(matches!(Elf::parse(b"\x7fELF\x02\x01").map(|_| ()), Err(ElfError::Damaged(_))));
        assert_eq!(header(1, 1, [3, 0]).to_string(), "an ELF file for 32-bit x86");
        assert_eq!(header(2, 1, [183, 0]).to_string(), "an ELF file for aarch64");
        assert_eq!(header(2, 2, [0, 22]).to_string(), "an ELF file for s390");
    }

    #[test]
    fn this_test_program_names_its_own_functions() {
        let bytes = FileBytes::open(Path::new("/proc/self/exe")).expect("a process can read its own file");
        let elf = Elf::parse(&bytes).expect("it runs, so it is sound");
        assert!(elf.interpreter().is_some_and(|path| path.is_absolute()));
        assert!(elf.own_malloc().is_none());
        let functions = elf.functions();
        assert!(functions.is_sorted_by_key(|function| function.start));
        assert!(functions.iter().any(|function| function.name == "main" && function.end > function.start));
    }
}
