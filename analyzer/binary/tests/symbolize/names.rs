//! Tests that a pattern matches the names that a report prints, no matter which file contains the symbols of
//! the module.

use crate::programs::{compile, directory, exact, functions, module, run};
use edleak_binary::functions::FunctionTable;
use edleak_binary::names::{FunctionName, short};
use edleak_binary::{BinaryFile, Options, SymbolFiles, Symbolizer};
use edleak_format::Module;
use edleak_text::globs::Glob;
use std::path::{Path, PathBuf};

/// A stripped C++ program, which has only its exported symbols, and an address in each of its functions.
struct Stripped {
    dir: PathBuf,
    program: PathBuf,
    module: Module,
    addresses: Vec<u64>,
}

/// Builds a program and strips it. Before the strip, the function calls `keep`, which copies the symbols of
/// the program to another file.
fn stripped(test: &str, keep: impl Fn(&Path)) -> Stripped {
    let dir = directory(test);
    let flags = ["-g", "-O0", "-Wl,--build-id"];
    let program = compile(&dir, "prog", "g++", &flags, &["templates.cpp"]);
    let addresses = functions(&program).iter().map(|function| function.start + 1).collect();
    let build_id = BinaryFile::open(&program).expect("it was just linked").build_id().to_vec();
    keep(&dir);
    run(&dir, "strip", ["prog"]);
    Stripped { module: module(&program, build_id), dir, program, addresses }
}

impl Stripped {
    /// Asserts that the function table has, for every address, the name that a report prints, and that
    /// the symbol table of the stripped program alone lacks more than half of these names.
    fn knows_what_a_report_prints(&self) {
        let files = || BinaryFile::open(&self.program).expect("it is there");
        let options = Options::default();
        let found = SymbolFiles::find(&self.module.path, files(), &options);
        let (known, binary) = (found.functions(), files());
        let elf = binary.elf().expect("it was just linked");
        assert!(known.is_full);
        let is_known = |table: &FunctionTable<'_>, glob: &Glob, address: u64| {
            let offset = elf.offset_of(address).expect("an address of the program");
            let mut at = table.functions.iter().filter(|f| (f.start..f.end).contains(&offset));
            at.any(|function| FunctionName::new(function.name).matches(glob))
        };
        let requests = exact(&self.module, &self.addresses);
        let report = Symbolizer::new(options).resolve(std::slice::from_ref(&self.module), &[], &requests);
        let own = FunctionTable::of(&elf);
        let (mut printed, mut shortened, mut only_elsewhere) = (0, 0, 0);
        for (resolved, &address) in report.resolved.iter().zip(&self.addresses) {
            let name = resolved.frames.last().and_then(|frame| frame.function.as_deref());
            let name = name.expect("symbols name every function");
            for name in [name, &short(name)] {
                assert!(is_known(&known, &Glob::new(name), address), "{name}");
            }
            printed += 1;
            shortened += usize::from(short(name) != name);
            only_elsewhere += usize::from(!is_known(&own, &Glob::new(name), address));
        }
        assert!(printed > 10 && shortened > 0, "{printed} names, {shortened} of them shortened");
        assert!(only_elsewhere > printed / 2, "the stripped file names all but {only_elsewhere}");
    }
}

#[test]
fn names_in_gnu_debugdata_are_known_to_patterns() {
    let program = stripped("names_mini", |dir| {
        run(dir, "objcopy", ["--only-keep-debug", "prog", "full"]);
        run(dir, "objcopy", ["--strip-debug", "full", "mini"]);
        run(dir, "xz", ["-k", "mini"]);
    });
    run(&program.dir, "objcopy", ["--add-section", ".gnu_debugdata=mini.xz", "prog"]);
    program.knows_what_a_report_prints();
}

#[test]
fn names_in_a_separate_debug_file_are_known_to_patterns() {
    let program = stripped("names_debug_file", |dir| {
        run(dir, "objcopy", ["--only-keep-debug", "prog", "prog.debug"]);
    });
    run(&program.dir, "objcopy", ["--add-gnu-debuglink=prog.debug", "prog"]);
    program.knows_what_a_report_prints();
}
