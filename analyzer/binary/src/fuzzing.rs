//! The code of the fuzz target `symbols`. The fuzz target makes every kind of symbol lookup, in files that
//! exist only in memory.

use super::binary_file::BinaryFile;
use super::cache::Opened;
use super::module::{Files, Options, unpack_mini};
use super::resolve::Run;
use edleak_format::ModuleId;
use object::{Object, ObjectSection, ObjectSymbol};
use std::path::Path;

/// Maximum number of symbols, and maximum number of sections, for which addresses are looked up. The inputs
/// are small files, in which 64 lookups are enough to reach every unit and every table.
const MAX_ADDRESSES: usize = 64;

/// Looks up addresses in `input` and returns the number of addresses that got a name.
///
/// `input` has the bytes of a program, and may have the bytes of a second ELF file after them. The function
/// uses the second file in three roles: as the debug file, as the supplementary file (dwz), and as the
/// package of split debug files.
pub fn look_up_everything(input: &[u8]) -> usize {
    let path = Path::new("/nowhere/program");
    let second = (1..input.len()).rev().find(|&at| input[at..].starts_with(b"\x7fELF"));
    let (program, other) = input.split_at(second.unwrap_or(input.len()));
    let open = |bytes: &[u8]| BinaryFile::from_bytes(path, bytes.to_vec()).ok();
    let Some(binary) = open(program) else { return 0 };
    let _ = binary.elf().map(|elf| elf.debuglink().is_some());
    let addresses = addresses_of(&binary);
    let files = Files {
        mini: unpack_mini(&binary),
        binary: Some(binary),
        debug: open(other),
        shared: open(other),
        package: open(other),
        missing: None,
    };
    let opened = Opened::of(files);
    let _ = opened.source();
    let run = Run { module: ModuleId(0), opened: &opened, addresses };
    run.look_up(&Options::default()).found.len()
}

/// Addresses that may be code: the entry point, the symbols, and some addresses in every section.
fn addresses_of(elf: &BinaryFile) -> Vec<u64> {
    let Ok(file) = object::File::parse(elf.bytes()) else { return Vec::new() };
    let symbols = file.symbols().map(|symbol| symbol.address().wrapping_add(1)).take(MAX_ADDRESSES);
    let places = file.sections().take(MAX_ADDRESSES).flat_map(|section| {
        let (start, step) = (section.address(), section.size() / 8);
        (0..8).map(move |n| start.wrapping_add(step * n))
    });
    let mut addresses: Vec<u64> = symbols.chain(places).chain([file.entry(), 0, u64::MAX]).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
