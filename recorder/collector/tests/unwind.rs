//! Compares the unwind tables that edleak compiles with the output of readelf for the same files, and with
//! the stacks that libgcc walks.

mod common;

use common::{run, scratch, source, try_run};
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_collector::rules::unwind;
use edleak_session::rule::{Kind, Rule};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

// ---- readelf ----

/// A range of code and its unwind rule, as readelf prints them.
struct Expected {
    start: u64,
    end: u64,
    rule: Rule,
}

/// Reads the output of `readelf --debug-dump=frames-interp`.
fn readelf_rules(text: &str) -> Vec<Expected> {
    let hex = |word: &str| u64::from_str_radix(word, 16).expect("readelf prints addresses in hex");
    // Each entry (FDE) belongs to a common entry (CIE). An entry (FDE) starts with the unwind rule of its
    // common entry (CIE), and may change this rule. An `S` in the augmentation string of a CIE marks
    // trampolines of signal handlers.
    let mut cies: HashMap<String, (Rule, bool)> = HashMap::new();
    let mut cie: Option<String> = None;
    let mut is_signal = false;
    let mut columns: Vec<String> = Vec::new();
    let mut expected: Vec<Expected> = Vec::new();
    let mut fde_end = 0;
    for line in text.lines() {
        // If a register is stored in another register, readelf prints two words, such as `r9 (r9)`; drop the
        // second word.
        let words: Vec<&str> = line.split_whitespace().filter(|word| !word.starts_with('(')).collect();
        match words.as_slice() {
            [id, _, _, "CIE", augmentation, ..] => {
                cie = Some((*id).to_owned());
                is_signal = augmentation.contains('S');
                cies.insert((*id).to_owned(), (Rule::UNKNOWN, is_signal));
            }
            [_, _, _, "FDE", of, range, ..] => {
                let (rule, signal) = cies[of.strip_prefix("cie=").expect("an FDE names its CIE")];
                (cie, is_signal) = (None, signal);
                let range = range.strip_prefix("pc=").expect("an FDE has a range");
                let (start, end) = range.split_once("..").expect("a range has two ends");
                fde_end = hex(end);
                expected.push(Expected {
                    start: hex(start),
                    end: fde_end,
                    rule: if signal { Rule::SIGNAL } else { rule },
                });
            }
            ["LOC", "CFA", ..] => columns = words.iter().map(|&word| word.to_owned()).collect(),
            [loc, _, ..] if words.len() == columns.len() && loc.len() == 16 => {
                let rule = if is_signal { Rule::SIGNAL } else { rule_of(&columns, &words) };
                if let Some(id) = &cie {
                    cies.insert(id.clone(), (rule, is_signal));
                    continue;
                }
                let last = expected.last_mut().expect("rows follow their entry");
                last.end = hex(loc);
                expected.push(Expected { start: hex(loc), end: fde_end, rule });
            }
            _ => {}
        }
    }
    expected.retain(|stretch| stretch.start < stretch.end && stretch.start != 0);
    expected
}

/// Computes the unwind rule from the words of one line of readelf's table.
fn rule_of(columns: &[String], words: &[&str]) -> Rule {
    let cell = |name: &str| columns.iter().position(|column| column == name).map(|column| words[column]);
    match cell("ra") {
        Some("u") => return Rule::END,
        Some("c-8") => {}
        _ => return Rule::UNKNOWN,
    }
    let fp_offset = match cell("rbp") {
        None | Some("u" | "s") => None,
        Some(word) => match word.strip_prefix("c-").and_then(|offset| offset.parse().ok()) {
            Some(offset) => Some(offset),
            None => return Rule::UNKNOWN,
        },
    };
    let Some((register, offset)) = words[1].split_once('+') else { return Rule::UNKNOWN };
    let kind = match register {
        "rsp" => Kind::Sp,
        "rbp" => Kind::Fp,
        _ => return Rule::UNKNOWN,
    };
    Rule::pack(kind, offset.parse().expect("an offset is a number"), fp_offset).unwrap_or(Rule::UNKNOWN)
}

/// Compares every row of the unwind table of one file. Returns the number of compared ranges; `None`: readelf
/// is not installed.
fn check_against_readelf(path: &Path) -> Option<usize> {
    let text = try_run(Command::new("readelf").arg("--debug-dump=frames-interp,no-follow-links").arg(path))?;
    let mut expected = readelf_rules(&String::from_utf8_lossy(&text));
    expected.sort_by_key(|stretch| stretch.start);
    let bytes = FileBytes::open(path).expect("readelf could read it");
    let elf = Elf::parse(&bytes).expect("a sound file");
    let table = unwind::compile(&elf);
    assert_eq!(table.bad_entries, 0, "{}", path.display());
    let offset = |address: u64| elf.offset_of(address).expect("an address of this file");
    let mut previous_end = 0;
    for stretch in &expected {
        let where_ = format!("{} at {:#x}", path.display(), stretch.start);
        assert_eq!(table.lookup(offset(stretch.start)), stretch.rule, "{where_}");
        assert_eq!(table.lookup(offset(stretch.end - 1)), stretch.rule, "{where_}, last byte");
        if previous_end != 0 && previous_end < stretch.start {
            assert_eq!(table.lookup(offset(previous_end)), Rule::UNKNOWN, "{where_}, the gap before");
            assert_eq!(table.lookup(offset(stretch.start - 1)), Rule::UNKNOWN, "{where_}, the gap before");
        }
        previous_end = stretch.end;
    }
    assert_eq!(table.lookup(offset(previous_end)), Rule::UNKNOWN, "{}, past the end", path.display());
    // Each row of edleak's unwind table must begin at the start or at the end of one of readelf's ranges, so
    // that the rule in the table cannot change inside one of readelf's ranges.
    let starts: Vec<u32> = expected.iter().flat_map(|e| [offset(e.start), offset(e.end)]).collect();
    for row in table.rows.iter().skip(1) {
        assert!(
            starts.binary_search(&row.start).is_ok(),
            "{}: a row of our own at {:#x}",
            path.display(),
            row.start
        );
    }
    Some(expected.len())
}

#[test]
fn rows_equal_readelf_in_the_c_library_and_loader() {
    for name in ["libc.so", "ld-linux", "libgcc_s"] {
        if let Some(stretches) = check_against_readelf(&common::loaded_library(name)) {
            assert!(stretches > 100, "{name}: only {stretches} stretches");
        }
    }
}

#[test]
fn rows_equal_readelf_in_this_rust_program() {
    let path = std::env::current_exe().expect("a process knows its own file");
    if let Some(stretches) = check_against_readelf(&path) {
        assert!(stretches > 1000, "only {stretches} stretches");
    }
}

#[test]
fn rows_equal_readelf_in_libstdcxx() {
    let name = run(Command::new("c++").arg("-print-file-name=libstdc++.so.6"));
    let path = PathBuf::from(String::from_utf8_lossy(&name).trim());
    if path.is_absolute()
        && let Some(stretches) = check_against_readelf(&path)
    {
        assert!(stretches > 10_000, "only {stretches} stretches");
    }
}

#[test]
fn rows_equal_readelf_whatever_the_compiler_and_flags() {
    let dir = scratch("readelf");
    let (c, cpp) = (source("stacks.c"), source("stacks.cpp"));
    let builds: [(&str, &Path, &[&str]); 8] = [
        ("gcc", &c, &["-O2", "-fomit-frame-pointer"]),
        ("gcc", &c, &["-O0"]),
        ("gcc", &c, &["-O3", "-march=haswell", "-mstackrealign"]),
        ("gcc", &c, &["-O2", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-g"]),
        ("clang", &c, &["-O2", "-fomit-frame-pointer"]),
        ("clang", &c, &["-O1", "-fno-omit-frame-pointer"]),
        ("g++", &cpp, &["-O2", "-fomit-frame-pointer"]),
        ("clang++", &cpp, &["-O2"]),
    ];
    for (i, (compiler, source, flags)) in builds.iter().enumerate() {
        let library = dir.join(format!("build{i}.so"));
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC"]).arg(source).arg("-o").arg(&library).args(*flags);
        if try_run(&mut command).is_some() {
            check_against_readelf(&library);
        }
    }
}
