//! The place of a site in the code: its return addresses with their modules, and the frames that the symbols
//! give for these addresses.

use edleak_format::{ModuleId, SymbolFrame};
use std::sync::Arc;

/// One return address in the target. The analyzer looks up symbols for the address only if a report shows the
/// address.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Address {
    /// The return address in the target.
    pub address: u64,
    /// The module that holds the address; `None`: the module is unknown, or the input is not a trace.
    pub module_id: Option<ModuleId>,
    /// The path of the module that holds the address.
    pub module: Option<String>,
    /// The module's build ID in hexadecimal; empty if the module has no build ID.
    pub build_id: String,
    /// The address in the module's file (link-time address): the return address minus the module's load bias.
    pub offset: Option<u64>,
    /// Whether the address is in code that the program generated at run time; true if the input names
    /// modules, but no module contains the address.
    pub is_generated: bool,
    /// The frames at this address, including inlined frames, innermost first; the list is empty if no symbol
    /// is known.
    pub frames: Arc<[SymbolFrame]>,
}

/// The name that reports use for code outside all modules.
pub const GENERATED_NAME: &str = "generated code";

/// Returns every frame of these addresses. Each inlined function is a frame of its own. An address without
/// symbols gives one frame.
pub fn frames(stack: &[Address]) -> impl Iterator<Item = SiteFrame<'_>> + Clone {
    stack.iter().flat_map(|address| {
        let unresolved = address.frames.is_empty().then_some(SiteFrame { address, frame: None });
        address.frames.iter().map(move |frame| SiteFrame { address, frame: Some(frame) }).chain(unresolved)
    })
}

/// One frame of a site's stack, with its address.
#[derive(Clone, Copy, Debug)]
pub struct SiteFrame<'a> {
    /// The return address.
    pub address: &'a Address,
    /// The frame; `None`: no symbol is known.
    pub frame: Option<&'a SymbolFrame>,
}

impl<'a> SiteFrame<'a> {
    /// The name of the function, if it is known.
    pub fn function(self) -> Option<&'a str> {
        self.frame?.function.as_deref()
    }

    /// Whether the frame is code of a language's runtime or standard library.
    pub fn is_runtime(self) -> bool {
        const FUNCTIONS: [&str; 12] = [
            "std::",
            "alloc::",
            "core::",
            "hashbrown::",
            "__gnu_cxx::",
            "operator new",
            "__rust_",
            "__rdl_",
            "<alloc::",
            "<std::",
            "<core::",
            "<hashbrown::",
        ];
        const FILES: [&str; 7] = [
            "/rustc/",
            "/library/alloc/src/",
            "/library/std/src/",
            "/usr/include/c++/",
            // In a program that is built with `_FORTIFY_SOURCE`, the compiler inlines getline, asprintf and
            // other functions of glibc from the header files in the folder `bits`.
            "-linux-gnu/bits/",
            "/usr/include/bits/",
            "/include/rtld-malloc.h",
        ];
        let function = self.function().unwrap_or_default();
        let file = self.place().map_or("", |(file, _)| file);
        FUNCTIONS.iter().any(|start| function.starts_with(start))
            || FILES.iter().any(|part| file.contains(part))
            || is_in_crate(file, "alloc")
    }

    /// Whether this frame is a function of edleak.h with which a pool reports its objects.
    pub(crate) fn is_pool_note(self) -> bool {
        let function = self.function().unwrap_or_default();
        let file = self.place().map_or("", |(file, _)| file);
        function.starts_with("edleak_pool_")
            || function.contains("edleak_annotate::")
            || is_in_crate(file, "annotate")
    }

    /// The source file and the line of the frame, if both are known. A line number of 0 counts as unknown.
    pub fn place(self) -> Option<(&'a str, u32)> {
        let frame = self.frame?;
        Some((frame.file.as_deref()?, frame.line))
    }

    /// The name of the frame: the name of the function if it is known, otherwise `module+0x12`. If the
    /// address is in no module, the name is [`GENERATED_NAME`] or the address.
    pub fn name(self) -> String {
        match (self.function(), &self.address.module, self.address.offset) {
            (Some(function), _, _) => function.to_owned(),
            _ if self.address.is_generated => GENERATED_NAME.into(),
            (None, Some(module), Some(offset)) => format!("{}+{offset:#x}", base_name(module)),
            (None, ..) => format!("{:#x}", self.address.address),
        }
    }
}

/// Whether a source file belongs to edleak's crate `edleak-NAME`. Debug information with only line tables
/// does not have the full names of functions, so `is_in_crate` compares the path of the source file instead.
/// The folder of the crate is `edleak-NAME-VERSION` in a registry, and `recorder/NAME` in the repository.
fn is_in_crate(file: &str, name: &str) -> bool {
    let Some((directory, file)) = file.rsplit_once("/src/") else { return false };
    let mut parts = directory.rsplit('/');
    let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let version = last.strip_prefix("edleak-").and_then(|rest| rest.strip_prefix(name));
    let is_version = |rest: &str| {
        rest.is_empty()
            || rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    version.is_some_and(is_version)
        || (last == name && before == "recorder" && matches!(file, "counted.rs" | "lib.rs"))
}

/// The last component of a path.
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_our_crates_are_recognized_wherever_cargo_keeps_them() {
        for file in [
            "/home/u/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/edleak-alloc-0.1.0/src/counted.rs",
            "/home/u/.cargo/git/checkouts/edleak-1f2e/96ab93f/recorder/alloc/src/counted.rs",
            "vendor/edleak-alloc/src/counted.rs",
        ] {
            assert!(is_in_crate(file, "alloc"), "{file}");
            assert!(!is_in_crate(file, "annotate"), "{file}");
        }
        for file in ["/u/edleak-alloc-tests/src/main.rs", "/u/recorder/alloc/src/main.rs", "counted.rs"] {
            assert!(!is_in_crate(file, "alloc"), "{file}");
        }
    }
}
