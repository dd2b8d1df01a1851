//! Where a site is: return addresses with their modules, and the frames that symbols make of them.

use edleak_format::{ModuleId, SymbolFrame};
use std::sync::Arc;

/// One return address, symbolized if it is reported.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Address {
    /// The return address in the target.
    pub address: u64,
    /// The module it lies in, in a trace.
    pub module_id: Option<ModuleId>,
    /// Its path.
    pub module: Option<String>,
    /// The module's build ID in hexadecimal, empty where it has none.
    pub build_id: String,
    /// The return address minus the module's load bias.
    pub offset: Option<u64>,
    /// It lies in no module, though the input says where modules are: the program generated the code.
    pub is_generated: bool,
    /// Inlined frames first, innermost first; empty where no symbol is known.
    pub frames: Arc<[SymbolFrame]>,
}

/// What code is called that lies in no module.
pub const GENERATED_NAME: &str = "generated code";

/// Every frame of these addresses: inlined ones, and addresses without symbols.
pub fn frames(stack: &[Address]) -> impl Iterator<Item = SiteFrame<'_>> + Clone {
    stack.iter().flat_map(|address| {
        let unresolved = address.frames.is_empty().then_some(SiteFrame { address, frame: None });
        address.frames.iter().map(move |frame| SiteFrame { address, frame: Some(frame) }).chain(unresolved)
    })
}

/// One frame of a site's stack, with the address it lies at.
#[derive(Clone, Copy, Debug)]
pub struct SiteFrame<'a> {
    /// The return address.
    pub address: &'a Address,
    /// The frame; `None` where no symbol is known.
    pub frame: Option<&'a SymbolFrame>,
}

impl<'a> SiteFrame<'a> {
    /// The function, if it is known.
    pub fn function(self) -> Option<&'a str> {
        self.frame?.function.as_deref()
    }

    /// Code of a language's runtime or standard library.
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
            // What the headers of glibc inline when they fortify: getline, asprintf, …
            "-linux-gnu/bits/",
            "/usr/include/bits/",
            "/include/rtld-malloc.h",
        ];
        let function = self.function().unwrap_or_default();
        let file = self.place().map_or("", |(file, _)| file);
        FUNCTIONS.iter().any(|start| function.starts_with(start))
            || FILES.iter().any(|part| file.contains(part))
    }

    /// File and line, if they are known. Line 0 stands for an unknown line.
    pub fn place(self) -> Option<(&'a str, u32)> {
        let frame = self.frame?;
        Some((frame.file.as_deref()?, frame.line))
    }

    /// The function, or else `module+0x12`, or else that the code was generated, or else the bare address.
    pub fn name(self) -> String {
        match (self.function(), &self.address.module, self.address.offset) {
            (Some(function), _, _) => function.to_owned(),
            _ if self.address.is_generated => GENERATED_NAME.into(),
            (None, Some(module), Some(offset)) => format!("{}+{offset:#x}", base_name(module)),
            (None, ..) => format!("{:#x}", self.address.address),
        }
    }
}

/// The last component of a path.
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}
