//! Frames from debug information: function, file, line, and inlined functions.

use super::bounded::{BoundedSlice, Guard};
use super::cache::Opened;
use super::demangle::{demangle, is_mangled};
use super::sections::size_of;
use super::split::{Loader, SplitFile};
use addr2line::{Context, LookupContinuation, LookupResult};
use edleak_format::SymbolFrame;
use gimli::{AbbreviationsCacheStrategy, Dwarf, RunTimeEndian};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use typed_arena::Arena;

/// The debug information of one module, for lookups on one thread.
///
/// A thread parses a unit of debug information when it first looks up an address in that unit. So each thread
/// should get neighbouring addresses in ascending order; otherwise several threads would parse the same unit.
pub(crate) struct Lines<'a> {
    opened: &'a Opened,
    context: Context<BoundedSlice<'a>>,
    split: Loader<'a>,
    guard: &'a Guard,
    /// For each mangled name that a lookup returned so far, the demangled name. Many lookups return the same
    /// function, and to demangle a long C++ name takes as long as the lookup itself.
    names: HashMap<&'a [u8], String>,
}

impl<'a> Lines<'a> {
    /// Reads the headers of all units. `None`: the debug information is missing or damaged.
    pub(crate) fn new(
        opened: &'a Opened,
        debug_dirs: &'a [PathBuf],
        guard: &'a Guard,
        files: &'a Arena<SplitFile>,
    ) -> Option<Self> {
        let (elf, sections) = opened.dwarf()?;
        guard.admit(size_of(sections));
        let shared = opened.shared();
        let read = |with_aranges: bool| {
            let mut dwarf =
                sections.borrow(|piece| BoundedSlice::new(elf.slice(piece), RunTimeEndian::Little, guard));
            if !with_aranges {
                dwarf.debug_aranges = BoundedSlice::new(&[], RunTimeEndian::Little, guard).into();
            }
            if let Some((elf, sections)) = shared {
                guard.admit(size_of(sections));
                let mut sup: Dwarf<_> = sections
                    .borrow(|piece| BoundedSlice::new(elf.slice(piece), RunTimeEndian::Little, guard));
                sup.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
                dwarf.set_sup(sup);
            }
            dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
            Context::from_dwarf(dwarf).ok()
        };
        // If the index of address ranges (`.debug_aranges`) is damaged, read the debug information without
        // this index. edleak can do without this index, because each unit of the debug information also
        // contains its own address ranges.
        let context = read(true).or_else(|| read(false))?;
        let split = Loader::new(opened, elf, files, debug_dirs, guard);
        Some(Lines { opened, context, split, guard, names: HashMap::new() })
    }

    /// The frames at `address`. Inlined functions come first, and the function that contains the code comes
    /// last. The list is empty if the debug information has no function at `address`.
    pub(crate) fn frames(&mut self, address: u64) -> Vec<SymbolFrame> {
        if address == u64::MAX {
            return Vec::new(); // addr2line adds one, which would overflow
        }
        self.try_frames(address).unwrap_or_default()
    }

    /// The ids of the units for which lookups needed a split debug file and did not find the file.
    pub(crate) fn into_missing_dwo(self) -> BTreeSet<u64> {
        self.split.missing
    }

    fn try_frames(&mut self, address: u64) -> gimli::Result<Vec<SymbolFrame>> {
        let mut lookup = self.context.find_frames(address);
        let mut found = loop {
            match lookup {
                LookupResult::Output(found) => break found?,
                LookupResult::Load { load, continuation } => {
                    lookup = continuation.resume(self.split.load(&load));
                }
            }
        };
        let mut frames: Vec<SymbolFrame> = Vec::new();
        let mut is_plain = false;
        while let Some(frame) = found.next()? {
            if let Some(outer) = frames.last_mut() {
                outer.is_inlined = true;
            }
            let function = match &frame.function {
                Some(function) => Some(name_of(&mut self.names, function.name)),
                None => None,
            };
            let location = frame.location.as_ref();
            let file = location.and_then(|location| location.file).filter(|file| !file.is_empty());
            self.guard.charge_text(function.as_ref().map_or(0, String::len) + file.map_or(0, str::len))?;
            let line = location.and_then(|location| location.line).unwrap_or(0);
            is_plain = frame.function.is_some_and(|function| {
                !is_mangled(function.name.bytes()) && function.language.is_some_and(is_mangling)
            });
            frames.push(SymbolFrame { function, file: file.map(str::to_owned), line, is_inlined: false });
        }
        if let Some(SymbolFrame { function: Some(function), .. }) = frames.last_mut().filter(|_| is_plain)
            && let Some(full) = self.opened.full_name(address, function)
        {
            *function = full;
        }
        Ok(frames)
    }
}

fn name_of<'a>(names: &mut HashMap<&'a [u8], String>, name: BoundedSlice<'a>) -> String {
    let demangled = || demangle(&String::from_utf8_lossy(name.bytes())).into_owned();
    names.entry(name.bytes()).or_insert_with(demangled).clone()
}

/// Whether compilers of `language` write mangled names.
fn is_mangling(language: gimli::DwLang) -> bool {
    matches!(
        language,
        gimli::DW_LANG_Rust
            | gimli::DW_LANG_C_plus_plus
            | gimli::DW_LANG_C_plus_plus_03
            | gimli::DW_LANG_C_plus_plus_11
            | gimli::DW_LANG_C_plus_plus_14
            | gimli::DW_LANG_C_plus_plus_17
            | gimli::DW_LANG_C_plus_plus_20
    )
}
