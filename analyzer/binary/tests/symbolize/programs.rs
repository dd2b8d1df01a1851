//! Functions for all tests: build small programs, run tools such as objcopy on them, and resolve their
//! addresses.

use edleak_binary::{Options, Outcome, Request, Resolution, Symbolizer};
use edleak_format::{Module, ModuleId, SymbolFrame};
use object::{Object, ObjectSymbol, SymbolKind};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An empty directory for one test.
pub(crate) fn directory(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("symbolize").join(test);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("the test directory can be made");
    dir
}

/// The path of a source file of the tests.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/symbolize/programs").join(name)
}

/// Runs a tool in `dir` and returns its output. A tool that is not installed makes the test fail;
/// tests/setup.sh installs all tools.
pub(crate) fn run<A: AsRef<OsStr>>(
    dir: &Path,
    tool: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Vec<u8> {
    let output = Command::new(tool).args(arguments).current_dir(dir).output().unwrap_or_else(|error| {
        panic!("`{tool}` cannot be run: {error} (install the packages that CONTRIBUTING.md lists)")
    });
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Compiles sources of the tests to `dir/name`.
pub(crate) fn compile(dir: &Path, name: &str, compiler: &str, flags: &[&str], sources: &[&str]) -> PathBuf {
    let program = dir.join(name);
    let mut arguments: Vec<PathBuf> = flags.iter().map(PathBuf::from).collect();
    arguments.extend(["-o".into(), program.clone()]);
    arguments.extend(sources.iter().map(|name| source(name)));
    run(dir, compiler, arguments);
    program
}

/// Compiles the C program with gcc and a build ID.
pub(crate) fn compile_c(dir: &Path, flags: &[&str]) -> PathBuf {
    let flags: Vec<&str> = flags.iter().copied().chain(["-Wl,--build-id"]).collect();
    compile(dir, "prog", "gcc", &flags, &["inlined.c", "other.c"])
}

/// A function of a program: its name and addresses in the full symbol table.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The functions of `program` by address, without the functions of the C start files.
pub(crate) fn functions(program: &Path) -> Vec<Function> {
    let bytes = std::fs::read(program).expect("the program was just built");
    let file = object::File::parse(bytes.as_slice()).expect("a linker wrote it");
    let mut functions: Vec<Function> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
        .map(|symbol| Function {
            name: symbol.name().expect("symbols have names").to_owned(),
            start: symbol.address(),
            end: symbol.address() + symbol.size(),
        })
        .filter(|function| !["_start", "_init", "_fini"].contains(&function.name.as_str()))
        .collect();
    functions.sort_by_key(|function| function.start);
    functions
}

/// Every address in every function of the program.
pub(crate) fn all_addresses(program: &Path) -> Vec<u64> {
    functions(program).iter().flat_map(|function| function.start..function.end).collect()
}

pub(crate) fn build_id(program: &Path) -> Vec<u8> {
    let bytes = std::fs::read(program).expect("the program was just built");
    let file = object::File::parse(bytes.as_slice()).expect("a linker wrote it");
    file.build_id().expect("its notes are sound").expect("it was linked with --build-id").to_vec()
}

/// A module with a load bias that is not zero.
pub(crate) fn module(path: &Path, build_id: Vec<u8>) -> Module {
    Module {
        id: ModuleId(3),
        path: path.to_str().expect("test paths are UTF-8").to_owned(),
        build_id,
        load_bias: BIAS,
        start: BIAS,
        end: BIAS + (1 << 32),
        loaded_ns: 0,
        unloaded_ns: 0,
    }
}

pub(crate) const BIAS: u64 = 0x5555_5000_0000;

pub(crate) fn exact(module: &Module, addresses: &[u64]) -> Vec<Request> {
    let request = |address: &u64| Request {
        address: address + module.load_bias,
        module: Some(module.id),
        is_exact: true,
    };
    addresses.iter().map(request).collect()
}

/// Resolves link-time addresses of the program. The lookups take the addresses as addresses of instructions,
/// not as return addresses.
pub(crate) fn resolve(module: &Module, debug_dirs: &[&Path], addresses: &[u64]) -> Resolution {
    let debug_dirs = debug_dirs.iter().map(|dir| dir.to_path_buf()).collect();
    let symbolizer = Symbolizer::new(Options { debug_dirs, debuginfod: false });
    symbolizer.resolve(std::slice::from_ref(module), &[], &exact(module, addresses))
}

pub(crate) fn frames(resolution: &Resolution) -> Vec<Vec<SymbolFrame>> {
    resolution.resolved.iter().map(|resolved| resolved.frames.to_vec()).collect()
}

pub(crate) fn outcome(resolution: &Resolution) -> &Outcome {
    let [outcome] = resolution.outcomes.as_slice() else { panic!("one module was asked about") };
    outcome
}
