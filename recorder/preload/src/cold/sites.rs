//! COLD: return address → site; stepping over wrappers; filling the caller cache.
#![allow(unsafe_code)]

use crate::cold::{lifecycle, modules};
use crate::entry::forward;
use crate::hot::frame::Frame;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use edleak_session::caller::{self, CALLERS};
use edleak_session::header::Header;
use edleak_session::layout::{INFOS_AT, SLOTS_AT};
use edleak_session::site::{Action, MAX_SITES, OTHER, SLOTS, SiteInfo, SiteSlot, intern};
use edleak_session::wrapper::{self, MAX_RANGES, WrapperRange};

static TABLE: AtomicPtr<SiteSlot> = AtomicPtr::new(ptr::null_mut());
static INFOS: AtomicPtr<SiteInfo> = AtomicPtr::new(ptr::null_mut());
/// See [`caller`]; set together with all other tables.
pub(crate) static CALLER_CACHE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
static WRAPPERS: AtomicPtr<WrapperRange> = AtomicPtr::new(ptr::null_mut());

/// Stores the tables of a session. Called once, before any thread counts.
pub(crate) fn set_tables(
    slots: *mut SiteSlot,
    infos: *mut SiteInfo,
    caller_cache: *mut AtomicU64,
    wrappers: *mut WrapperRange,
) {
    INFOS.store(infos, Ordering::Relaxed);
    CALLER_CACHE.store(caller_cache, Ordering::Relaxed);
    WRAPPERS.store(wrappers, Ordering::Relaxed);
    TABLE.store(slots, Ordering::Release);
}

/// Publishes the table's meaning of an address in the caller cache.
fn publish(address: usize, slot: &SiteSlot) {
    // A word of another caller at the same index mostly stays, so that two alternating callers do not both
    // come here each time. It is replaced sometimes, so that the word of an unused caller disappears.
    static RIVALS: AtomicU32 = AtomicU32::new(0);
    let takes_over = || {
        let rivals = RIVALS.load(Ordering::Relaxed).wrapping_add(1);
        RIVALS.store(rivals, Ordering::Relaxed); // one more or less does not matter
        rivals.is_multiple_of(16)
    };
    caller::publish(caller_cache(), address as u64, slot, takes_over);
}

fn caller_cache() -> &'static [AtomicU64] {
    // SAFETY: the session holds `CALLERS` entries, and it is mapped for the life of the process.
    unsafe { core::slice::from_raw_parts(CALLER_CACHE.load(Ordering::Relaxed), CALLERS) }
}

/// The site of an allocation, and the frame that belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The site's id.
    pub site: u32,
    /// The action besides counting: `COUNT`, `WATCH` or `LOADER`.
    pub action: Action,
    /// The frame of the site.
    pub frame: Frame,
}

/// Maximum number of callers to examine for one allocation. If all of them are wrappers, the last one is the
/// site. The limit is more than an unoptimized program with nested generics needs, and few enough for a
/// wrapper that recurses.
pub(crate) const MAX_CALLERS: usize = 64;

/// Finds the site of an allocation: the first caller that is not a wrapper.
///
/// # Safety
/// `frame` is the frame of the caller of a running entry point.
pub(crate) unsafe fn place(header: &Header, mut frame: Frame) -> Place {
    let slots = TABLE.load(Ordering::Acquire);
    // SAFETY: the session holds `SLOTS` slots, and it is mapped for the life of the process.
    let slots = unsafe { core::slice::from_raw_parts(slots, SLOTS) };
    // SAFETY: the session holds `MAX_SITES` infos.
    let infos = unsafe { core::slice::from_raw_parts(INFOS.load(Ordering::Relaxed), MAX_SITES) };
    let mut place = Place { site: OTHER, action: Action::COUNT, frame };
    for _ in 0..MAX_CALLERS {
        let address = frame.address;
        let Some(slot) = intern(slots, infos, &header.next_site, address as u64, || {
            (modules::events_up_to(header, address), first_action(header, address))
        }) else {
            bump(&header.other_site_allocs);
            return Place { site: OTHER, action: Action::COUNT, frame };
        };
        if !forward::is_ours(address) {
            publish(address, slot);
        }
        let (id, action) = slot.id_and_action();
        place = Place { site: if id == 0 { OTHER } else { id }, action, frame };
        let Some(rule) = place.action.as_step() else { return place };
        // SAFETY: the collector compiled the rule for exactly this address.
        let caller = unsafe { frame.caller(rule) };
        if caller.address == 0 || caller.sp <= frame.sp || forward::is_ours(caller.address) {
            // The wrapper itself is the site in three cases: it is the outermost frame, the rule leads
            // nowhere, or operator new allocates an exception in a call that is not counted.
            break;
        }
        frame = caller;
    }
    place.action = Action::COUNT;
    place
}

/// The action at a site that is seen for the first time.
fn first_action(header: &Header, address: usize) -> Action {
    if modules::is_loader(address) {
        return Action::LOADER;
    }
    let otherwise = if header.watch_all.load(Ordering::Relaxed) != 0 { Action::WATCH } else { Action::COUNT };
    let count = header.wrapper_ranges.load(Ordering::Acquire) as usize;
    // SAFETY: the session holds `MAX_RANGES` ranges.
    let ranges =
        unsafe { core::slice::from_raw_parts(WRAPPERS.load(Ordering::Relaxed), count.min(MAX_RANGES)) };
    match wrapper::find(ranges, address as u64) {
        // A table that was replaced meanwhile may have returned a wrong action. The collector checks every
        // new site anyway.
        Some(action) if header.wrapper_ranges.load(Ordering::Acquire) as usize == count => action,
        _ => otherwise,
    }
}

/// Forgets every site with a return address in `start..end`, because another module is there now. It must not
/// be blamed for allocations of the earlier module. The collector still reports the old ids; a module that
/// returns gets its ids again.
pub(crate) fn forget(start: usize, end: usize) {
    if lifecycle::header().is_none() {
        return;
    }
    // SAFETY: an attached session has its tables set.
    let slots = unsafe { core::slice::from_raw_parts(TABLE.load(Ordering::Acquire), SLOTS) };
    for slot in slots {
        let key = slot.key.load(Ordering::Relaxed) as usize;
        if key > start && key <= end {
            slot.forget();
            caller::withdraw(caller_cache(), key as u64);
        }
    }
}

/// Copies the site table of the parent's session into the session of its forked child, so that the ids in the
/// side table stay valid.
pub(crate) fn inherit(from: *const SiteSlot, to: *const SiteSlot) {
    let infos = INFOS.load(Ordering::Relaxed);
    let own_infos = to.cast::<u8>().wrapping_add(INFOS_AT - SLOTS_AT).cast::<SiteInfo>();
    // SAFETY: both sessions hold `SLOTS` slots and `MAX_SITES` infos, and everything in them is atomic.
    let from = unsafe { core::slice::from_raw_parts(from, SLOTS) };
    // SAFETY: as above.
    let to = unsafe { core::slice::from_raw_parts(to, SLOTS) };
    for (from, to) in from.iter().zip(to) {
        let key = from.key.load(Ordering::Acquire);
        if key != 0 {
            to.key.store(key, Ordering::Relaxed);
            to.meaning.store(from.meaning.load(Ordering::Acquire), Ordering::Relaxed);
        }
    }
    // SAFETY: as above.
    let infos = unsafe { core::slice::from_raw_parts(infos, MAX_SITES) };
    // SAFETY: as above.
    let own_infos = unsafe { core::slice::from_raw_parts(own_infos, MAX_SITES) };
    for (from, to) in infos.iter().zip(own_infos) {
        let address = from.address.load(Ordering::Acquire);
        if address != 0 {
            to.address.store(address, Ordering::Relaxed);
        }
    }
}

/// Adds one to a counter of failures.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
