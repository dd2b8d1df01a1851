//! Whole stacks walked with the compiled tables, against libgcc's unwinder in the same process.
//!
//! The walker here is a model of the one inside the target: registers and a copy of the stack in, return addresses out.

mod common;

use common::{run, scratch, source, try_run};
use edleak_collector::elf::{Elf, FileBytes};
use edleak_collector::unwind::UnwindTable;
use edleak_session::rule::{Kind, Rule};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `capture()` wrote.
struct Captured {
    rip: u64,
    rsp: u64,
    rbp: u64,
    stack_start: u64,
    stack: Vec<u8>,
    /// libgcc's answer, innermost first.
    frames: Vec<u64>,
    /// The first mapping of each file: where its link base lies, and its name.
    modules: Vec<Mapped>,
    tables: RefCell<HashMap<PathBuf, UnwindTable>>,
}

struct Mapped {
    base: u64,
    end: u64,
    path: PathBuf,
}

impl Captured {
    fn read(output: &[u8]) -> Captured {
        let end_of_text =
            output.windows(2).position(|pair| pair == b"\n\n").expect("an empty line ends the map");
        let text = std::str::from_utf8(&output[..end_of_text]).expect("addresses and paths are text here");
        let hex = |word: &str| u64::from_str_radix(word, 16).expect("capture() prints hex");
        let (head, maps) = text.split_once("maps\n").expect("capture() prints the map");
        let mut captured = Captured {
            rip: 0,
            rsp: 0,
            rbp: 0,
            stack_start: 0,
            stack: output[end_of_text + 2..].to_vec(),
            frames: Vec::new(),
            modules: Vec::new(),
            tables: RefCell::default(),
        };
        for line in head.lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["regs", rip, rsp, rbp] => {
                    (captured.rip, captured.rsp, captured.rbp) = (hex(rip), hex(rsp), hex(rbp));
                }
                ["stack", start, length] => {
                    captured.stack_start = hex(start);
                    assert_eq!(captured.stack.len() as u64, hex(length), "the whole stack was copied");
                }
                ["frame", address] => captured.frames.push(hex(address)),
                other => panic!("capture() printed {other:?}"),
            }
        }
        for line in maps.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [range, _, offset, _, _, path, ..] = words.as_slice() else { continue };
            let (start, end) = range.split_once('-').expect("a mapping has two ends");
            match captured.modules.iter_mut().find(|module| module.path == Path::new(path)) {
                Some(module) => module.end = hex(end),
                None if hex(offset) == 0 && path.starts_with('/') => {
                    captured.modules.push(Mapped { base: hex(start), end: hex(end), path: path.into() });
                }
                None => {}
            }
        }
        captured
    }

    fn rule_at(&self, pc: u64) -> Rule {
        let Some(module) = self.modules.iter().find(|module| (module.base..module.end).contains(&pc)) else {
            return Rule::UNKNOWN;
        };
        let mut tables = self.tables.borrow_mut();
        let table = tables.entry(module.path.clone()).or_insert_with(|| {
            let bytes = FileBytes::open(&module.path).expect("a mapped file can be read");
            UnwindTable::compile(&Elf::parse(&bytes).expect("a mapped file is sound"))
        });
        table.lookup(u32::try_from(pc - module.base).expect("modules are small"))
    }

    fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.stack_start)?).ok()?;
        Some(u64::from_le_bytes(self.stack.get(at..at + 8)?.try_into().expect("eight bytes")))
    }

    /// Return addresses, innermost first, and how the walk ended.
    fn walk(&self) -> (Vec<u64>, Kind) {
        let (mut pc, mut rsp, mut rbp) = (self.rip, self.rsp, self.rbp);
        let mut frames = Vec::new();
        let mut is_exact = true;
        while frames.len() < 1024 {
            let rule = self.rule_at(if is_exact { pc } else { pc - 1 });
            let cfa = match rule.kind() {
                Kind::Rsp => rsp + rule.cfa_offset() as u64,
                Kind::Rbp => rbp + rule.cfa_offset() as u64,
                Kind::Signal => {
                    // ucontext: uc_mcontext.gregs begins 40 bytes in; rbp, rsp and rip are the 11th, 16th and 17th.
                    let register = |index: u64| self.word(rsp + 40 + 8 * index);
                    let (Some(to_rbp), Some(to_rsp), Some(to_pc)) =
                        (register(10), register(15), register(16))
                    else {
                        return (frames, Kind::Unknown);
                    };
                    (rbp, rsp, pc, is_exact) = (to_rbp, to_rsp, to_pc, true);
                    frames.push(pc);
                    continue;
                }
                end => return (frames, end),
            };
            let Some(to) = self.word(cfa - 8) else { return (frames, Kind::Unknown) };
            if rule.rbp_offset() != 0 {
                let Some(saved) = self.word(cfa - rule.rbp_offset() as u64) else {
                    return (frames, Kind::Unknown);
                };
                rbp = saved;
            }
            (pc, rsp, is_exact) = (to, cfa, false);
            frames.push(pc);
        }
        panic!("the walk does not end");
    }

    /// Every frame but capture()'s own, whose pc differs, equals libgcc's; both reach the end of the stack.
    #[track_caller]
    fn assert_equals_libgcc(&self, what: &str, at_least: usize) {
        let (frames, end) = self.walk();
        assert_eq!(frames, self.frames[1..], "{what}: {frames:x?} is not {:x?}", &self.frames[1..]);
        assert_eq!(end, Kind::End, "{what}: the walk was cut");
        assert!(frames.len() >= at_least, "{what}: only {} frames", frames.len());
    }
}

/// The library with `capture()`, in a directory of its own.
fn capture_library(name: &str) -> PathBuf {
    let dir = scratch(name);
    run(Command::new("cc")
        .args(["-O2", "-fomit-frame-pointer", "-shared", "-fPIC", "-o"])
        .arg(dir.join("libcapture.so"))
        .arg(source("capture.c")));
    dir
}

fn captured(program: &Path, argument: &str) -> Captured {
    let dir = program.parent().expect("programs lie in their directory");
    Captured::read(&run(Command::new(program).arg(argument).env("LD_LIBRARY_PATH", dir)))
}

#[test]
fn c_stacks_equal_libgccs_through_recursion_callbacks_threads_and_signals() {
    let dir = capture_library("walk-c");
    for (compiler, flags) in [
        ("gcc", &["-O2", "-fomit-frame-pointer"][..]),
        ("gcc", &["-O2", "-fno-omit-frame-pointer"]),
        ("gcc", &["-O0"]),
        ("gcc", &["-O3", "-fno-pie", "-no-pie"]),
        ("clang", &["-O2", "-fomit-frame-pointer"]),
        ("clang", &["-O1", "-fno-omit-frame-pointer"]),
    ] {
        let program = dir.join("stacks");
        let mut command = Command::new(compiler);
        command.args(flags).arg(source("stacks.c")).arg("-o").arg(&program).arg("-L").arg(&dir);
        if try_run(command.args(["-lcapture", "-pthread"])).is_none() {
            continue;
        }
        for (kind, at_least) in [("recursion", 38), ("callback", 10), ("thread", 28), ("signal", 16)] {
            let what = format!("{compiler} {flags:?} {kind}");
            captured(&program, kind).assert_equals_libgcc(&what, at_least);
        }
    }
}

#[test]
fn cpp_stacks_equal_libgccs_in_a_catch_handler_below_std_sort() {
    let dir = capture_library("walk-cpp");
    for (compiler, flags) in [("g++", &["-O2", "-fomit-frame-pointer"]), ("clang++", &["-O1", "-g"])] {
        let program = dir.join("stacks-cpp");
        let mut command = Command::new(compiler);
        command.args(flags).arg(source("stacks.cpp")).arg("-o").arg(&program).arg("-L").arg(&dir);
        if try_run(command.arg("-lcapture")).is_some() {
            captured(&program, "").assert_equals_libgcc(&format!("{compiler} {flags:?}"), 5);
        }
    }
}

#[test]
fn rust_stacks_equal_libgccs_in_a_spawned_thread() {
    let dir = capture_library("walk-rust");
    for optimized in ["-Copt-level=3", "-Copt-level=0"] {
        let program = dir.join("stacks-rs");
        let mut command = Command::new("rustc");
        command.args(["--edition=2024", "-lcapture", optimized, "-L"]).arg(&dir).arg("-o").arg(&program);
        run(command.arg(source("stacks.rs")));
        captured(&program, "").assert_equals_libgcc(optimized, 15);
    }
}
