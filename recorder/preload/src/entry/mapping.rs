//! COLD: the hooks of mmap, munmap, mremap, shmat, shmdt and madvise. Each hook calls the real function and
//! adds an event to the ring of mapping events.
//!
//! Each event has a number, from which the collector knows the order of the events. The documentation of
//! `session::mapping` says which hooks take this number before the system call, and which take it after. A
//! hook does not change errno and does not wait. After the library has found the real functions, a hook makes
//! no system call of its own. A hook does not use the state of the thread, so a signal handler may map memory
//! at any time.
//!
//! The loader, libc's malloc and libc's threads call mmap by internal names, so these calls do not reach
//! the hooks. Allocators outside libc, such as jemalloc, call mmap by its public name, so their calls reach
//! the hooks. The collector recognizes the calls of allocators by the module of the direct caller.
//!
//! In a process that was started without this library, these hooks run through detours of libc's functions
//! ([`crate::arch::detour`]). With a detour, the real function that a hook calls is the trampoline of the
//! detour.
#![allow(unsafe_code)]

use crate::cold::phase;
use crate::cold::sites::{self, bump};
use crate::cold::symbols::Lazy;
use crate::hot::frame::Frame;
use core::ffi::c_void;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use edleak_session::header::Header;
use edleak_session::layout::PAGE_BYTES;
use edleak_session::mapping::{MAX_EVENTS, MappingEvent, MappingRing, MappingSlot, Operation};

type Pointer = *mut c_void;
type Mmap = unsafe extern "C" fn(Pointer, usize, i32, i32, i32, i64) -> Pointer;
type Munmap = unsafe extern "C" fn(Pointer, usize) -> i32;
type Mremap = unsafe extern "C" fn(Pointer, usize, usize, i32, ...) -> Pointer;
type Shmat = unsafe extern "C" fn(i32, Pointer, i32) -> Pointer;
type Shmdt = unsafe extern "C" fn(Pointer) -> i32;
type Madvise = unsafe extern "C" fn(Pointer, usize, i32) -> i32;

pub(crate) static MMAP: Lazy = Lazy::new(c"mmap");
static MMAP64: Lazy = Lazy::new(c"mmap64");
pub(crate) static MUNMAP: Lazy = Lazy::new(c"munmap");
pub(crate) static MREMAP: Lazy = Lazy::new(c"mremap");
pub(crate) static SHMAT: Lazy = Lazy::new(c"shmat");
pub(crate) static SHMDT: Lazy = Lazy::new(c"shmdt");
pub(crate) static MADVISE: Lazy = Lazy::new(c"madvise");

/// The ring of the session; null: edleak does not record mapped memory.
static RING: AtomicPtr<MappingSlot> = AtomicPtr::new(ptr::null_mut());

const FAILED: Pointer = ptr::without_provenance_mut(usize::MAX);

/// Looks up the real functions at start, before the program calls one of them.
pub(crate) fn resolve() {
    let all = [&MMAP, &MMAP64, &MUNMAP, &MREMAP, &SHMAT, &SHMDT, &MADVISE];
    all.into_iter().for_each(|real| _ = real.get());
}

/// Sets the ring of a session; null: edleak does not record mapped memory.
pub(crate) fn set_ring(slots: *mut MappingSlot) {
    RING.store(slots, Ordering::Release);
}

/// The next definition of a function after this library; null: no library after this library defines the
/// function. The function `real` does not start the library, because an allocator of the program may map
/// memory while the allocator holds its own lock. The start of the library looks up functions, and a lookup
/// may allocate.
fn real(function: &Lazy) -> Pointer {
    function.get()
}

/// The session and the ring to which the hook of one call writes its events.
#[derive(Clone, Copy)]
struct MappingLog {
    header: &'static Header,
    ring: MappingRing<'static>,
}

impl MappingLog {
    /// The session and the ring for a call that maps memory; `None`: edleak does not record the call.
    fn of_taking() -> Option<MappingLog> {
        MappingLog::with(phase::header)
    }

    /// The session and the ring for a call that unmaps memory or gives pages back. If a forked child is not
    /// recorded and only unmaps memory or gives pages back, edleak does not count the child as a child that
    /// used memory.
    fn of_giving() -> Option<MappingLog> {
        MappingLog::with(phase::header_unless_unrecorded_child)
    }

    fn with(header: fn() -> Option<&'static Header>) -> Option<MappingLog> {
        if RING.load(Ordering::Acquire).is_null() {
            return None;
        }
        let header = header()?;
        // Load `RING` again: the call of `header` may have given a forked child its own session, which has
        // another ring.
        let slots = RING.load(Ordering::Acquire);
        if slots.is_null() {
            return None;
        }
        // SAFETY: the session holds `MAX_EVENTS` events and is mapped for the life of the process.
        let slots = unsafe { core::slice::from_raw_parts(slots, MAX_EVENTS) };
        Some(MappingLog {
            header,
            ring: MappingRing { slots, written: &header.mappings_written, read: &header.mappings_read },
        })
    }

    fn push(&self, event: MappingEvent) -> Option<u32> {
        let number = self.ring.push(event);
        if number.is_none() {
            bump(&self.header.lost_mappings);
        }
        number
    }

    /// Adds the event of a range that the program has just mapped, together with the site of the call.
    ///
    /// # Safety
    /// `caller` and `fp` come from the entry stub.
    unsafe fn taken(&self, event: MappingEvent, caller: *const usize, fp: usize) {
        if !ptr::eq(phase::session(), self.header) {
            return; // another session began during the real call
        }
        // SAFETY: the caller guarantees that `caller` and `fp` come from the entry stub.
        let frame = unsafe { Frame::of_caller(caller, fp) };
        // SAFETY: the frame of the stub's caller exists until the stub returns.
        let place = unsafe { sites::place(self.header, frame) };
        self.push(MappingEvent { site: place.site, direct: place.direct, ..event });
    }
}

fn event(operation: Operation, address: Pointer, length: usize, flags: u32) -> MappingEvent {
    MappingEvent { operation, flags, address: address as u64, length: length as u64, site: 0, direct: 0 }
}

/// Adds an event for a slice that a mark takes. `slice` is the position of the slice in the ring of marks.
/// If the ring of mapping events is full, no event is added, and the collector completes this slice with
/// the counters of mapped memory from an older mark.
#[cold]
pub(crate) fn note_mark(slice: u64) {
    if let Some(log) = MappingLog::of_taking() {
        let place = ptr::without_provenance_mut(slice as usize);
        log.ring.push(event(Operation::Mark, place, 0, 0));
    }
}

/// The hook of mmap.
///
/// # Safety
/// Only an entry stub of mmap calls this hook. Every other hook in this file is also called only by its own
/// entry stub.
pub(crate) unsafe extern "C" fn on_mmap(
    address: Pointer,
    length: usize,
    protection: i32,
    flags: i32,
    file: i32,
    offset: i64,
    caller: *const usize,
    fp: usize,
) -> Pointer {
    // SAFETY: the stub passes the arguments of the target's call. `caller` and `fp` describe the frame of the
    // stub's caller.
    unsafe { map(&MMAP, [address as usize, length], protection, flags, file, offset, caller, fp) }
}

/// The hook of mmap64. If libc has no mmap64, the hook calls mmap.
///
/// # Safety
/// See [`on_mmap`].
pub(crate) unsafe extern "C" fn on_mmap64(
    address: Pointer,
    length: usize,
    protection: i32,
    flags: i32,
    file: i32,
    offset: i64,
    caller: *const usize,
    fp: usize,
) -> Pointer {
    let function = if real(&MMAP64).is_null() { &MMAP } else { &MMAP64 };
    // SAFETY: the stub passes the arguments of the target's call. `caller` and `fp` describe the frame of the
    // stub's caller.
    unsafe { map(function, [address as usize, length], protection, flags, file, offset, caller, fp) }
}

#[allow(clippy::too_many_arguments, reason = "mmap has six, and the stub adds two")]
#[inline(always)]
unsafe fn map(
    function: &Lazy,
    [address, length]: [usize; 2],
    protection: i32,
    flags: i32,
    file: i32,
    offset: i64,
    caller: *const usize,
    fp: usize,
) -> Pointer {
    let real = real(function);
    if real.is_null() {
        return FAILED;
    }
    // SAFETY: the next definition of mmap or mmap64 has the type `Mmap`.
    let real: Mmap = unsafe { transmute(real) };
    // SAFETY: this is the target's own call, with its own arguments.
    let mapped =
        unsafe { real(ptr::with_exposed_provenance_mut(address), length, protection, flags, file, offset) };
    if mapped != FAILED
        && let Some(log) = MappingLog::of_taking()
    {
        // SAFETY: `caller` and `fp` come from the stub.
        unsafe { log.taken(event(Operation::Map, mapped, length, flags as u32), caller, fp) };
    }
    mapped
}

/// The hook of munmap.
///
/// # Safety
/// See [`on_mmap`].
pub(crate) unsafe extern "C" fn on_munmap(address: Pointer, length: usize) -> i32 {
    let real = real(&MUNMAP);
    if real.is_null() {
        return -1;
    }
    // SAFETY: the next definition of munmap has the type `Munmap`.
    let real: Munmap = unsafe { transmute(real) };
    // If the address is not aligned to a page, or if the length is 0, the kernel refuses the call, so the
    // call needs no event.
    let is_sound = (address as usize).is_multiple_of(PAGE_BYTES) && length > 0;
    let log = if is_sound { MappingLog::of_giving() } else { None };
    // Add the event before the real munmap: as soon as the kernel has unmapped the range, another thread
    // may map the same range.
    let number = log.and_then(|log| log.push(event(Operation::Unmap, address, length, 0)));
    // SAFETY: this is the target's own call, with its own arguments.
    let status = unsafe { real(address, length) };
    if status != 0 {
        take_back(log, number);
    }
    status
}

/// Adds an event that tells that a call has failed. `number` is the number of the event that reported the
/// failed call.
#[cold]
fn take_back(log: Option<MappingLog>, number: Option<u32>) {
    if let (Some(log), Some(number)) = (log, number)
        // If the attached session now has another header, another session began during the real call, and
        // its ring does not contain the event.
        && ptr::eq(phase::session(), log.header)
    {
        log.push(event(Operation::Failed, ptr::null_mut(), 0, number));
    }
}

/// The hook of mremap. mremap has a fifth argument only with some flags; the hook always passes this argument
/// on.
///
/// # Safety
/// See [`on_mmap`].
pub(crate) unsafe extern "C" fn on_mremap(
    old: Pointer,
    old_length: usize,
    new_length: usize,
    flags: i32,
    new: Pointer,
    _: usize,
    caller: *const usize,
    fp: usize,
) -> Pointer {
    const MREMAP_DONTUNMAP: i32 = 4;
    let real = real(&MREMAP);
    if real.is_null() {
        return FAILED;
    }
    // SAFETY: the next definition of mremap has the type `Mremap`.
    let real: Mremap = unsafe { transmute(real) };
    // If the old length is 0, mremap maps a shared mapping a second time. With MREMAP_DONTUNMAP, the old
    // range stays mapped.
    let stays = old_length == 0 || flags & MREMAP_DONTUNMAP != 0;
    let log = MappingLog::of_taking();
    let number = match log {
        Some(log) if !stays => log.push(event(Operation::Move, old, old_length, flags as u32)),
        _ => None,
    };
    // SAFETY: this is the target's own call, with its own arguments.
    let moved = unsafe { real(old, old_length, new_length, flags, new) };
    if moved == FAILED {
        take_back(log, number);
    } else if let Some(log) = log {
        let event = match number {
            Some(number) => event(Operation::Moved, moved, new_length, number),
            None => event(Operation::Map, moved, new_length, 0),
        };
        // SAFETY: `caller` and `fp` come from the entry stub.
        unsafe { log.taken(event, caller, fp) };
    }
    moved
}

/// The hook of shmat.
///
/// # Safety
/// See [`on_mmap`].
pub(crate) unsafe extern "C" fn on_shmat(
    segment: i32,
    address: Pointer,
    flags: i32,
    caller: *const usize,
    fp: usize,
) -> Pointer {
    let real = real(&SHMAT);
    if real.is_null() {
        return FAILED;
    }
    // SAFETY: the next definition of shmat has the type `Shmat`.
    let real: Shmat = unsafe { transmute(real) };
    // SAFETY: this is the target's own call, with its own arguments.
    let attached = unsafe { real(segment, address, flags) };
    if attached != FAILED
        && let Some(log) = MappingLog::of_taking()
    {
        // The event of shmat holds the segment's id instead of a length; the collector looks up the length
        // of the segment.
        let event = event(Operation::Attach, attached, segment as u32 as usize, flags as u32);
        // SAFETY: `caller` and `fp` come from the entry stub.
        unsafe { log.taken(event, caller, fp) };
    }
    attached
}

/// The hook of shmdt.
///
/// # Safety
/// See [`on_mmap`].
pub(crate) unsafe extern "C" fn on_shmdt(address: Pointer) -> i32 {
    let real = real(&SHMDT);
    if real.is_null() {
        return -1;
    }
    // SAFETY: the next definition of shmdt has the type `Shmdt`.
    let real: Shmdt = unsafe { transmute(real) };
    let log = MappingLog::of_giving();
    let number = log.and_then(|log| log.push(event(Operation::Detach, address, 0, 0)));
    // SAFETY: this is the target's own call, with its own arguments.
    let status = unsafe { real(address) };
    if status != 0 {
        take_back(log, number);
    }
    status
}

/// Whether madvise with this advice gives the pages of the range back to the kernel.
fn gives_back(advice: i32) -> bool {
    const MADV_DONTNEED: i32 = 4;
    const MADV_FREE: i32 = 8;
    const MADV_REMOVE: i32 = 9;
    const MADV_DONTNEED_LOCKED: i32 = 24;
    matches!(advice, MADV_DONTNEED | MADV_FREE | MADV_REMOVE | MADV_DONTNEED_LOCKED)
}

/// The hook of madvise. The pages belong to the site that mapped the range, so the hook does not look for the
/// caller of madvise.
///
/// # Safety
/// See [`on_mmap`].
pub(crate) unsafe extern "C" fn on_madvise(address: Pointer, length: usize, advice: i32) -> i32 {
    let real = real(&MADVISE);
    if real.is_null() {
        return -1;
    }
    // SAFETY: the next definition of madvise has the type `Madvise`.
    let real: Madvise = unsafe { transmute(real) };
    // SAFETY: this is the target's own call, with its own arguments.
    let status = unsafe { real(address, length, advice) };
    if status == 0
        && length > 0
        && gives_back(advice)
        && let Some(log) = MappingLog::of_giving()
        && log.ring.push_note(event(Operation::GiveBack, address, length, 0)).is_none()
    {
        bump(&log.header.lost_give_backs);
    }
    status
}
