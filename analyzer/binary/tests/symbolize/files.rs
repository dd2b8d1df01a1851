//! Tests that edleak finds the debug information of a program after it was moved to another file in every
//! usual way. edleak must give the same frames as before the move, or must tell why it has no frames.

use crate::programs::{
    all_addresses, build_id, compile, compile_c, directory, exact, frames, functions, module, outcome,
    resolve, run,
};
use edleak_binary::{Options, Source, Symbolizer, embed};
use edleak_format::{Module, ModuleId, SymbolFrame};
use std::fs;
use std::path::{Path, PathBuf};

/// A program with its debug information in its own file, and the frames that edleak gives for its addresses.
struct Whole {
    dir: PathBuf,
    program: PathBuf,
    module: Module,
    addresses: Vec<u64>,
    frames: Vec<Vec<SymbolFrame>>,
}

impl Whole {
    fn new(test: &str, flags: &[&str]) -> Whole {
        let dir = directory(test);
        let program = compile_c(&dir, flags);
        Whole::of(dir, program)
    }

    fn of(dir: PathBuf, program: PathBuf) -> Whole {
        let module = module(&program, build_id(&program));
        let addresses = all_addresses(&program);
        let resolution = resolve(&module, &[], &addresses);
        assert_eq!(resolution.unresolved(), 0);
        assert_eq!(outcome(&resolution).source, Source::DebugInfo(program.clone()));
        Whole { dir, program, module, addresses, frames: frames(&resolution) }
    }

    /// Asserts that edleak now finds the debug information in `file`, and gives the same frames as before the
    /// debug information was moved.
    fn is_same_from(&self, file: &Path, debug_dirs: &[&Path]) {
        let resolution = resolve(&self.module, debug_dirs, &self.addresses);
        assert_eq!(outcome(&resolution).source, Source::DebugInfo(file.to_owned()));
        assert!(!outcome(&resolution).needs_attention(), "{}", outcome(&resolution));
        assert!(frames(&resolution) == self.frames, "the frames differ");
    }

    /// Moves the debug information from the program to `file`.
    fn part(&self, file: &Path) {
        let [program, debug] = [&self.program, file].map(|path| path.to_str().expect("test paths are UTF-8"));
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).expect("it is below the test's directory");
        }
        run(&self.dir, "objcopy", ["--only-keep-debug", program, debug]);
        run(&self.dir, "strip", [program]);
    }

    fn link(&self, file: &Path) {
        let link = format!("--add-gnu-debuglink={}", file.display());
        run(&self.dir, "objcopy", [&link, self.program.to_str().expect("test paths are UTF-8")]);
    }

    fn build_id_file(&self, tree: &Path) -> PathBuf {
        let hex: String = self.module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        tree.join(&hex[..2]).join(format!("{}.debug", &hex[2..]))
    }
}

fn names(frames: &[Vec<SymbolFrame>]) -> Vec<Option<&str>> {
    frames.iter().map(|frames| frames.last().and_then(|frame| frame.function.as_deref())).collect()
}

#[test]
fn symbol_table_without_debug_information() {
    let whole = Whole::new("symbol_table", &["-g", "-O2"]);
    run(&whole.dir, "strip", ["-g", "prog"]);
    let resolution = resolve(&whole.module, &[], &whole.addresses);
    assert_eq!(outcome(&resolution).source, Source::SymbolTable(whole.program.clone()));
    assert!(outcome(&resolution).to_string().contains("has no debug information"));
    let found = frames(&resolution);
    assert_eq!(names(&found), names(&whole.frames));
    assert!(found.iter().flatten().all(|frame| frame.file.is_none() && frame.line == 0 && !frame.is_inlined));
}

#[test]
fn a_stripped_program_names_exported_functions_and_no_others() {
    let whole = Whole::new("stripped", &["-g", "-O1", "-fno-inline", "-rdynamic"]);
    let functions = functions(&whole.program);
    run(&whole.dir, "strip", ["prog"]);
    let resolution = resolve(&whole.module, &[], &whole.addresses);
    assert_eq!(outcome(&resolution).source, Source::ExportedOnly(whole.program.clone()));
    let found = frames(&resolution);
    let mut hidden = 0;
    for (address, name) in whole.addresses.iter().zip(names(&found)) {
        let function = functions.iter().find(|function| (function.start..function.end).contains(address));
        let function = function.expect("the addresses are theirs").name.as_str();
        let is_exported = ["main", "depth", "checksum"].contains(&function);
        assert_eq!(name, is_exported.then_some(function), "{address:#x}");
        hidden += usize::from(!is_exported);
    }
    assert_eq!(outcome(&resolution).unresolved, hidden);
    assert!(hidden > 0);
    assert!(outcome(&resolution).to_string().contains("is stripped"));
}

#[test]
fn debuglink_beside_the_program_and_in_dot_debug() {
    let whole = Whole::new("debuglink", &["-g", "-O2"]);
    let debug = whole.dir.join("prog.debug");
    whole.part(&debug);
    whole.link(&debug);
    whole.is_same_from(&debug, &[]);

    let hidden = whole.dir.join(".debug/prog.debug");
    fs::create_dir(whole.dir.join(".debug")).expect("the directory is the test's");
    fs::rename(&debug, &hidden).expect("both are in the test's directory");
    whole.is_same_from(&hidden, &[]);

    let elsewhere = whole.dir.join("elsewhere");
    fs::create_dir(&elsewhere).expect("the directory is the test's");
    fs::rename(&hidden, elsewhere.join("prog.debug")).expect("both are in the test's directory");
    assert_eq!(
        outcome(&resolve(&whole.module, &[], &whole.addresses)).source,
        Source::ExportedOnly(whole.program.clone())
    );
    whole.is_same_from(&elsewhere.join("prog.debug"), &[&elsewhere]);
}

#[test]
fn debuglink_without_a_build_id_is_checked_by_checksum() {
    let dir = directory("checksum");
    let program =
        compile(&dir, "prog", "gcc", &["-g", "-O2", "-Wl,--build-id=none"], &["inlined.c", "other.c"]);
    let module = module(&program, Vec::new());
    let addresses = all_addresses(&program);
    let before = frames(&resolve(&module, &[], &addresses));
    run(&dir, "objcopy", ["--only-keep-debug", "prog", "prog.debug"]);
    run(&dir, "strip", ["prog"]);
    run(&dir, "objcopy", ["--add-gnu-debuglink=prog.debug", "prog"]);
    let resolution = resolve(&module, &[], &addresses);
    assert_eq!(outcome(&resolution).source, Source::DebugInfo(dir.join("prog.debug")));
    assert!(outcome(&resolution).is_unverified, "nothing says that prog itself is the recorded build");
    assert_eq!(frames(&resolution), before);

    let mut bytes = fs::read(dir.join("prog.debug")).expect("objcopy wrote it");
    bytes.push(0);
    fs::write(dir.join("prog.debug"), bytes).expect("it is the test's");
    assert_eq!(outcome(&resolve(&module, &[], &addresses)).source, Source::ExportedOnly(program));
}

#[test]
fn a_debug_file_of_another_build_is_refused() {
    let whole = Whole::new("other_debug", &["-g", "-O2"]);
    let debug = whole.dir.join("prog.debug");
    whole.part(&debug);
    whole.link(&debug);
    let other = directory("other_debug_build");
    compile_c(&other, &["-g", "-O0"]);
    fs::copy(other.join("prog"), &debug).expect("both are the test's");
    let resolution = resolve(&whole.module, &[], &whole.addresses);
    assert_eq!(outcome(&resolution).source, Source::ExportedOnly(whole.program.clone()));
}

#[test]
fn build_id_trees() {
    let whole = Whole::new("build_id_tree", &["-g", "-O2"]);
    let tree = whole.dir.join("debug");
    let file = whole.build_id_file(&tree.join(".build-id"));
    whole.part(&file);
    whole.is_same_from(&file, &[&tree]);
    // edleak also gives all frames if only the debug file exists and the program's own file is missing.
    fs::remove_file(&whole.program).expect("it is the test's");
    whole.is_same_from(&file, &[&tree]);

    let plain = whole.build_id_file(&tree);
    fs::rename(tree.join(".build-id"), tree.join("moved")).expect("it is the test's");
    fs::create_dir_all(plain.parent().expect("it is in a tree")).expect("it is the test's");
    fs::rename(whole.build_id_file(&tree.join("moved")), &plain).expect("it is the test's");
    whole.is_same_from(&plain, &[&tree]);

    let system = whole.build_id_file(&tree.join("usr/lib/debug/.build-id"));
    fs::create_dir_all(system.parent().expect("it is in a tree")).expect("it is the test's");
    fs::rename(&plain, &system).expect("it is the test's");
    whole.is_same_from(&system, &[&tree]);
}

#[test]
fn plain_directories_and_other_roots() {
    let whole = Whole::new("directories", &["-g", "-O2"]);
    let plain = whole.dir.join("plain");
    fs::create_dir(&plain).expect("it is the test's");
    fs::rename(&whole.program, plain.join("prog")).expect("it is the test's");
    assert_eq!(
        outcome(&resolve(&whole.module, &[], &whole.addresses)).source,
        Source::Missing { build_id: whole.module.build_id.clone() }
    );
    whole.is_same_from(&plain.join("prog"), &[Path::new("/no/such/directory"), &plain]);

    let root = whole.dir.join("root");
    let below = root.join(whole.program.strip_prefix("/").expect("test paths are absolute"));
    fs::create_dir_all(below.parent().expect("it has a directory")).expect("it is the test's");
    fs::rename(plain.join("prog"), &below).expect("it is the test's");
    whole.is_same_from(&below, &[&root]);
}

#[test]
fn compressed_sections() {
    for (name, flag) in [("zlib", "zlib"), ("zlib_gnu", "zlib-gnu"), ("zstd", "zstd")] {
        let whole = Whole::new(&format!("compressed_{name}"), &["-g", "-O2"]);
        let before = fs::metadata(&whole.program).expect("it was built").len();
        run(&whole.dir, "objcopy", [&format!("--compress-debug-sections={flag}"), "prog"]);
        let after = fs::metadata(&whole.program).expect("it was built").len();
        assert!(after < before, "objcopy compressed something");
        whole.is_same_from(&whole.program, &[]);
    }
}

#[test]
fn split_debug_information() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let whole = Whole::new(&format!("whole{version}"), &[version, "-O2"]);
        let dir = directory(&format!("split{version}"));
        let program = compile_c(&dir, &[version, "-O2", "-gsplit-dwarf"]);
        let split = Whole::of(dir, program);
        assert_eq!(split.addresses, whole.addresses, "the code is the same");
        // No path in this test depends on the directory of compilation, because all sources have absolute
        // paths.
        assert_eq!(split.frames, whole.frames);

        let dwo: Vec<PathBuf> = fs::read_dir(&split.dir)
            .expect("it is the test's")
            .map(|entry| entry.expect("it is the test's").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "dwo"))
            .collect();
        assert_eq!(dwo.len(), 2);
        run(&split.dir, "llvm-dwp", ["-e", "prog", "-o", "prog.dwp"]);
        let moved = split.dir.join("moved");
        fs::create_dir(&moved).expect("it is the test's");
        for path in &dwo {
            fs::rename(path, moved.join(path.file_name().expect("it is a file"))).expect("it is the test's");
        }
        split.is_same_from(&split.program, &[]); // the program refers to the package
        fs::remove_file(split.dir.join("prog.dwp")).expect("it is the test's");
        split.is_same_from(&split.program, &[&moved]);

        let resolution = resolve(&split.module, &[], &split.addresses);
        assert_eq!(outcome(&resolution).missing_dwo, 2);
        assert!(outcome(&resolution).needs_attention());
        assert!(outcome(&resolution).to_string().contains("2 of its split debug files were not found"));
        assert_eq!(names(&frames(&resolution)), names(&whole.frames), "the symbol table names functions");
        assert!(frames(&resolution).iter().flatten().any(|frame| frame.line > 0), "lines are in the program");

        // The directory `other` has .dwo files with the same names, but of another build. edleak must
        // not use the .dwo files of the other build.
        let other = directory(&format!("split_other{version}"));
        compile_c(&other, &[version, "-O0", "-gsplit-dwarf"]);
        let resolution = resolve(&split.module, &[&other], &split.addresses);
        assert_eq!(outcome(&resolution).missing_dwo, 2);
    }
}

#[test]
fn mini_debug_information() {
    let whole = Whole::new("mini", &["-g", "-O2", "-rdynamic"]);
    let local: String = functions(&whole.program)
        .iter()
        .filter(|function| !["main", "depth", "checksum"].contains(&function.name.as_str()))
        .map(|function| format!("{}\n", function.name))
        .collect();
    fs::write(whole.dir.join("keep"), local).expect("it is the test's");
    run(&whole.dir, "objcopy", ["--only-keep-debug", "prog", "full"]);
    run(&whole.dir, "objcopy", ["-S", "--keep-symbols=keep", "full", "mini"]);
    run(&whole.dir, "xz", ["-k", "mini"]);
    run(&whole.dir, "strip", ["prog"]);
    run(&whole.dir, "objcopy", ["--add-section", ".gnu_debugdata=mini.xz", "prog"]);
    let resolution = resolve(&whole.module, &[], &whole.addresses);
    assert_eq!(names(&frames(&resolution)), names(&whole.frames));
    assert_eq!(resolution.unresolved(), 0);
}

#[test]
fn debug_information_shared_by_dwz() {
    let dir = directory("dwz");
    let program = compile(&dir, "prog", "g++", &["-g", "-O2", "-Wl,--build-id"], &["templates.cpp"]);
    let twin = compile(&dir, "twin", "g++", &["-g", "-O1", "-Wl,--build-id"], &["templates.cpp"]);
    let whole = Whole::of(dir, program);
    assert!(twin.exists());
    run(&whole.dir, "dwz", ["-m", "shared.dwz", "prog", "twin"]);
    let sections = run(&whole.dir, "readelf", ["-S", "prog"]);
    assert!(String::from_utf8_lossy(&sections).contains(".gnu_debugaltlink"));
    whole.is_same_from(&whole.program, &[]);

    let moved = whole.dir.join("moved");
    fs::create_dir(&moved).expect("it is the test's");
    fs::rename(whole.dir.join("shared.dwz"), moved.join("shared.dwz")).expect("it is the test's");
    whole.is_same_from(&whole.program, &[&moved]);
}

#[test]
fn a_rebuilt_program_is_never_used() {
    let whole = Whole::new("rebuilt", &["-g", "-O2"]);
    let old = whole.dir.join("old");
    fs::create_dir(&old).expect("it is the test's");
    fs::rename(&whole.program, old.join("prog")).expect("it is the test's");
    compile_c(&whole.dir, &["-g", "-O0"]);
    let resolution = resolve(&whole.module, &[], &whole.addresses);
    let found = build_id(&whole.program);
    assert_eq!(
        outcome(&resolution).source,
        Source::Rebuilt {
            file: whole.program.clone(),
            found: found.clone(),
            expected: whole.module.build_id.clone()
        }
    );
    assert_eq!(outcome(&resolution).unresolved, whole.addresses.len());
    assert_eq!(resolution.unresolved(), whole.addresses.len());
    assert!(resolution.resolved.iter().all(|resolved| resolved.frames.is_empty()));
    let message = outcome(&resolution).to_string();
    assert!(message.contains("was rebuilt since") && message.contains("--debug-dir"), "{message}");
    // If the user gives the directory with the file of the recorded build, edleak finds all frames.
    whole.is_same_from(&old.join("prog"), &[&old]);

    // The trace has a build ID, so edleak treats a file without a build ID as another build.
    compile(&whole.dir, "prog", "gcc", &["-g", "-O2", "-Wl,--build-id=none"], &["inlined.c", "other.c"]);
    let resolution = resolve(&whole.module, &[], &whole.addresses);
    assert!(matches!(&outcome(&resolution).source, Source::Rebuilt { found, .. } if found.is_empty()));
}

#[test]
fn trace_without_build_ids_is_reported_as_unsure() {
    let whole = Whole::new("unverified", &["-g", "-O2"]);
    let unverified = Module { build_id: Vec::new(), ..whole.module.clone() };
    let resolution = resolve(&unverified, &[], &whole.addresses);
    assert_eq!(frames(&resolution), whole.frames);
    assert!(outcome(&resolution).is_unverified && outcome(&resolution).needs_attention());
}

#[test]
fn a_deleted_program_is_found_again_by_its_build_id() {
    let whole = Whole::new("deleted", &["-g", "-O2"]);
    let deleted = Module { path: format!("{} (deleted)", whole.module.path), ..whole.module.clone() };
    assert_eq!(frames(&resolve(&deleted, &[], &whole.addresses)), whole.frames);
}

#[test]
fn files_other_than_programs_are_refused_without_blocking() {
    let dir = directory("no_program");
    fs::write(dir.join("text"), "not an ELF file, but long enough to be taken for one by mistake")
        .expect("ours");
    fs::write(dir.join("empty"), "").expect("ours");
    run(&dir, "mkfifo", ["fifo"]);
    for name in ["text", "empty", "fifo", "."] {
        let module = module(&dir.join(name), vec![1, 2, 3]);
        let resolution = resolve(&module, &[], &[0x1000]);
        assert!(matches!(outcome(&resolution).source, Source::Unreadable { .. }), "{name}");
        assert!(outcome(&resolution).to_string().contains("cannot be read"));
    }
    let missing = Source::Missing { build_id: Vec::new() };
    for (name, source) in [
        ("[vdso]", &Source::NoFile),
        ("", &Source::NoFile),
        ("/memfd:code (deleted)", &Source::NoFile),
        ("//anon", &missing),
        ("/no/such/file", &missing),
    ] {
        let module = module(Path::new(name), Vec::new());
        let resolution = resolve(&module, &[], &[0x1000]);
        assert_eq!(&outcome(&resolution).source, source, "{name}");
        assert_eq!(resolution.unresolved(), 1);
    }
}

#[test]
fn embedded_symbols_replace_all_files() {
    let whole = Whole::new("embedded", &["-g", "-O2"]);
    // The module was unloaded and then loaded at another address, so the trace has a second module id for the
    // same file.
    let again = Module { id: ModuleId(9), load_bias: 0x7000_0000, ..whole.module.clone() };
    let modules = [whole.module.clone(), again.clone()];
    let mut requests = exact(&whole.module, &whole.addresses);
    requests.extend(exact(&again, &whole.addresses[..100]));
    let symbolizer = Symbolizer::new(Options::default());
    let (symbols, resolution) = embed::build(&symbolizer, &modules, &[], &requests);
    assert_eq!(symbols.iter().map(|symbols| symbols.module).collect::<Vec<_>>(), [ModuleId(3), ModuleId(9)]);
    assert!(symbols[0].addresses.is_sorted_by(|a, b| a.offset < b.offset), "ascending, each once");

    fs::remove_file(&whole.program).expect("it is the test's");
    let without = Symbolizer::default();
    let from_trace = without.resolve(&modules, &symbols, &requests);
    assert_eq!(from_trace.resolved, resolution.resolved);
    assert!(from_trace.outcomes.iter().all(|outcome| outcome.source == Source::Embedded));
    assert!(!from_trace.outcomes.iter().any(|outcome| outcome.needs_attention()));

    // Embed symbols a second time, after the program was deleted: the result must have all symbols that
    // the first embedding found.
    let (again, _) = embed::build(&without, &modules, &symbols, &requests[..3]);
    assert_eq!(again, symbols);
    let nothing = without.resolve(&modules, &[], &requests);
    assert_eq!(nothing.unresolved(), whole.addresses.len() + 100);
}
