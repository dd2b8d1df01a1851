//! Finds the modules of a process that call the functions of edleak.h or of the crate edleak-annotate.
//!
//! A program calls the functions of edleak's library for marks and pools through the program's global offset
//! table. The loader fills this table when it loads the program. If edleak's library is loaded later than the
//! program, the table contains no addresses of the library's functions. Therefore each module that calls
//! these functions contains memory for two addresses, which are 0 at first
//! ([`edleak_session::idle::CALLS_NOTE_TYPE`]). While all threads stand still, the collector stores in this
//! memory the addresses of the function for marks and of the function for pools.

use crate::attach::modules::Module;
use crate::sys::maps::Line;
use edleak_session::idle::{CALLS_NOTE_TYPE, NOTE_OWNER};
use std::collections::BTreeSet;

/// The functions of edleak's library that a program built with edleak.h may call.
const FUNCTIONS: [&str; 2] = ["edleak_set_mark", "edleak_note_pool"];

/// Memory in a module for two addresses of 8 bytes each: first the address of the function for marks, then
/// the address of the function for pools. When edleak's library is loaded late, the collector stores both
/// addresses in this memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Words {
    /// The address, in the process, of the memory for the two addresses.
    pub(crate) address: u64,
    module: u64,
    path: String,
}

/// The modules of a process that call the functions for marks and pools.
#[derive(Clone, Default, Debug)]
pub(crate) struct Annotations {
    pub(crate) words: Vec<Words>,
    /// The paths of the modules that were compiled with an old version of edleak.h. Such a module calls the
    /// functions for marks and pools, but contains no memory for the addresses of the two functions.
    pub(crate) outdated: Vec<String>,
}

/// Finds the modules that call the functions for marks and pools.
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
        if places.is_empty() && elf.mentioned(&FUNCTIONS).is_some() {
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
    /// Whether the module that contains this memory is still mapped at the address at which `find` found the
    /// module.
    pub(crate) fn is_mapped<'m>(&self, mut lines: impl Iterator<Item = Line<'m>>) -> bool {
        lines.any(|line| line.start == self.module && line.name == self.path)
    }
}
