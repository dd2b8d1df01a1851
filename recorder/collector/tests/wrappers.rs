//! Tests which function edleak names as the site of an allocation. A test program calls each wrapper so that
//! the wrapper allocates once. As the site of this allocation, edleak must name the first caller that is not
//! a wrapper.
//!
//! The test finds the first caller that is not a wrapper in the same way as the preload library. The walk
//! starts at the return address of `malloc`. If the address is in a wrapper range, the walk skips the frame
//! with the unwind rule of this range.

mod common;

use common::captured::{Captured, capture_library, captured};
use common::{run, source, try_run};
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_binary::functions::FunctionTable;
use edleak_binary::names::FunctionName;
use edleak_collector::rules::unwind;
use edleak_collector::rules::wrappers::{WrapperRange, WrapperSet, wrapper_functions, wrapper_ranges};
use edleak_session::rule::Kind;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The code ranges of the wrappers, and the function names, of each module. A test reads each module only
/// once.
struct Modules<'set> {
    set: &'set WrapperSet,
    read: HashMap<PathBuf, Module>,
}

struct Module {
    ranges: Vec<WrapperRange>,
    functions: Vec<(u32, u32, String)>,
}

impl<'set> Modules<'set> {
    fn new(set: &'set WrapperSet) -> Modules<'set> {
        Modules { set, read: HashMap::new() }
    }

    fn at(&mut self, path: &Path) -> &Module {
        self.read.entry(path.to_owned()).or_insert_with(|| {
            let bytes = FileBytes::open(path).expect("a mapped file can be read");
            let elf = Elf::parse(&bytes).expect("a mapped file is sound");
            let table = FunctionTable::of(&elf);
            let functions = wrapper_functions(&elf, &table, self.set);
            let ranges = wrapper_ranges(&elf, &unwind::compile_in(&elf, &functions), &functions);
            assert!(
                ranges == wrapper_ranges(&elf, &unwind::compile(&elf), &functions),
                "{}: the rules of some functions are not those of all",
                path.display()
            );
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{}", path.display());
            assert!(ranges.iter().all(|range| matches!(range.rule.kind(), Kind::Sp | Kind::Fp)));
            let named =
                |f: &edleak_binary::functions::Function<'_>| (f.start, f.end, FunctionName::new(f.name).path);
            Module { ranges, functions: table.functions.iter().map(named).collect() }
        })
    }

    /// The function that edleak names as the site of the captured allocation, and the frames that the walk
    /// skipped.
    fn blamed(&mut self, stack: &Captured) -> (String, Vec<String>) {
        let (frames, _) = stack.walk();
        let mut stepped = Vec::new();
        let mut is_below = false;
        for address in frames {
            let module = stack.modules.iter().find(|module| (module.base..module.end).contains(&address));
            let Some(mapped) = module else { return (format!("{address:#x}"), stepped) };
            // Skip the innermost frames: the frame of capture(), and the frame of the malloc that called
            // capture(). In a recording with edleak, frames of the preload library take the place of the
            // frames of capture() and of its caller malloc.
            if !is_below && mapped.path.ends_with("libcapture.so") {
                continue;
            }
            is_below = true;
            let offset = u32::try_from(address - 1 - mapped.base).expect("modules are small");
            let module = self.at(&mapped.path);
            let function = module.functions.iter().find(|(start, end, _)| (*start..*end).contains(&offset));
            let name =
                function.map_or_else(|| format!("{}+{offset:#x}", mapped.path.display()), |f| f.2.clone());
            let range = module.ranges.iter().find(|range| (range.start..range.end).contains(&offset));
            if range.is_none() {
                return (name, stepped);
            }
            stepped.push(name);
        }
        ("nobody".into(), stepped)
    }
}

/// Runs every case, and asserts that edleak names the expected function in each case.
fn assert_cases_are_blamed(program: &Path, what: &str, set: &WrapperSet, prefix: &str, cases: &[&str]) {
    let mut modules = Modules::new(set);
    let mut wrong = Vec::new();
    for case in cases {
        let (blamed, stepped) = modules.blamed(&captured(program, case));
        if blamed != format!("{prefix}case_{case}") {
            wrong.push(format!("{case}: {blamed} after {stepped:?}"));
        }
    }
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

const C_CASES: [&str; 16] = [
    "malloc",
    "xmalloc",
    "xstrdup",
    "strdup",
    "strndup",
    "asprintf",
    "getline",
    "fopen",
    "fdopen",
    "open_memstream",
    "getcwd",
    "realpath",
    "opendir",
    "scandir",
    "regcomp",
    "setenv",
];

#[test]
fn c_callers_of_xmalloc_and_of_the_c_library_are_blamed() {
    let dir = capture_library("wrapped-c");
    let program = dir.join("wrapped");
    for (compiler, flags) in [
        ("gcc", &["-O2", "-fomit-frame-pointer"][..]),
        ("gcc", &["-O0"]),
        ("gcc", &["-O2", "-D_FORTIFY_SOURCE=2", "-fno-pie", "-no-pie"]),
        ("clang", &["-O2"]),
    ] {
        let mut command = Command::new(compiler);
        command.args(flags).arg(source("wrapped.c")).arg("-o").arg(&program).arg("-L").arg(&dir);
        if try_run(command.args(["-lcapture", "-pthread"])).is_none() {
            continue;
        }
        let what = format!("{compiler} {flags:?}");
        assert_cases_are_blamed(&program, &what, &WrapperSet::builtin(), "", &C_CASES);
        // The function `pool_take` is not in the built-in list, so it becomes a wrapper only through a
        // pattern of the user.
        let blamed = |set: &WrapperSet| Modules::new(set).blamed(&captured(&program, "pool_take")).0;
        assert_eq!(blamed(&WrapperSet::builtin()), "pool_take", "{what}");
        let mut with_pattern = WrapperSet::builtin();
        with_pattern.add("pool_*").expect("a good pattern");
        assert_eq!(blamed(&with_pattern), "case_pool_take", "{what}");
        assert_eq!(blamed(&WrapperSet::none()), "xmalloc", "{what}");
    }
}

#[test]
fn cpp_callers_of_the_standard_library_are_blamed() {
    let cases = [
        "new",
        "new_array",
        "vector_push",
        "vector_growth",
        "vector_resize",
        "vector_of_strings",
        "map_insert",
        "map_of_strings",
        "set_insert",
        "unordered_insert",
        "string_append",
        "string_copy",
        "string_plus",
        "to_string",
        "deque_push",
        "list_push",
        "make_shared",
        "make_unique",
        "function",
        "ostringstream",
        "thread",
        "exception",
    ];
    let dir = capture_library("wrapped-cpp");
    let program = dir.join("wrapped");
    for (compiler, flags) in [
        ("g++", &["-O2", "-fomit-frame-pointer"][..]),
        ("g++", &["-O0"]),
        ("g++", &["-O2", "-static-libstdc++", "-static-libgcc"]),
        ("clang++", &["-O2"]),
        ("clang++", &["-O1", "-stdlib=libc++"]),
    ] {
        let mut command = Command::new(compiler);
        command
            .args(flags)
            .args(["-std=c++17"])
            .arg(source("wrapped.cpp"))
            .arg("-o")
            .arg(&program)
            .arg("-L")
            .arg(&dir);
        command.args(["-lcapture", "-pthread"]);
        if flags.contains(&"-stdlib=libc++") && !command.output().is_ok_and(|output| output.status.success())
        {
            eprintln!("without libc++: it is not installed");
            continue;
        }
        if try_run(&mut command).is_some() {
            assert_cases_are_blamed(
                &program,
                &format!("{compiler} {flags:?}"),
                &WrapperSet::builtin(),
                "",
                &cases,
            );
        }
    }
}

#[test]
fn rust_callers_of_the_standard_library_are_blamed() {
    let cases = [
        "box",
        "vec_push",
        "vec_growth",
        "vec_with_capacity",
        "vec_macro",
        "vec_clone",
        "vec_of_strings",
        "vec_collect",
        "vec_extend",
        "to_vec",
        "vecdeque",
        "hashmap",
        "hashmap_entry",
        "hashset_collect",
        "btreemap",
        "string_push",
        "string_from",
        "to_string",
        "format",
        "join",
        "rc",
        "arc_str",
        "path",
        "read_file",
        "boxed_closure",
    ];
    let dir = capture_library("wrapped-rust");
    let program = dir.join("wrapped");
    for flags in [
        &["-Copt-level=3"][..],
        &["-Copt-level=3", "-Csymbol-mangling-version=v0"],
        &["-Copt-level=1", "-Cforce-frame-pointers=yes"],
    ] {
        let mut command = Command::new("rustc");
        command.args(["--edition=2024", "-lcapture", "-L"]).arg(&dir).args(flags).arg("-o").arg(&program);
        run(command.arg(source("wrapped.rs")));
        assert_cases_are_blamed(&program, &format!("{flags:?}"), &WrapperSet::builtin(), "wrapped::", &cases);
    }
}

/// Checks the ranges of the C library, in which every function is a wrapper. The function `wrapper_ranges`
/// merges ranges and drops ranges without a call. For every call that objdump finds, the ranges and the
/// unwind table must have the same rule for the return address. If the unwind table has no rule for a return
/// address, the ranges must have no rule for it, either.
#[test]
fn every_call_of_the_c_library_keeps_its_rule() {
    let libc = common::loaded_library("libc.so");
    let Some(text) = try_run(Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(&libc)) else {
        return;
    };
    let bytes = FileBytes::open(&libc).expect("a mapped file can be read");
    let elf = Elf::parse(&bytes).expect("a mapped file is sound");
    let table = unwind::compile(&elf);
    let ranges = wrapper_ranges(
        &elf,
        &table,
        &wrapper_functions(&elf, &FunctionTable::of(&elf), &WrapperSet::builtin()),
    );
    let (mut is_call, mut calls) = (false, 0);
    for line in String::from_utf8_lossy(&text).lines() {
        let Some((address, instruction)) = line.trim_start().split_once(":\t") else { continue };
        let Ok(address) = u64::from_str_radix(address, 16) else { continue };
        if is_call {
            let lookup = elf.offset_of(address).expect("an address of this file") - 1;
            let after = ranges.partition_point(|range| range.start <= lookup);
            let range = after.checked_sub(1).map(|at| ranges[at]).filter(|range| lookup < range.end);
            let rule = table.lookup(lookup);
            let expected = Some(rule).filter(|rule| matches!(rule.kind(), Kind::Sp | Kind::Fp));
            assert_eq!(range.map(|range| range.rule), expected, "the call before {address:#x}");
            calls += 1;
        }
        is_call = instruction.split_whitespace().any(|word| word == "call");
    }
    assert!(calls > 5_000, "only {calls} calls");
}
