//! Tests the frames of every address of small programs: edleak must give the same frames as llvm-symbolizer
//! and GNU addr2line.

use crate::oracle::{self, Frame};
use crate::programs::{
    all_addresses, compile, directory, exact, frames, functions, module, outcome, resolve,
};
use edleak_binary::{Request, Source, Symbolizer};
use std::collections::HashMap;
use std::path::Path;

fn ours(program: &Path, addresses: &[u64]) -> Vec<Vec<Frame>> {
    let module = module(program, Vec::new());
    let resolution = resolve(&module, &[], addresses);
    assert_eq!(outcome(&resolution).source, Source::DebugInfo(program.to_owned()));
    frames(&resolution)
        .iter()
        .map(|frames| {
            let same = |frame: &edleak_format::SymbolFrame| {
                Frame::new(frame.function.as_deref(), frame.file.as_deref(), frame.line)
            };
            frames.iter().map(same).collect()
        })
        .collect()
}

/// Asserts that edleak and the reference tool give the same frames for every address. If some frames differ,
/// prints a few of their addresses.
fn compare(program: &Path, addresses: &[u64], oracle: &str, ours: &[Vec<Frame>], theirs: &[Vec<Frame>]) {
    let differing: Vec<String> = addresses
        .iter()
        .zip(ours.iter().zip(theirs))
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|(address, (ours, theirs))| format!("{address:#x}\n ours   {ours:?}\n {oracle} {theirs:?}\n"))
        .collect();
    assert!(
        differing.is_empty(),
        "{} of {} addresses of {} differ:\n{}",
        differing.len(),
        addresses.len(),
        program.display(),
        differing.iter().step_by(1 + differing.len() / 8).cloned().collect::<String>()
    );
}

fn compare_all(program: &Path, addresses: &[u64]) {
    assert!(addresses.len() > 300, "too few addresses to mean anything");
    let ours = ours(program, addresses);
    let aliases = aliases(program);
    let is_alias = |address: &u64| aliases.iter().any(|range| range.contains(address));

    // If the linker has merged functions with equal code, each tool may give the name of any of them. So
    // the test does not compare the names of merged functions.
    let unnamed = |frames: Vec<Vec<Frame>>| {
        let unname = |(address, mut frames): (&u64, Vec<Frame>)| {
            if let Some(last) = frames.last_mut().filter(|_| is_alias(address)) {
                last.function.clear();
            }
            frames
        };
        addresses.iter().zip(frames).map(unname).collect::<Vec<_>>()
    };
    let theirs = oracle::llvm(program, addresses);
    compare(program, addresses, "llvm", &unnamed(ours.clone()), &unnamed(theirs));

    // GNU addr2line prints names without parameters. If a function is inlined into an inlined function, GNU
    // addr2line also leaves out or merges frames. So the test compares only the file and line of the
    // innermost frame.
    let innermost = |frames: Vec<Vec<Frame>>| {
        let place = |frame: &Frame| Frame { function: String::new(), ..frame.clone() };
        frames.iter().map(|frames| frames.first().map(place).into_iter().collect()).collect::<Vec<Vec<_>>>()
    };
    // For some line tables, GNU addr2line prints a wrong file. The test leaves out an address if the line
    // that addr2line prints is beyond the end of the file that it prints.
    let mut lengths = HashMap::new();
    let mut is_possible = |frame: &Frame| {
        let count =
            |file: &String| std::fs::read_to_string(file).map_or(usize::MAX, |text| text.lines().count());
        let length = lengths.entry(frame.file.clone()).or_insert_with_key(count);
        frame.line as usize <= *length
    };
    let mut kept = (Vec::new(), Vec::new(), Vec::new());
    for (address, (ours, theirs)) in
        addresses.iter().zip(innermost(ours).into_iter().zip(innermost(oracle::gnu(program, addresses))))
    {
        if theirs.iter().all(&mut is_possible) {
            kept.0.push(*address);
            kept.1.push(ours);
            kept.2.push(theirs);
        }
    }
    assert!(kept.0.len() * 100 > addresses.len() * 99, "the oracle is wrong too often to be one");
    compare(program, &kept.0, "gnu", &kept.1, &kept.2);
}

/// The address ranges that belong to several functions with different names.
fn aliases(program: &Path) -> Vec<std::ops::Range<u64>> {
    let functions = functions(program);
    let shared =
        functions.windows(2).filter(|pair| pair[0].start == pair[1].start && pair[0].name != pair[1].name);
    shared.map(|pair| pair[0].start..pair[0].end).collect()
}

const C: [&str; 2] = ["inlined.c", "other.c"];

#[test]
fn c_unoptimized() {
    let program = compile(&directory("c_unoptimized"), "prog", "gcc", &["-g"], &C);
    compare_all(&program, &all_addresses(&program));
}

#[test]
fn c_inlined() {
    let program = compile(&directory("c_inlined"), "prog", "gcc", &["-g", "-O2"], &C);
    compare_all(&program, &all_addresses(&program));
}

#[test]
fn c_inlined_dwarf_4() {
    let program = compile(&directory("c_inlined_dwarf_4"), "prog", "gcc", &["-gdwarf-4", "-O3"], &C);
    compare_all(&program, &all_addresses(&program));
}

#[test]
fn c_by_clang() {
    let program = compile(&directory("c_by_clang"), "prog", "clang", &["-g", "-O2"], &C);
    compare_all(&program, &all_addresses(&program));
}

#[test]
fn cpp_unoptimized() {
    let program = compile(&directory("cpp_unoptimized"), "prog", "g++", &["-g"], &["templates.cpp"]);
    compare_all(&program, &all_addresses(&program));
}

#[test]
fn cpp_inlined() {
    let program = compile(&directory("cpp_inlined"), "prog", "g++", &["-g", "-O2"], &["templates.cpp"]);
    compare_all(&program, &all_addresses(&program));
}

#[test]
fn cpp_by_clang() {
    let program = compile(&directory("cpp_by_clang"), "prog", "clang++", &["-g", "-O2"], &["templates.cpp"]);
    compare_all(&program, &all_addresses(&program));
}

#[test]
fn rust_unoptimized() {
    rust("rust_unoptimized", &["-g"]);
}

#[test]
fn rust_inlined() {
    rust("rust_inlined", &["-g", "-O", "-Csymbol-mangling-version=v0"]);
}

fn rust(test: &str, flags: &[&str]) {
    let flags: Vec<&str> = flags.iter().copied().chain(["--edition=2021"]).collect();
    let program = compile(&directory(test), "prog", "rustc", &flags, &["generic.rs"]);
    // Look up all addresses of the program's own code, but only every 97th address in functions of the
    // standard library.
    let addresses: Vec<u64> = functions(&program)
        .iter()
        .flat_map(|function| {
            let step = if function.name.contains("generic") { 1 } else { 97 };
            (function.start..function.end).step_by(step)
        })
        .collect();
    compare_all(&program, &addresses);
}

#[test]
fn a_return_address_is_looked_up_one_byte_before() {
    let program = compile(&directory("return_address"), "prog", "gcc", &["-g"], &C);
    let module = module(&program, Vec::new());
    // A function may end with a call that does not return. Then the return address of the call is the
    // first address of the next function.
    let functions = functions(&program);
    let depth = functions.iter().find(|function| function.name == "depth").expect("it is in the source");
    let request = Request { address: depth.end + module.load_bias, module: Some(module.id), is_exact: false };
    let symbolizer = Symbolizer::default();
    let resolution = symbolizer.resolve(std::slice::from_ref(&module), &[], &[request]);
    let resolved = &resolution.resolved[0];
    assert_eq!(resolved.offset, depth.end, "the offset is that of the address as given");
    assert_eq!(resolved.frames.last().and_then(|frame| frame.function.as_deref()), Some("depth"));
    assert_eq!(resolution.unresolved(), 0);

    let resolution = symbolizer.resolve(std::slice::from_ref(&module), &[], &exact(&module, &[depth.end]));
    let function = resolution.resolved[0].frames.last().and_then(|frame| frame.function.as_deref());
    assert_ne!(function, Some("depth"));
}

#[test]
fn order_and_repetition_do_not_matter() {
    let program = compile(&directory("order"), "prog", "g++", &["-g", "-O2"], &["templates.cpp"]);
    let module = module(&program, Vec::new());
    let addresses = all_addresses(&program);
    let forward = frames(&resolve(&module, &[], &addresses));
    let backward: Vec<u64> = addresses.iter().rev().chain(&addresses).copied().collect();
    let mut expected: Vec<_> = forward.iter().rev().cloned().collect();
    expected.extend(forward);
    assert_eq!(frames(&resolve(&module, &[], &backward)), expected);
}
