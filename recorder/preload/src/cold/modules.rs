//! COLD: notices the modules that the loader loads and unloads, without hooking the loader.
//!
//! glibc's loader allocates a `link_map` for every module with calloc, and frees it when the module is
//! unloaded. Both calls go through edleak's entry points. So allocations of the loader are special. If such
//! an allocation turns out to be a `link_map`, a module was loaded. When the loader frees it, the module was
//! unloaded. All code here runs on the thread inside dlopen or dlclose, under the loader's own lock.
//! Therefore these tables need no lock.
//!
//! A new module may replace an old module at the same addresses. The new module must not inherit the sites of
//! the old module. So this file compares the first bytes of both modules: the ELF header, the program headers
//! and usually the build ID.
#![allow(unsafe_code)]

use crate::arch;
use crate::cold::sites;
use crate::hot::walk;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use edleak_session::event::{self, BUILD_ID_BYTES, LOADED, MAX_EVENTS, ModuleEvent, NAME_BYTES, UNLOADED};
use edleak_session::header::Header;
use edleak_session::stack::mix;

static LOADER_START: AtomicUsize = AtomicUsize::new(0);
static LOADER_END: AtomicUsize = AtomicUsize::new(0);
static EVENTS: AtomicPtr<ModuleEvent> = AtomicPtr::new(ptr::null_mut());

/// Stores the loader's code range and the session's events. musl's loader is also libc and never unloads a
/// module, so its range is empty.
pub(crate) fn set_loader(start: usize, end: usize, events: *mut ModuleEvent) {
    EVENTS.store(events, Ordering::Relaxed);
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

/// The public part of glibc's `struct link_map`, and the private word that distinguishes it from other
/// memory.
#[repr(C)]
struct LinkMap {
    bias: usize,
    name: *const u8,
    dynamic: usize,
    next: *const LinkMap,
    previous: *const LinkMap,
    /// Points to the `link_map` itself (in other namespaces to the real `link_map`).
    real: *const LinkMap,
}

/// A `link_map` that is allocated but not yet filled in.
struct Pending {
    map: AtomicUsize,
    thread: AtomicUsize,
}

/// A module that the loader has loaded since the start, at one address. Modules that take turns at an address
/// have one entry each.
struct Known {
    /// The address of the module's `link_map`; 0: the module is unloaded.
    map: AtomicUsize,
    start: AtomicUsize,
    /// One past the last address of the module; 0: this entry is free.
    end: AtomicUsize,
    identity: AtomicU64,
    /// The number of the event that first loaded the module.
    events: AtomicU32,
    /// Whether the sites in the module's range belong to it: no other module was loaded there since.
    is_current: AtomicBool,
    /// Whether another module was loaded at the same addresses before or after this one.
    is_contested: AtomicBool,
}

const MAX_PENDING: usize = 64;
const MAX_KNOWN: usize = 512;
static PENDING: [Pending; MAX_PENDING] =
    [const { Pending { map: AtomicUsize::new(0), thread: AtomicUsize::new(0) } }; MAX_PENDING];
static PENDING_COUNT: AtomicU32 = AtomicU32::new(0);
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
/// The library has never used an entry from this index on.
static KNOWN_END: AtomicUsize = AtomicUsize::new(0);
/// Whether two modules were ever loaded at one address.
static IS_CONTESTED: AtomicBool = AtomicBool::new(false);

fn known() -> &'static [Known] {
    &KNOWN[..KNOWN_END.load(Ordering::Acquire).min(MAX_KNOWN)]
}

/// Handles an allocation of the loader.
pub(crate) fn allocated(header: &Header, allocation: *mut u8, size: usize) {
    // The least size of a `link_map`; the smallest one, of glibc 2.17, has 1,080 bytes. Few other allocations
    // of the loader are as large.
    const SMALLEST: usize = 1000;
    let me = arch::thread_pointer();
    if PENDING_COUNT.load(Ordering::Relaxed) > 0 {
        settle(header, me, size >= SMALLEST);
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

/// Checks again the allocations that this thread made inside dlopen and that may be a `link_map`. After the
/// loader has filled in a `link_map`, it makes more allocations before any code of the module runs. If a
/// candidate is still no `link_map` when the next candidate comes, this function drops it.
fn settle(header: &Header, me: usize, at_next_candidate: bool) {
    for pending in &PENDING {
        let map = pending.map.load(Ordering::Acquire);
        if map == 0 || pending.thread.load(Ordering::Relaxed) != me {
            continue;
        }
        let map_pointer = map as *const LinkMap;
        // SAFETY: this thread allocated it inside the loader and has not freed it (see `freed`), so it is
        // mapped.
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
    // SAFETY: the loader has mapped the module. The module's first segment begins with the ELF header at
    // link-time address 0; every linker lays out a shared object like this.
    let Some((end, mut identity)) = (unsafe { extent(link_map) }) else { return };
    let start = link_map.bias;
    // SAFETY: the loader has mapped the module from `start` to `end`.
    if unsafe { build_id_at(start, end) }.is_none() {
        // SAFETY: the loader's name is NUL-terminated. Without a build ID two modules may have the same first
        // bytes, so the name is added.
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
            sites::forget(known_start, known_end);
            walk::forget_rules();
        }
    }
    if own.is_none() && header.attached.load(Ordering::Relaxed) != 0 {
        // A module from before the recording may have left these addresses without an event.
        sites::forget(start, end);
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
        // SAFETY: the loop ends at the NUL.
        match unsafe { name.wrapping_add(index).read() } {
            0 => break,
            letter => hash = mix(hash, u64::from(letter)),
        }
    }
    hash
}

/// A free entry; if there is none, the entry of an unloaded module whose addresses another module has taken.
fn place_for_another() -> Option<&'static Known> {
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

/// The module that contains a return address now, if it was loaded since the start.
fn current_at(address: usize) -> Option<&'static Known> {
    known().iter().find(|known| {
        known.is_current.load(Ordering::Acquire)
            && address > known.start.load(Ordering::Relaxed)
            && address <= known.end.load(Ordering::Relaxed)
    })
}

/// The number of the event that first loaded the module at this address; for other code, the number of events
/// so far.
pub(crate) fn events_up_to(header: &Header, address: usize) -> u32 {
    current_at(address).map_or_else(
        || header.events_written.load(Ordering::Relaxed),
        |known| known.events.load(Ordering::Relaxed),
    )
}

/// A value that distinguishes stacks of different modules that were loaded at one address, one after the
/// other. The library mixes this value into a stack's hash, so that stacks with the same addresses stay
/// apart. 0: no two modules ever shared an address.
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

/// Resets the entries in a forked child, whose session has no module events yet.
pub(crate) fn begin_child() {
    for known in known() {
        known.events.store(0, Ordering::Relaxed);
        if !known.is_current.load(Ordering::Relaxed) {
            known.end.store(0, Ordering::Relaxed);
        }
    }
}

/// Forgets all modules before another session of the same process, because the program may have loaded and
/// unloaded modules since the last session.
pub(crate) fn begin_running() {
    for pending in PENDING.iter().filter(|pending| pending.thread.load(Ordering::Relaxed) != 0) {
        pending.map.store(0, Ordering::Relaxed);
        pending.thread.store(0, Ordering::Release);
    }
    PENDING_COUNT.store(0, Ordering::Relaxed);
    for known in known() {
        known.is_current.store(false, Ordering::Relaxed);
        known.is_contested.store(false, Ordering::Relaxed);
        known.map.store(0, Ordering::Relaxed);
        known.end.store(0, Ordering::Relaxed);
    }
    IS_CONTESTED.store(false, Ordering::Relaxed);
}

/// Handles a free of the loader's memory.
pub(crate) fn freed(header: &Header, allocation: *mut u8) {
    for pending in &PENDING {
        if pending.map.load(Ordering::Relaxed) == allocation as usize {
            forget_pending(pending);
        }
    }
    for known in known() {
        if known.map.load(Ordering::Relaxed) == allocation as usize {
            known.map.store(0, Ordering::Relaxed);
            // SAFETY: the loader's allocation is still there; the library frees it only after this read.
            let link_map = unsafe { allocation.cast::<LinkMap>().read() };
            write_event(header, UNLOADED, &LinkMap { name: ptr::null(), ..link_map }, 0);
        }
    }
}

/// `end` is the end of a loaded module; 0 for an unloaded one.
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
            // SAFETY: the loader's name is NUL-terminated, and the loop ends there.
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
        // SAFETY: a module with an end is mapped up to it.
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

/// Whether an address lies in this library. The library's symbols cannot show this: if a program defines the
/// same symbols, the loader binds them to the program's.
pub(crate) fn is_own(address: usize) -> bool {
    unsafe extern "C" {
        static __ehdr_start: u8;
    }
    let base = (&raw const __ehdr_start) as usize;
    // SAFETY: the linker defines this symbol at the start of this library's mapping.
    address >= base && unsafe { elf_extent(base) }.is_some_and(|(end, _)| address < end)
}

/// Copies the GNU build ID of a mapped module. Returns its length; 0 if it has none that can be read.
///
/// # Safety
/// The module at `base` is mapped up to `end`.
unsafe fn copy_build_id(base: usize, end: usize, to: &[AtomicU8; BUILD_ID_BYTES]) -> u32 {
    // SAFETY: the caller of this function guarantees that the module is mapped.
    let Some((at, length)) = (unsafe { build_id_at(base, end) }) else { return 0 };
    for (index, byte) in to.iter().enumerate().take(length) {
        // SAFETY: `build_id_at` has found this many bytes in a readable segment.
        byte.store(unsafe { (at as *const u8).wrapping_add(index).read() }, Ordering::Relaxed);
    }
    length.min(BUILD_ID_BYTES) as u32
}

/// The address and the length of a mapped module's build ID.
///
/// # Safety
/// The module at `base` is mapped up to `end`.
unsafe fn build_id_at(base: usize, end: usize) -> Option<(usize, usize)> {
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    const PF_R: u32 = 4;
    const NT_GNU_BUILD_ID: u32 = 3;
    const NOTE_HEADER_BYTES: usize = 16; // with the name `GNU`
    // SAFETY: all reads are in the first page, or in a note that lies in a segment.
    let half = |at: usize| unsafe { (at as *const u32).read_unaligned() };
    // SAFETY: all reads are in the first page, or in a note that lies in a segment.
    let word = |at: usize| unsafe { (at as *const usize).read_unaligned() };
    let headers = word(base + 32);
    let count = half(base + 56) as usize & 0xffff;
    if headers > 2048 || count > 32 {
        return None;
    }
    let header = |index: usize| base + headers + index * 56;
    let within_page = (0..count).take_while(|&index| header(index) + 56 <= base + 4096);
    let notes = within_page.clone().filter(|&index| half(header(index)) == PT_NOTE);
    for note in notes.map(header) {
        let (from, bytes) = (word(note + 16), word(note + 32));
        let is_in = |segment: usize| {
            let (start, length) = (word(segment + 16), word(segment + 32));
            half(segment) == PT_LOAD
                && half(segment + 4) & PF_R != 0
                && from >= start
                && bytes <= length
                && from - start <= length - bytes
        };
        if !within_page.clone().map(header).any(is_in) || base.checked_add(from)?.checked_add(bytes)? > end {
            continue;
        }
        let (mut at, note_end) = (base + from, base + from + bytes);
        let align = if word(note + 48) == 8 { 8 } else { 4 };
        while at + NOTE_HEADER_BYTES <= note_end {
            let (name_bytes, length) = (half(at) as usize, half(at + 4) as usize);
            let desc = at.checked_add(12)?.checked_add(name_bytes.next_multiple_of(align))?;
            let next = desc.checked_add(length.checked_next_multiple_of(align)?)?;
            if half(at + 8) == NT_GNU_BUILD_ID
                && name_bytes == 4
                && half(at + 12) == u32::from_le_bytes(*b"GNU\0")
            {
                return (length > 0 && desc + length <= note_end).then_some((desc, length));
            }
            at = next;
        }
    }
    None
}

/// The end of the last segment of a mapped ELF file whose first segment begins at `base`, and a hash of its
/// first bytes.
///
/// # Safety
/// A page is mapped at `base`.
pub(crate) unsafe fn elf_extent(base: usize) -> Option<(usize, u64)> {
    const HASHED: usize = 1024;
    let byte = |offset: usize| {
        // SAFETY: the offset stays within the page at `base`, which the caller guarantees is mapped.
        unsafe { ((base + offset) as *const u8).read() }
    };
    let word = |offset: usize| (0..8).fold(0u64, |word, i| word | u64::from(byte(offset + i)) << (8 * i));
    if base == 0 || !base.is_multiple_of(4096) || word(0) as u32 != u32::from_le_bytes(*b"\x7fELF") {
        return None;
    }
    let headers = word(32) as usize;
    let count = usize::from(byte(56)) | usize::from(byte(57)) << 8;
    if headers > 2048 || count > 32 {
        return None;
    }
    let mut end = 0;
    for index in 0..count {
        let at = headers + index * 56;
        if at + 56 > 4096 {
            return None;
        }
        const PT_LOAD: u32 = 1;
        if word(at) as u32 == PT_LOAD {
            end = end.max(word(at + 16).wrapping_add(word(at + 40)) as usize);
        }
    }
    let identity = (0..HASHED).fold(0xcbf2_9ce4_8422_2325u64, |hash, offset| {
        (hash ^ u64::from(byte(offset))).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (end > 0 && end < 1 << 40).then(|| (base + end, identity))
}
