//! Loads the sections of debug information that lookups read, and decompresses the compressed sections.

use crate::binary_file::BinaryFile;
use crate::elf::Piece;
use gimli::{Dwarf, DwarfPackageSections, DwarfSections, SectionId};
use rayon::prelude::*;
use std::collections::HashMap;

/// The sections that lookups read. The sections for variable locations, macros, types and lists of names are
/// left out, because lookups do not need them.
const MAIN_SECTIONS: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

pub(crate) fn main_sections(elf: &BinaryFile) -> DwarfSections<Piece> {
    // To decompress sections takes most of the time of `main_sections`. So several threads decompress
    // different sections at the same time.
    let mut pieces: HashMap<&str, Piece> =
        MAIN_SECTIONS.par_iter().map(|id| (id.name(), elf.piece(id.name()))).collect();
    let Ok(sections) = DwarfSections::load(|id| Ok::<_, Never>(pieces.remove(id.name()).unwrap_or_default()));
    sections
}

/// The sections of one split debug file.
pub(crate) fn split_sections(elf: &BinaryFile) -> DwarfSections<Piece> {
    let Ok(sections) = DwarfSections::load(|id| {
        let is_needed = MAIN_SECTIONS.contains(&id);
        let name = id.dwo_name().filter(|_| is_needed);
        Ok::<_, Never>(name.map(|name| elf.piece(name)).unwrap_or_default())
    });
    sections
}

/// All sections of a package, including sections that lookups do not read. For each unit, the index of the
/// package refers to all sections of the unit. If one of these sections were missing, the crate gimli would
/// treat the unit as damaged.
pub(crate) fn package_sections(elf: &BinaryFile) -> DwarfPackageSections<Piece> {
    let sections = DwarfPackageSections::load(|id| {
        Ok::<_, gimli::Error>(id.dwo_name().map(|name| elf.piece(name)).unwrap_or_default())
    });
    sections.expect("the closure gives a section, empty or not, for every id")
}

/// The error type of a function that cannot fail.
type Never = std::convert::Infallible;

/// The number of bytes of debug information in `sections`.
pub(crate) fn size_of(sections: &DwarfSections<Piece>) -> u64 {
    let mut bytes = 0;
    let _: Dwarf<()> = sections.borrow(|piece| bytes += piece.len() as u64);
    bytes
}
