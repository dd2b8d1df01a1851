//! Reads the functions and the unwind rules of the program and of the libraries of a process.

use crate::rules::unwind;
use crate::sys::maps::{self, Mapping};
use crate::sys::process;
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_binary::functions::FunctionTable;
use edleak_session::rule::Rule;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

/// A file whose code the process has mapped: the program or a library.
pub(crate) struct Module {
    pub(crate) path: String,
    /// The lowest address of the file's mappings. The link-time base of the file is mapped at this address.
    pub(crate) start: u64,
    /// The address after the last byte of the file's mappings.
    pub(crate) end: u64,
    bytes: Option<FileBytes>,
    rules: RefCell<HashMap<u32, Rule>>,
}

/// A function that other modules can call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Exported {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) names: Vec<String>,
}

/// The modules of a process, sorted by address.
pub(crate) fn of_process(pid: u32) -> Vec<Module> {
    let map = maps::read(pid, "maps").unwrap_or_default();
    let mappings = maps::files(&map);
    // If a mapped file was deleted, another file may have the same path now. So the collector does not open
    // the path of a deleted file.
    let text = String::from_utf8_lossy(&map);
    let deleted: BTreeSet<&str> =
        maps::lines(&text).filter_map(|line| line.name.strip_suffix(" (deleted)")).collect();
    let code: BTreeSet<&str> =
        mappings.iter().filter(|mapping| mapping.is_code).map(|mapping| mapping.path.as_str()).collect();
    let mut modules: Vec<Module> = Vec::new();
    for mapping in mappings.iter().filter(|mapping| code.contains(mapping.path.as_str())) {
        match modules.last_mut() {
            Some(last) if last.path == mapping.path && mapping.offset > 0 => last.end = mapping.end,
            _ if mapping.offset == 0 => modules.push(Module::new(pid, mapping, &deleted)),
            _ => {}
        }
    }
    modules
}

impl Module {
    fn new(pid: u32, first: &Mapping, deleted: &BTreeSet<&str>) -> Module {
        let open = || FileBytes::open(&process::path_in(pid, &first.path)).ok();
        Module {
            path: first.path.clone(),
            start: first.start,
            end: first.end,
            bytes: if deleted.contains(first.path.as_str()) { None } else { open() },
            rules: RefCell::default(),
        }
    }

    /// The file name: the last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    pub(crate) fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// The parsed file; `None`: the file cannot be read, or is not an ELF file.
    pub(crate) fn elf(&self) -> Option<Elf<'_>> {
        Elf::parse(self.bytes.as_ref()?).ok()
    }

    /// Whether the module is glibc's main library.
    pub(crate) fn is_libc(&self) -> bool {
        self.name() == "libc.so.6" || (self.name().starts_with("libc-2.") && self.name().ends_with(".so"))
    }

    /// Whether the module is the dynamic loader, or libdl, the library that contains `dlopen` before glibc
    /// 2.34.
    pub(crate) fn is_loader(&self) -> bool {
        self.name().starts_with("ld-") || self.name() == "ld.so.1" || self.name().starts_with("libdl")
    }

    /// Whether the module exports a function of this name.
    pub(crate) fn exports(&self, name: &str) -> bool {
        self.elf().is_some_and(|elf| elf.exported_functions().iter().any(|(_, exported)| *exported == name))
    }

    /// The unwind rule for the code at `address`: how to find the frame of the caller.
    pub(crate) fn rule_at(&self, address: u64) -> Rule {
        let Ok(offset) = u32::try_from(address - self.start) else { return Rule::UNKNOWN };
        let compile = || {
            let Some(elf) = self.elf() else { return Rule::UNKNOWN };
            let function = std::iter::once(offset..offset + 1).collect::<Vec<_>>();
            unwind::compile_in(&elf, &function).lookup(offset)
        };
        *self.rules.borrow_mut().entry(offset).or_insert_with(compile)
    }

    /// The functions that other modules can call, sorted by their address in the process.
    pub(crate) fn exported(&self) -> Vec<Exported> {
        let Some(elf) = self.elf() else { return Vec::new() };
        let ends: HashMap<u32, u32> =
            FunctionTable::of(&elf).functions.iter().map(|function| (function.start, function.end)).collect();
        let mut exported: Vec<Exported> = Vec::new();
        for (offset, name) in elf.exported_functions() {
            let start = self.start + u64::from(offset);
            let end = ends.get(&offset).map_or(start, |end| self.start + u64::from(*end));
            match exported.last_mut().filter(|last| last.start == start) {
                Some(last) => last.names.push(name.to_owned()),
                None => exported.push(Exported { start, end, names: vec![name.to_owned()] }),
            }
        }
        exported.sort_by_key(|function| function.start);
        exported
    }
}
