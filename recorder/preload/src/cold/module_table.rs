//! COLD: the modules that the loader has loaded after the start of the library, by address. `cold::modules`
//! fills the table while the loader holds its lock. Any thread may read the table.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use edleak_session::header::Header;
use edleak_session::stack::mix;

static LOADER_START: AtomicUsize = AtomicUsize::new(0);
static LOADER_END: AtomicUsize = AtomicUsize::new(0);

/// Stores the code range of the loader. With musl, the code range of the loader stays empty, because musl's
/// loader is also libc and never unloads a module.
pub(crate) fn set_loader(start: usize, end: usize) {
    LOADER_END.store(end, Ordering::Relaxed);
    LOADER_START.store(start, Ordering::Release);
}

/// Whether every module that the program loads or unloads causes a module event.
pub(crate) fn are_all_told() -> bool {
    LOADER_END.load(Ordering::Relaxed) > LOADER_START.load(Ordering::Acquire)
}

/// Whether a return address lies in the dynamic loader.
pub(crate) fn is_loader(address: usize) -> bool {
    address > LOADER_START.load(Ordering::Acquire) && address <= LOADER_END.load(Ordering::Relaxed)
}

/// A module that the loader has loaded at one address after the start of the library. If several modules are
/// loaded at one address, one after the other, each of them has its own entry.
pub(super) struct Known {
    /// The address of the module's `link_map`; 0: the module is unloaded.
    pub(super) map: AtomicUsize,
    /// First address of the module.
    pub(super) start: AtomicUsize,
    /// The address after the last byte of the module; 0: this entry is free.
    pub(super) end: AtomicUsize,
    /// A hash of the first bytes of the module. If the module has no build ID, the hash also includes the
    /// module's name.
    pub(super) identity: AtomicU64,
    /// The number of the module event that reported the first load of the module.
    pub(super) events: AtomicU32,
    /// Whether the sites in the module's range belong to this module, because no other module was loaded at
    /// these addresses afterwards.
    pub(super) is_current: AtomicBool,
    /// Whether another module was loaded at the same addresses, before or after this module.
    pub(super) is_contested: AtomicBool,
}

const MAX_KNOWN: usize = 512;
static KNOWN: [Known; MAX_KNOWN] = [const {
    Known {
        map: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        identity: AtomicU64::new(0),
        events: AtomicU32::new(0),
        is_current: AtomicBool::new(false),
        is_contested: AtomicBool::new(false),
    }
}; MAX_KNOWN];
/// The number of entries of the table that the library has ever used.
static KNOWN_END: AtomicUsize = AtomicUsize::new(0);
/// Whether two different modules were ever loaded at one address, one after the other.
pub(super) static IS_CONTESTED: AtomicBool = AtomicBool::new(false);

/// All entries of the table that the library has ever used.
pub(super) fn known() -> &'static [Known] {
    &KNOWN[..KNOWN_END.load(Ordering::Acquire).min(MAX_KNOWN)]
}

/// A free entry of the table of modules. If no entry is free, the function returns the entry of an unloaded
/// module whose addresses now belong to another module.
pub(super) fn place_for_another() -> Option<&'static Known> {
    let is_free = |known: &&Known| known.end.load(Ordering::Relaxed) == 0;
    if let Some(free) = known().iter().find(is_free) {
        return Some(free);
    }
    let in_use = KNOWN_END.load(Ordering::Relaxed);
    if in_use < MAX_KNOWN {
        KNOWN_END.store(in_use + 1, Ordering::Release);
        return KNOWN.get(in_use);
    }
    let is_gone =
        |known: &&Known| !known.is_current.load(Ordering::Relaxed) && known.map.load(Ordering::Relaxed) == 0;
    KNOWN.iter().find(is_gone)
}

/// The module that contains a return address now; `None`: no module that was loaded after the start of the
/// library contains the address.
fn current_at(address: usize) -> Option<&'static Known> {
    known().iter().find(|known| {
        known.is_current.load(Ordering::Acquire)
            && address > known.start.load(Ordering::Relaxed)
            && address <= known.end.load(Ordering::Relaxed)
    })
}

/// The number of the module event that reported the first load of the module at this address. If no module
/// of the table contains the address, the function returns the number of all module events until now.
pub(crate) fn events_up_to(header: &Header, address: usize) -> u32 {
    current_at(address).map_or_else(
        || header.events_written.load(Ordering::Relaxed),
        |known| known.events.load(Ordering::Relaxed),
    )
}

/// A number that the caller mixes into the hash of a stack. Two stacks may have equal addresses, although
/// different modules were loaded at these addresses, one after the other: the number distinguishes these
/// stacks. 0: no address of the stack was ever in two different modules.
#[inline]
pub(crate) fn mark_of_stack(frames: &[u64]) -> u64 {
    if IS_CONTESTED.load(Ordering::Relaxed) { mark_slow(frames) } else { 0 }
}

#[cold]
#[inline(never)]
fn mark_slow(frames: &[u64]) -> u64 {
    let contested = |&frame: &u64| {
        let known = current_at(frame as usize)?;
        let is_contested = known.is_contested.load(Ordering::Relaxed);
        is_contested.then(|| u64::from(known.events.load(Ordering::Relaxed)) + 1)
    };
    frames.iter().filter_map(contested).fold(0, mix)
}

/// Sets the event number of each entry to 0 in a forked child, because the child's session has no module
/// events yet.
pub(crate) fn begin_child() {
    for known in known() {
        known.events.store(0, Ordering::Relaxed);
        if !known.is_current.load(Ordering::Relaxed) {
            known.end.store(0, Ordering::Relaxed);
        }
    }
}

/// Forgets all modules before a new session of this process begins.
pub(super) fn forget_all() {
    for known in known() {
        known.is_current.store(false, Ordering::Relaxed);
        known.is_contested.store(false, Ordering::Relaxed);
        known.map.store(0, Ordering::Relaxed);
        known.end.store(0, Ordering::Relaxed);
    }
    IS_CONTESTED.store(false, Ordering::Relaxed);
}
