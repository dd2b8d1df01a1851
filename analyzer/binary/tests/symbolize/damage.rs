//! Tests lookups in damaged and hostile programs. A lookup may fail, but it must not panic, and it must end.
//! A lookup may use much memory only if the file is large.

use crate::programs::{
    all_addresses, build_id, compile, compile_c, directory, frames, module, outcome, resolve, run,
};
use edleak_binary::Source;
use std::fs;
use std::path::Path;

/// Random numbers (xorshift64). The sequence of the numbers is the same in every run, so every run of a test
/// makes the same damage.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("it is below a usize")
    }
}

/// Writes the damaged program to a file, and looks up every 7th of `addresses` in this file. The frames may
/// be wrong, but the lookup must return.
fn survive(dir: &Path, damaged: &[u8], addresses: &[u64]) {
    let copy = dir.join("damaged");
    fs::write(&copy, damaged).expect("it is the test's");
    let some: Vec<u64> = addresses.iter().copied().step_by(7).collect();
    let resolution = resolve(&module(&copy, Vec::new()), &[], &some);
    assert_eq!(resolution.resolved.len(), some.len());
}

#[test]
fn flipped_bytes() {
    for (name, pack) in [("plain", "none"), ("zlib", "zlib"), ("zstd", "zstd")] {
        let dir = directory(&format!("flipped_{name}"));
        let program = compile_c(&dir, &["-g", "-O2"]);
        let addresses = all_addresses(&program);
        run(&dir, "objcopy", [&format!("--compress-debug-sections={pack}"), "prog"]);
        let sound = fs::read(&program).expect("it was built");
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for _ in 0..150 {
            let mut damaged = sound.clone();
            for _ in 0..1 + dice.below(8) {
                // A quarter of the damage hits the headers, and half of it hits the second half of the file,
                // which has the debug information.
                let at = match dice.below(4) {
                    0 => dice.below(64),
                    1 => dice.below(sound.len()),
                    _ => sound.len() / 2 + dice.below(sound.len() / 2),
                };
                damaged[at] = [0x00, 0x01, 0x7f, 0x80, 0xff, dice.below(256) as u8][dice.below(6)];
            }
            survive(&dir, &damaged, &addresses);
        }
    }
}

#[test]
fn truncated_anywhere() {
    let dir = directory("truncated");
    let program = compile_c(&dir, &["-g", "-O2"]);
    let addresses = all_addresses(&program);
    let sound = fs::read(&program).expect("it was built");
    for length in (0..sound.len()).step_by(211) {
        survive(&dir, &sound[..length], &addresses);
    }
}

#[test]
fn a_section_that_claims_to_unpack_to_a_terabyte() {
    for pack in ["zlib", "zstd"] {
        let dir = directory(&format!("bomb_{pack}"));
        let program = compile_c(&dir, &["-g", "-O2"]);
        let addresses = all_addresses(&program);
        run(&dir, "objcopy", [&format!("--compress-debug-sections={pack}"), "prog"]);
        let mut bytes = fs::read(&program).expect("it was built");
        let at = section_offset(&bytes, ".debug_info");
        // A compressed section begins with a header of the type Elf64_Chdr. The eight bytes at offset 8 of
        // the header are the size of the section after decompression. The test changes this size to a
        // terabyte.
        bytes[at + 8..at + 16].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        fs::write(&program, bytes).expect("it is the test's");
        let resolution = resolve(&module(&program, build_id(&program)), &[], &addresses);
        assert_eq!(resolution.unresolved(), 0, "the symbol table is sound");
        assert!(resolution.resolved.iter().all(|resolved| resolved.frames[0].line == 0));
    }
}

fn section_offset(bytes: &[u8], name: &str) -> usize {
    use object::{Object, ObjectSection};
    let file = object::File::parse(bytes).expect("objcopy wrote it");
    let section = file.section_by_name(name).expect("it was there");
    let (offset, _) = section.file_range().expect("it has bytes");
    usize::try_from(offset).expect("the file is small")
}

#[test]
fn functions_nested_a_million_deep() {
    let dir = directory("nested");
    let program = compile(&dir, "nested.so", "gcc", &["-nostdlib", "-shared"], &["nested.s"]);
    let resolution = resolve(&module(&program, Vec::new()), &[], &all_addresses(&program));
    assert!(matches!(outcome(&resolution).source, Source::DebugInfo(_)));
    let names: Vec<_> = frames(&resolution).concat().into_iter().map(|frame| frame.function).collect();
    assert_eq!(names, [Some("deep".to_owned())], "by the symbol table");
}

#[test]
fn functions_that_share_a_long_list_of_ranges() {
    let dir = directory("shared_ranges");
    let program = compile(&dir, "shared.so", "gcc", &["-nostdlib", "-shared"], &["shared_ranges.s"]);
    let resolution = resolve(&module(&program, Vec::new()), &[], &all_addresses(&program));
    assert!(matches!(outcome(&resolution).source, Source::DebugInfo(_)));
    let names: Vec<_> = frames(&resolution).concat().into_iter().map(|frame| frame.function).collect();
    assert_eq!(names, [Some("shared".to_owned())], "by the symbol table");
}
