//! Pools: adds an event for each object that a pool of the program hands out or takes back.
//!
//! The functions of edleak.h call [`on_pool`] from the pool's own function. Each event has two sites: the
//! place in the pool's function where it calls the function of edleak.h, and the place where the program
//! calls the pool's function. If the compiler inlines the pool's function, the first site lies in the
//! function that requests the object from the pool. The analyzer learns from the debug information that the
//! compiler inlined the pool's function.
//!
//! [`edleak_session::pool`] explains the ring. The hook takes no lock and does not wait. In each session, the
//! hook makes only one system call: after the first event, the hook wakes the collector.
#![allow(unsafe_code)]

use crate::cold::{given_name, phase, sites, sys};
use crate::hot::frame::Frame;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use edleak_session::header::Header;
use edleak_session::layout::{POOL_NAMES_AT, POOL_RING_AT, POOLS_AT};
use edleak_session::pool::{MAX_EVENTS, MAX_NAMES, NOTICED, Operation, PoolEvent, PoolRing};

/// The session whose ring gets the events; null: edleak does not record the domain `pool`.
static SESSION: AtomicPtr<Header> = AtomicPtr::new(ptr::null_mut());

/// Sets the session; null: edleak does not record the domain `pool`.
pub(crate) fn set_session(session: *mut Header) {
    SESSION.store(session, Ordering::Release);
}

/// The session of this process and its ring; `None`: edleak does not record the domain `pool` in this
/// process.
fn ring() -> Option<(&'static Header, PoolRing<'static>)> {
    if SESSION.load(Ordering::Acquire).is_null() {
        return None;
    }
    // If edleak records this forked child, `header_unless_unrecorded_child` gives the child its own
    // session. If the child is not recorded, the pool's hook does not count the child as a child that uses
    // memory. If the child uses memory, it also calls malloc, and malloc's hook counts the child.
    let header = phase::header_unless_unrecorded_child()?;
    let session = SESSION.load(Ordering::Acquire).cast::<u8>();
    if session.is_null() {
        return None;
    }
    let at = |offset: usize| session.wrapping_add(offset);
    // SAFETY: the session has the state of the ring at this offset, and the session is mapped for the life of
    // the process.
    let state = unsafe { &*at(POOLS_AT).cast() };
    // SAFETY: the session holds `MAX_NAMES` names.
    let names = unsafe { core::slice::from_raw_parts(at(POOL_NAMES_AT).cast(), MAX_NAMES) };
    // SAFETY: the session holds `MAX_EVENTS` events.
    let slots = unsafe { core::slice::from_raw_parts(at(POOL_RING_AT).cast(), MAX_EVENTS) };
    Some((header, PoolRing { state, names, slots }))
}

/// The hook of `edleak_note_pool`. `caller` is the return address of the function that contains the call, or
/// 0 if the program does not know this address. The return address of the hook's own caller lies at `frame`.
///
/// # Safety
/// `frame` and `fp` come from the entry stub. For [`Operation::Name`], `address` is the address of a C
/// string.
pub(crate) unsafe extern "C" fn on_pool(
    operation: u32,
    pool: usize,
    address: usize,
    size: usize,
    caller: usize,
    frame: *const usize,
    fp: usize,
) {
    phase::start();
    let operation = Operation::of(operation as u8).filter(|&operation| operation != Operation::Mark);
    let Some(operation) = operation else { return };
    let Some((header, ring)) = ring() else { return };
    let (direct, caller) = match operation.has_site() {
        // SAFETY: the caller guarantees that `frame` and `fp` come from the entry stub.
        true => unsafe { sites_of(header, caller, frame, fp) },
        false => (0, 0),
    };
    let address = match operation {
        // SAFETY: the caller guarantees the address of a C string.
        Operation::Name => match unsafe { name(&ring, address) } {
            Some(index) => index,
            None => return ring.lose(operation),
        },
        _ => address,
    };
    let event = PoolEvent {
        operation,
        pool: pool as u64,
        address: address as u64,
        size: size as u64,
        direct: direct as u16,
        caller: caller as u16,
    };
    if !ring.push(event) {
        ring.lose(operation);
    }
    if ring.state.noticed.0.load(Ordering::Relaxed) == 0 {
        wake(&ring);
    }
}

/// Adds an event for a slice that a mark takes. `slice` is the position of the slice in the ring of marks.
/// If the ring of pool events is full, no event is added, and the collector completes this slice with the
/// counters of pools from an older mark.
#[cold]
pub(crate) fn note_mark(slice: u64) {
    if let Some((_, ring)) = ring() {
        let mark =
            PoolEvent { operation: Operation::Mark, pool: 0, address: slice, size: 0, direct: 0, caller: 0 };
        ring.push(mark);
    }
}

#[cold]
fn wake(ring: &PoolRing<'_>) {
    let noticed = &ring.state.noticed.0;
    if noticed.compare_exchange(0, NOTICED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        sys::wake(noticed);
    }
}

/// The site of the call in the pool's function, and the site of the function that called the pool's function;
/// 0: unknown.
///
/// # Safety
/// `frame` and `fp` come from the entry stub.
#[inline(always)]
unsafe fn sites_of(header: &Header, caller: usize, frame: *const usize, fp: usize) -> (u32, u32) {
    if caller == 0 {
        // SAFETY: the caller guarantees that `frame` and `fp` come from the entry stub.
        return unsafe { stepped(header, frame, fp) };
    }
    // SAFETY: the return address lies at `frame`.
    let direct = unsafe { *frame };
    (sites::id_of(header, direct), sites::id_of(header, caller))
}

/// The two sites of an event, if the program did not pass the return address of the pool's function. The
/// collector compiles a rule for the pool's function, and with this rule the library finds the caller.
///
/// # Safety
/// `frame` and `fp` come from the entry stub.
#[cold]
unsafe fn stepped(header: &Header, frame: *const usize, fp: usize) -> (u32, u32) {
    // SAFETY: the caller guarantees that `frame` and `fp` come from the entry stub.
    let frame = unsafe { Frame::of_caller(frame, fp) };
    // SAFETY: the frame of the stub's caller exists until the stub returns.
    let place = unsafe { sites::place(header, frame) };
    (place.direct, if place.site == place.direct { 0 } else { place.site })
}

/// The index of a name in the session; `None`: the name is null, or the session has no room for another name.
///
/// # Safety
/// `name` is null or the address of a C string.
#[cold]
unsafe fn name(ring: &PoolRing<'_>, name: usize) -> Option<usize> {
    let name: *const u8 = ptr::with_exposed_provenance(name);
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller guarantees the address of a C string.
    ring.name(unsafe { given_name::read(name) })
}
