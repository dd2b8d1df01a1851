//! COLD: mmap, munmap, mremap, shmat and shmdt: the calls go on to the next definition, and the ring is told.
//!
//! `session::mapping` explains when each call takes its number. Nothing here touches errno, waits, or makes a
//! system call of its own once the functions are found. The thread's own state is not used either, so a signal
//! handler may map in the middle of anything.
//!
//! The loader, libc's malloc and libc's threads call the kernel by internal names and never come here. Allocators
//! in libraries of their own do, and are told apart by the collector, by the module of the direct caller.
#![allow(unsafe_code)]

use crate::cold::lifecycle;
use crate::cold::real::Lazy;
use crate::cold::sites::{self, bump};
use crate::hot::frame::Frame;
use core::ffi::c_void;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use edleak_session::header::Header;
use edleak_session::mapping::{MAX_EVENTS, MappingEvent, MappingRing, MappingSlot, Operation};

type Pointer = *mut c_void;
type Mmap = unsafe extern "C" fn(Pointer, usize, i32, i32, i32, i64) -> Pointer;
type Munmap = unsafe extern "C" fn(Pointer, usize) -> i32;
type Mremap = unsafe extern "C" fn(Pointer, usize, usize, i32, ...) -> Pointer;
type Shmat = unsafe extern "C" fn(i32, Pointer, i32) -> Pointer;
type Shmdt = unsafe extern "C" fn(Pointer) -> i32;

static MMAP: Lazy = Lazy::new(c"mmap");
static MMAP64: Lazy = Lazy::new(c"mmap64");
static MUNMAP: Lazy = Lazy::new(c"munmap");
static MREMAP: Lazy = Lazy::new(c"mremap");
static SHMAT: Lazy = Lazy::new(c"shmat");
static SHMDT: Lazy = Lazy::new(c"shmdt");

/// The ring of the session; null: this domain is not recorded.
static RING: AtomicPtr<MappingSlot> = AtomicPtr::new(ptr::null_mut());

const FAILED: Pointer = ptr::without_provenance_mut(usize::MAX);
const PAGE: usize = 4096;

/// Looks up the functions while nobody can notice.
pub(crate) fn resolve() {
    [&MMAP, &MMAP64, &MUNMAP, &MREMAP, &SHMAT, &SHMDT].into_iter().for_each(|real| _ = real.get());
}

/// Makes the ring of a session known; null: this domain is not recorded.
pub(crate) fn set_ring(slots: *mut MappingSlot) {
    RING.store(slots, Ordering::Release);
}

/// The next definition of a function; null: there is none.
fn real(function: &Lazy) -> Pointer {
    lifecycle::start();
    function.get()
}

/// The session, if mappings are recorded.
#[derive(Clone, Copy)]
struct Noting {
    header: &'static Header,
    ring: MappingRing<'static>,
}

impl Noting {
    /// For a call that takes memory.
    fn of_taking() -> Option<Noting> {
        Noting::with(lifecycle::header)
    }

    /// For a call that gives memory back: a forked child that does nothing else is no child that took any.
    fn of_giving() -> Option<Noting> {
        Noting::with(lifecycle::header_unless_unrecorded_child)
    }

    fn with(header: fn() -> Option<&'static Header>) -> Option<Noting> {
        if RING.load(Ordering::Acquire).is_null() {
            return None;
        }
        let header = header()?;
        // A forked child may have another session by now, with a ring of its own.
        let slots = RING.load(Ordering::Acquire);
        if slots.is_null() {
            return None;
        }
        // SAFETY: the session holds `MAX_EVENTS` events and is mapped for the life of the process.
        let slots = unsafe { core::slice::from_raw_parts(slots, MAX_EVENTS) };
        Some(Noting {
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

    /// Notes a range that the program has from now on, with its site.
    ///
    /// # Safety
    /// `caller` and `fp` come from the entry stub.
    unsafe fn taken(&self, event: MappingEvent, caller: *const usize, fp: usize) {
        if !ptr::eq(lifecycle::session(), self.header) {
            return; // another session began during the real call
        }
        // SAFETY: as the caller says.
        let frame = unsafe { Frame::of_caller(caller, fp) };
        // SAFETY: the frame of the stub's caller, which is under way.
        let place = unsafe { sites::place(self.header, frame) };
        self.push(MappingEvent { site: place.site, direct: place.direct, ..event });
    }
}

fn event(operation: Operation, address: Pointer, length: usize, flags: u32) -> MappingEvent {
    MappingEvent { operation, flags, address: address as u64, length: length as u64, site: 0, direct: 0 }
}

/// mmap.
///
/// # Safety
/// Called by its entry stub only, like every hook here.
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
    // SAFETY: what the target passed, and its frame.
    unsafe { map(&MMAP, [address as usize, length], protection, flags, file, offset, caller, fp) }
}

/// mmap64. A libc without that name has one for both.
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
    // SAFETY: what the target passed, and its frame.
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
    // SAFETY: the type of mmap.
    let real: Mmap = unsafe { transmute(real) };
    // SAFETY: the target's own call.
    let mapped =
        unsafe { real(ptr::with_exposed_provenance_mut(address), length, protection, flags, file, offset) };
    if mapped != FAILED
        && let Some(noting) = Noting::of_taking()
    {
        // SAFETY: `caller` and `fp` come from the stub.
        unsafe { noting.taken(event(Operation::Map, mapped, length, flags as u32), caller, fp) };
    }
    mapped
}

/// munmap.
///
/// # Safety
/// See [`on_mmap`].
pub(crate) unsafe fn on_munmap(address: Pointer, length: usize) -> i32 {
    let real = real(&MUNMAP);
    if real.is_null() {
        return -1;
    }
    // SAFETY: the type of munmap.
    let real: Munmap = unsafe { transmute(real) };
    // The kernel refuses these, so there is nothing to note.
    let is_sound = (address as usize).is_multiple_of(PAGE) && length > 0;
    let noting = if is_sound { Noting::of_giving() } else { None };
    // Before the call: once the kernel has unmapped the range, another thread may be given it.
    let number = noting.and_then(|noting| noting.push(event(Operation::Unmap, address, length, 0)));
    // SAFETY: the target's own call.
    let status = unsafe { real(address, length) };
    if status != 0 {
        take_back(noting, number);
    }
    status
}

/// The call of an event has failed.
#[cold]
fn take_back(noting: Option<Noting>, number: Option<u32>) {
    if let (Some(noting), Some(number)) = (noting, number) {
        noting.push(event(Operation::Failed, ptr::null_mut(), 0, number));
    }
}

/// mremap. Its fifth argument is there only with some flags; whatever is in its place goes on.
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
    // SAFETY: the type of mremap.
    let real: Mremap = unsafe { transmute(real) };
    // With an old length of 0 a shared mapping gets a second range; like that with the flag, the first one stays.
    let stays = old_length == 0 || flags & MREMAP_DONTUNMAP != 0;
    let noting = Noting::of_taking();
    let number = match noting {
        Some(noting) if !stays => noting.push(event(Operation::Move, old, old_length, flags as u32)),
        _ => None,
    };
    // SAFETY: the target's own call.
    let moved = unsafe { real(old, old_length, new_length, flags, new) };
    if moved == FAILED {
        take_back(noting, number);
    } else if let Some(noting) = noting {
        let event = match number {
            Some(number) => event(Operation::Moved, moved, new_length, number),
            None => event(Operation::Map, moved, new_length, 0),
        };
        // SAFETY: `caller` and `fp` come from the stub.
        unsafe { noting.taken(event, caller, fp) };
    }
    moved
}

/// shmat.
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
    // SAFETY: the type of shmat.
    let real: Shmat = unsafe { transmute(real) };
    // SAFETY: the target's own call.
    let attached = unsafe { real(segment, address, flags) };
    if attached != FAILED
        && let Some(noting) = Noting::of_taking()
    {
        // Its size is not known here; the collector looks it up.
        let event = event(Operation::Attach, attached, segment as u32 as usize, flags as u32);
        // SAFETY: `caller` and `fp` come from the stub.
        unsafe { noting.taken(event, caller, fp) };
    }
    attached
}

/// shmdt.
///
/// # Safety
/// See [`on_mmap`].
pub(crate) unsafe fn on_shmdt(address: Pointer) -> i32 {
    let real = real(&SHMDT);
    if real.is_null() {
        return -1;
    }
    // SAFETY: the type of shmdt.
    let real: Shmdt = unsafe { transmute(real) };
    let noting = Noting::of_giving();
    let number = noting.and_then(|noting| noting.push(event(Operation::Detach, address, 0, 0)));
    // SAFETY: the target's own call.
    let status = unsafe { real(address) };
    if status != 0 {
        take_back(noting, number);
    }
    status
}
