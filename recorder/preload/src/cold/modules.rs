//! COLD: notices the modules that the loader loads and unloads, without a hook in the loader.
//!
//! glibc's loader allocates a `link_map` for every module with calloc, and frees the `link_map` when it
//! unloads the module. The loader calls edleak's entry points for calloc and free, so edleak can mark every
//! allocation of the loader as special in the side table. If a special allocation becomes a `link_map`, the
//! loader has loaded a module. If the loader frees the `link_map`, the loader has unloaded the module. All
//! code in this file runs on the thread that called dlopen or dlclose, while the loader holds its own lock.
//! Therefore the tables of the file modules.rs need no lock of their own.
//!
//! A new module may be loaded at the addresses of an old module. Allocations of the new module must not
//! count at the sites of the old module. So the library compares the first bytes of the old module with the
//! first bytes of the new module. The first bytes of a module contain the ELF header, the program headers
//! and usually the build ID.
#![allow(unsafe_code)]

use crate::arch;
use crate::cold::elf::{build_id_at, copy_build_id, elf_extent};
use crate::cold::module_table::{self, IS_CONTESTED, known, place_for_another};
use crate::cold::sites;
use crate::hot::walk;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use edleak_session::event::{self, LOADED, MAX_EVENTS, ModuleEvent, NAME_BYTES, UNLOADED};
use edleak_session::header::Header;
use edleak_session::stack::mix;

static EVENTS: AtomicPtr<ModuleEvent> = AtomicPtr::new(ptr::null_mut());

/// Stores the code range of the loader and the address of the session's module events.
pub(crate) fn set_loader(start: usize, end: usize, events: *mut ModuleEvent) {
    EVENTS.store(events, Ordering::Relaxed);
    module_table::set_loader(start, end);
}

/// The public fields of glibc's `struct link_map`, and one private field. The private field `real`
/// distinguishes a `link_map` from other memory.
#[repr(C)]
struct LinkMap {
    bias: usize,
    name: *const u8,
    dynamic: usize,
    next: *const LinkMap,
    previous: *const LinkMap,
    /// A pointer to the `link_map` itself. If this `link_map` is a copy for another namespace, the field
    /// points to the original `link_map`.
    real: *const LinkMap,
}

/// A memory block that may become a `link_map`, but that the loader has not filled in yet.
struct Pending {
    map: AtomicUsize,
    thread: AtomicUsize,
}

const MAX_PENDING: usize = 64;
static PENDING: [Pending; MAX_PENDING] =
    [const { Pending { map: AtomicUsize::new(0), thread: AtomicUsize::new(0) } }; MAX_PENDING];
static PENDING_COUNT: AtomicU32 = AtomicU32::new(0);

/// Handles an allocation that the loader has made.
pub(crate) fn allocated(header: &Header, allocation: *mut u8, size: usize) {
    // Every `link_map` has more than 1,000 bytes: the smallest `link_map`, in glibc 2.17, has 1,080 bytes.
    // The loader makes few other allocations of 1,000 bytes or more.
    const SMALLEST: usize = 1000;
    let me = arch::thread_pointer();
    if PENDING_COUNT.load(Ordering::Relaxed) > 0 {
        check_candidates(header, me, size >= SMALLEST);
    }
    if size >= SMALLEST {
        for pending in &PENDING {
            if pending.map.load(Ordering::Relaxed) == 0
                && pending.thread.compare_exchange(0, me, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                pending.map.store(allocation as usize, Ordering::Release);
                PENDING_COUNT.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Checks whether the loader has filled in a `link_map` in one of the allocations that this thread made
/// inside dlopen. After the loader has filled in a `link_map`, the loader allocates again before any code
/// of the module runs. If an allocation contains no `link_map` by the time at which the loader makes the
/// next allocation of 1,000 bytes or more, the library stops checking the older allocation.
fn check_candidates(header: &Header, me: usize, at_next_candidate: bool) {
    for pending in &PENDING {
        let map = pending.map.load(Ordering::Acquire);
        if map == 0 || pending.thread.load(Ordering::Relaxed) != me {
            continue;
        }
        let map_pointer = map as *const LinkMap;
        // SAFETY: this thread allocated the memory inside the loader and has not freed it (see `freed`), so
        // the memory is mapped.
        let link_map = unsafe { map_pointer.read_volatile() };
        if link_map.real != map_pointer {
            if at_next_candidate {
                forget_pending(pending);
            }
            continue;
        }
        if link_map.dynamic == 0 || link_map.name.is_null() {
            continue;
        }
        forget_pending(pending);
        loaded(header, map, &link_map);
    }
}

fn forget_pending(pending: &Pending) {
    pending.map.store(0, Ordering::Relaxed);
    pending.thread.store(0, Ordering::Release);
    PENDING_COUNT.fetch_sub(1, Ordering::Relaxed);
}

fn loaded(header: &Header, map: usize, link_map: &LinkMap) {
    // SAFETY: the loader has mapped the module. The first segment of the module begins with the ELF header
    // at link-time address 0, because every linker puts the ELF header of a shared object there.
    let Some((end, mut identity)) = (unsafe { extent(link_map) }) else { return };
    let start = link_map.bias;
    // SAFETY: the loader has mapped the module from `start` to `end`.
    if unsafe { build_id_at(start, end) }.is_none() {
        // SAFETY: the loader's name is NUL-terminated. Without a build ID, two modules may have the same
        // first bytes, so the hash also includes the name.
        identity = mix(identity, unsafe { hash_of_name(link_map.name) });
    }
    let (mut own, mut is_contested) = (None, false);
    for known in known() {
        let (known_start, known_end) =
            (known.start.load(Ordering::Relaxed), known.end.load(Ordering::Relaxed));
        if known_end == 0 || known_start >= end || start >= known_end {
            continue;
        }
        if known_start == start && known.identity.load(Ordering::Relaxed) == identity {
            own = Some(known);
        } else if known.is_current.load(Ordering::Relaxed) {
            known.is_current.store(false, Ordering::Relaxed);
            known.is_contested.store(true, Ordering::Relaxed);
            IS_CONTESTED.store(true, Ordering::Relaxed);
            is_contested = true;
            sites::forget(header, known_start, known_end);
            walk::forget_rules();
        }
    }
    if own.is_none() && header.attached.load(Ordering::Relaxed) != 0 {
        // Another module may have been at these addresses when the recording began, and the loader may have
        // unloaded that module without an event. So forget the sites at the addresses of the new module.
        sites::forget(header, start, end);
        walk::forget_rules();
    }
    write_event(header, LOADED, link_map, end);
    if let Some(known) = own {
        known.map.store(map, Ordering::Relaxed);
        known.is_contested.fetch_or(is_contested, Ordering::Relaxed);
        known.is_current.store(true, Ordering::Relaxed);
        return;
    }
    if let Some(known) = place_for_another() {
        known.map.store(map, Ordering::Relaxed);
        known.start.store(start, Ordering::Relaxed);
        known.identity.store(identity, Ordering::Relaxed);
        known.events.store(header.events_written.load(Ordering::Relaxed), Ordering::Relaxed);
        known.is_contested.store(is_contested, Ordering::Relaxed);
        known.end.store(end, Ordering::Relaxed);
        known.is_current.store(true, Ordering::Release);
    }
}

/// # Safety
/// `name` is NUL-terminated.
unsafe fn hash_of_name(name: *const u8) -> u64 {
    let mut hash = 0;
    for index in 0..NAME_BYTES {
        // SAFETY: the loop ends at the NUL, so it does not read beyond the name.
        match unsafe { name.wrapping_add(index).read() } {
            0 => break,
            letter => hash = mix(hash, u64::from(letter)),
        }
    }
    hash
}

/// Forgets all modules before a new session of this process begins, because the program may have loaded and
/// unloaded modules since the session before.
pub(crate) fn begin_running() {
    for pending in PENDING.iter().filter(|pending| pending.thread.load(Ordering::Relaxed) != 0) {
        pending.map.store(0, Ordering::Relaxed);
        pending.thread.store(0, Ordering::Release);
    }
    PENDING_COUNT.store(0, Ordering::Relaxed);
    module_table::forget_all();
}

/// Handles a free of memory that the loader has allocated.
pub(crate) fn freed(header: &Header, allocation: *mut u8) {
    for pending in &PENDING {
        if pending.map.load(Ordering::Relaxed) == allocation as usize {
            forget_pending(pending);
        }
    }
    for known in known() {
        if known.map.load(Ordering::Relaxed) == allocation as usize {
            known.map.store(0, Ordering::Relaxed);
            // SAFETY: the allocation still exists; the library frees the allocation only after this read.
            let link_map = unsafe { allocation.cast::<LinkMap>().read() };
            write_event(header, UNLOADED, &LinkMap { name: ptr::null(), ..link_map }, 0);
        }
    }
}

/// Writes a module event. `end` is the end address of a loaded module; 0: the module was unloaded.
fn write_event(header: &Header, kind: u32, link_map: &LinkMap, end: usize) {
    let Some(place) = event::next_place(&header.events_written, &header.events_read, MAX_EVENTS) else {
        header.events_lost.fetch_add(1, Ordering::Relaxed);
        return;
    };
    // SAFETY: the session holds `MAX_EVENTS` events.
    let event = unsafe { &*EVENTS.load(Ordering::Relaxed).wrapping_add(place) };
    let mut length = 0;
    if !link_map.name.is_null() {
        for (index, byte) in event.name.iter().enumerate().take(NAME_BYTES) {
            // SAFETY: the name of the module in the `link_map` is NUL-terminated, and the loop ends at the
            // NUL.
            match unsafe { *link_map.name.wrapping_add(index) } {
                0 => break,
                letter => byte.store(letter, Ordering::Relaxed),
            }
            length = index + 1;
        }
    }
    event.name_len.store(length as u32, Ordering::Relaxed);
    event.end.store(end as u64, Ordering::Relaxed);
    let build_id_len = match end {
        0 => 0,
        // SAFETY: if `end` is not 0, the module is mapped up to `end`.
        end => unsafe { copy_build_id(link_map.bias, end, &event.build_id) },
    };
    event.build_id_len.store(build_id_len, Ordering::Relaxed);
    event.load_bias.store(link_map.bias as u64, Ordering::Relaxed);
    event.kind.store(kind, Ordering::Release);
    event::publish_next(&header.events_written);
}

/// The end of a loaded module, and a hash that identifies its content.
///
/// # Safety
/// The module is mapped.
unsafe fn extent(link_map: &LinkMap) -> Option<(usize, u64)> {
    // SAFETY: the caller of this function guarantees that the module is mapped.
    unsafe { elf_extent(link_map.bias) }.filter(|&(end, _)| (link_map.bias..end).contains(&link_map.dynamic))
}
