//! A stack that a test program has captured, and a function that walks this stack.
//!
//! The walk works like the walk of edleak's library inside a target. The walk gets the registers and a copy
//! of the stack, and returns the return addresses.

use super::{run, scratch, source};
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_collector::rules::unwind::{self, UnwindTable};
use edleak_session::rule::{Kind, Rule};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The content of the output that `capture()` has written.
pub(crate) struct Captured {
    pub rip: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub stack_start: u64,
    pub stack: Vec<u8>,
    /// The frames that libgcc found, innermost first.
    pub frames: Vec<u64>,
    /// For each mapped file: its first mapping, its link base and its name.
    pub modules: Vec<Mapped>,
    pub tables: RefCell<HashMap<PathBuf, UnwindTable>>,
}

pub(crate) struct Mapped {
    pub base: u64,
    pub end: u64,
    pub path: PathBuf,
}

impl Captured {
    /// Reads the output of `capture()`.
    pub(crate) fn read(output: &[u8]) -> Captured {
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
            unwind::compile(&Elf::parse(&bytes).expect("a mapped file is sound"))
        });
        table.lookup(u32::try_from(pc - module.base).expect("modules are small"))
    }

    fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.stack_start)?).ok()?;
        Some(u64::from_le_bytes(self.stack.get(at..at + 8)?.try_into().expect("eight bytes")))
    }

    /// Walks the captured stack. Returns the return addresses, innermost first, and the kind of the last
    /// rule.
    pub(crate) fn walk(&self) -> (Vec<u64>, Kind) {
        let (mut pc, mut rsp, mut rbp) = (self.rip, self.rsp, self.rbp);
        let mut frames = Vec::new();
        let mut is_exact = true;
        while frames.len() < 1024 {
            let rule = self.rule_at(if is_exact { pc } else { pc - 1 });
            let cfa = match rule.kind() {
                Kind::Sp => rsp + rule.cfa_offset() as u64,
                Kind::Fp => rbp + rule.cfa_offset() as u64,
                Kind::Signal => {
                    // In a ucontext, the registers (uc_mcontext.gregs) begin at byte 40. rbp, rsp and rip are
                    // the 11th, the 16th and the 17th register in uc_mcontext.gregs.
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
            if rule.fp_offset() != 0 {
                let Some(saved) = self.word(cfa - rule.fp_offset() as u64) else {
                    return (frames, Kind::Unknown);
                };
                rbp = saved;
            }
            (pc, rsp, is_exact) = (to, cfa, false);
            frames.push(pc);
        }
        panic!("the walk does not end");
    }
}

/// Compiles the library that contains `capture()`, in a directory of this test.
pub(crate) fn capture_library(name: &str) -> PathBuf {
    let dir = scratch(name);
    run(Command::new("cc")
        .args(["-O2", "-fomit-frame-pointer", "-shared", "-fPIC", "-o"])
        .arg(dir.join("libcapture.so"))
        .arg(source("capture.c")));
    dir
}

/// Runs a program that calls `capture()`.
pub(crate) fn captured(program: &Path, argument: &str) -> Captured {
    let dir = program.parent().expect("programs lie in their directory");
    Captured::read(&run(Command::new(program).arg(argument).env("LD_LIBRARY_PATH", dir)))
}
