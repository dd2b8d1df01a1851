//! Finds the modules of a process that call the functions of edleak.h or of the crate edleak-annotate.
//!
//! A program calls the library's functions for marks and pools through its global offset table. The loader
//! fills the global offset table when it loads the program. If the library is loaded after the program, the
//! table has no addresses of the library's functions. Therefore each module with such calls has additional
//! memory for two addresses, which are 0 at first ([`edleak_session::idle::CALLS_NOTE_TYPE`]). The collector
//! stores the addresses of the two functions in this memory while all threads stand still.

use crate::attach::modules::Module;
use crate::sys::maps::Line;
use edleak_session::idle::{CALLS_NOTE_TYPE, NOTE_OWNER};
use std::collections::BTreeSet;

/// The functions of the library that a program with edleak.h may call.
const FUNCTIONS: [&str; 2] = ["edleak_set_mark", "edleak_note_pool"];

/// Memory for two addresses (16 bytes) in a module. The collector stores first the address of the function
/// for marks, and then the address of the function for pools.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Words {
    /// The address of these 16 bytes.
    pub(crate) address: u64,
    module: u64,
    path: String,
}

/// The modules of a process that call the functions for marks and pools.
#[derive(Clone, Default, Debug)]
pub(crate) struct Annotations {
    pub(crate) words: Vec<Words>,
    /// The paths of the modules that were compiled with an earlier edleak.h: these modules call the functions
    /// for marks and pools, but have no memory for the addresses of these functions.
    pub(crate) outdated: Vec<String>,
}

/// Finds the modules with calls of the functions for marks and pools.
pub(crate) fn find(modules: &[Module]) -> Annotations {
    let mut found = Annotations::default();
    let is_ours = |module: &Module| module.name().contains("edleak_preload");
    for module in modules.iter().filter(|module| !module.is_libc() && !module.is_loader() && !is_ours(module))
    {
        let Some(elf) = module.elf() else { continue };
        let owner = NOTE_OWNER.strip_suffix(b"\0").unwrap_or(NOTE_OWNER);
        let base = module.start.wrapping_sub(elf.link_base());
        let places: BTreeSet<u64> = elf
            .notes(owner, CALLS_NOTE_TYPE)
            .filter_map(|(address, content)| {
                let distance = i32::from_ne_bytes(content.try_into().ok()?);
                Some(address.wrapping_add_signed(distance.into()).wrapping_add(base))
            })
            .filter(|address| address.is_multiple_of(8) && module.contains(*address))
            .collect();
        if places.is_empty() && FUNCTIONS.iter().any(|name| elf.mentions(name)) {
            found.outdated.push(module.path.clone());
        }
        let path = &module.path;
        found.words.extend(places.into_iter().map(|address| Words {
            address,
            module: module.start,
            path: path.clone(),
        }));
    }
    found
}

impl Words {
    /// Whether the module that contains this memory is still mapped at the same address.
    pub(crate) fn is_mapped<'m>(&self, mut lines: impl Iterator<Item = Line<'m>>) -> bool {
        lines.any(|line| line.start == self.module && line.name == self.path)
    }
}
