//! COLD: finds the site of a return address, skips the frames of wrappers, and fills the caller cache.
#![allow(unsafe_code)]

use crate::cold::{module_table, symbols};
use crate::hot::frame::Frame;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use edleak_session::caller::{self, CALLERS, Caller};
use edleak_session::header::{Header, READY};
use edleak_session::layout::{INFOS_AT, SLOTS_AT, WRAPPERS_AT};
use edleak_session::site::{Action, MAX_SITES, OTHER, SLOTS, SiteInfo, SiteSlot, copy_into, find, intern};
use edleak_session::wrapper::{self, MAX_RANGES, WrapperRange};

static TABLE: AtomicPtr<SiteSlot> = AtomicPtr::new(ptr::null_mut());
static INFOS: AtomicPtr<SiteInfo> = AtomicPtr::new(ptr::null_mut());
/// The words of the caller cache ([`caller`]). `set_tables` stores the address of the caller cache together
/// with the addresses of all other tables.
pub(crate) static CALLER_CACHE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
static WRAPPERS: AtomicPtr<WrapperRange> = AtomicPtr::new(ptr::null_mut());
/// In a forked child: the session of the nearest ancestor whose rules the collector has published. The
/// child uses the rules in this session until the collector has published the child's own rules.
static PARENT: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// Makes this process use the rules of the session at `parents`, until the collector has published the rules
/// of this process.
///
/// # Safety
/// A session must be mapped at `parents` for the life of the process.
pub(crate) unsafe fn ask_parent(parents: *mut u8) {
    // SAFETY: a session begins with its header.
    let ready = &unsafe { &*parents.cast::<Header>() }.ready;
    // While `ready` in the parent's session is 0, the collector may still decide to publish no rules in
    // this session. So until `ready` is set, this code treats the parent as a process without rules.
    let has_none = ready.load(Ordering::Acquire) != READY;
    // The session of the parent's parent is still mapped in a forked child.
    if !has_none || PARENT.load(Ordering::Relaxed).is_null() {
        PARENT.store(parents, Ordering::Relaxed);
    }
}

/// Makes this process use only the unwind rules in its own session, and no longer the rules in its parent's
/// session.
pub(crate) fn forget_parent() {
    PARENT.store(ptr::null_mut(), Ordering::Relaxed);
}

/// The return address of the call in `edleak_call_new`. The real operator new that `edleak_call_new` calls
/// may request memory for the exception that it throws. 0: the return address is not known yet.
static OWN_CALL: AtomicUsize = AtomicUsize::new(0);

/// Stores the return address of the call in `edleak_call_new`.
pub(crate) fn set_own_call(address: usize) {
    OWN_CALL.store(address, Ordering::Relaxed);
}

fn is_own_call(address: usize) -> bool {
    address == OWN_CALL.load(Ordering::Relaxed)
}

/// Stores the addresses of the tables of a session. The library calls `set_tables` before any thread counts
/// in this session.
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

/// Copies the site or the rule of an address from the site table into the caller cache.
fn publish(address: usize, slot: &SiteSlot) {
    // If the cache's word at the index of this caller belongs to another caller, this word usually stays.
    // If a new caller always replaced the word and two callers with one index took turns, each call of
    // these two callers would take the slow path. In every 16th such case, the word of the new caller
    // replaces the old word, so that the word of a caller that no longer allocates disappears.
    static RIVALS: AtomicU32 = AtomicU32::new(0);
    let takes_over = || {
        let rivals = RIVALS.load(Ordering::Relaxed).wrapping_add(1);
        RIVALS.store(rivals, Ordering::Relaxed); // a lost update does not matter
        rivals.is_multiple_of(16)
    };
    caller::publish(caller_cache(), address as u64, slot, takes_over);
}

fn caller_cache() -> &'static [AtomicU64] {
    // SAFETY: the session holds `CALLERS` entries, and it is mapped for the life of the process.
    unsafe { core::slice::from_raw_parts(CALLER_CACHE.load(Ordering::Relaxed), CALLERS) }
}

/// The site of an allocation, and the stack frame that belongs to the site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The id of the site.
    pub site: u32,
    /// The hook's task in addition to counting: none (`COUNT`), walking the stack (`WATCH`), or noticing
    /// loaded modules (`LOADER`).
    pub action: Action,
    /// The stack frame of the function that contains the site.
    pub frame: Frame,
    /// The site ID of the direct caller, which may be a wrapper.
    pub direct: u32,
}

/// Maximum number of callers that the library examines for one allocation. If all examined callers are
/// wrappers, the last examined caller is the site. 64 callers are enough for an unoptimized program with
/// nested generics. The maximum also ends the search in a wrapper that calls itself recursively.
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
    // SAFETY: the caller guarantees that `frame` belongs to the caller of a running entry point.
    let thread_creator = unsafe { thread_creator(header, frame) };
    frame = thread_creator.unwrap_or(frame);
    let mut place = Place { site: OTHER, action: Action::COUNT, frame, direct: 0 };
    for _ in 0..MAX_CALLERS {
        let address = frame.address;
        let Some(slot) = intern(slots, infos, &header.next_site, address as u64, || {
            (module_table::events_up_to(header, address), first_action(header, address))
        }) else {
            bump(&header.other_site_allocs);
            return Place { site: OTHER, action: Action::COUNT, frame, ..place };
        };
        if !is_own_call(address) {
            publish(address, slot);
        }
        let (id, action) = slot.id_and_action();
        let direct = if place.direct == 0 { id } else { place.direct };
        place = Place { site: if id == 0 { OTHER } else { id }, action, frame, direct };
        let Some(rule) = place.action.as_step() else {
            if thread_creator.is_some() {
                note_thread_start(header, place.site);
            }
            return place;
        };
        // SAFETY: the collector compiled the rule for exactly this address.
        let caller = unsafe { frame.caller(rule) };
        if caller.address == 0 || caller.sp <= frame.sp || is_own_call(caller.address) {
            // The wrapper itself is the site in three cases: the wrapper is the outermost frame; or the
            // unwind rule gives a caller's frame that is not higher on the stack; or a real operator new
            // that edleak calls allocates an exception.
            break;
        }
        frame = caller;
    }
    place.action = Action::COUNT;
    place
}

/// The id of the site at an address. If the address lies in a wrapper, the function does not search for the
/// wrapper's caller.
#[inline]
pub(crate) fn id_of(header: &Header, address: usize) -> u32 {
    let word =
        caller_cache().get(caller::place(address as u64)).map_or(0, |word| word.load(Ordering::Relaxed));
    match Caller::by(word, address as u64).site() {
        Some(site) => site.id(),
        None => id_of_slow(header, address),
    }
}

#[cold]
fn id_of_slow(header: &Header, address: usize) -> u32 {
    // SAFETY: an attached session has its tables set, with `SLOTS` slots.
    let slots = unsafe { core::slice::from_raw_parts(TABLE.load(Ordering::Acquire), SLOTS) };
    // SAFETY: the attached session holds `MAX_SITES` infos.
    let infos = unsafe { core::slice::from_raw_parts(INFOS.load(Ordering::Relaxed), MAX_SITES) };
    let Some(slot) = intern(slots, infos, &header.next_site, address as u64, || {
        (module_table::events_up_to(header, address), first_action(header, address))
    }) else {
        bump(&header.other_site_allocs);
        return OTHER;
    };
    publish(address, slot);
    match slot.id() {
        0 => OTHER,
        id => id,
    }
}

/// The action at a site that the library sees for the first time.
fn first_action(header: &Header, address: usize) -> Action {
    if module_table::is_loader(address) {
        return Action::LOADER;
    }
    let otherwise = if header.watch_all.load(Ordering::Relaxed) != 0 { Action::WATCH } else { Action::COUNT };
    published_action(header, address).unwrap_or(otherwise)
}

/// The action (count, watch, or skip a wrapper's frame) that the collector has published for an address;
/// `None`: the collector has published no action for this address.
fn published_action(header: &Header, address: usize) -> Option<Action> {
    let parents = PARENT.load(Ordering::Relaxed);
    let (header, ranges) = if header.ready.load(Ordering::Acquire) != READY && !parents.is_null() {
        // SAFETY: a session begins with its header, and the parent's session stays mapped in a forked child.
        (unsafe { &*parents.cast::<Header>() }, parents.wrapping_add(WRAPPERS_AT).cast())
    } else {
        (header, WRAPPERS.load(Ordering::Relaxed))
    };
    let count = header.wrapper_ranges.load(Ordering::Acquire) as usize;
    // SAFETY: the session holds `MAX_RANGES` ranges.
    let ranges = unsafe { core::slice::from_raw_parts(ranges, count.min(MAX_RANGES)) };
    // If the collector has replaced the table during the search, the search may have returned a wrong
    // action. If the table has changed, this function returns `None`; the collector later corrects the
    // action, because it checks the action of every new site.
    wrapper::find(ranges, address as u64)
        .filter(|_| header.wrapper_ranges.load(Ordering::Acquire) as usize == count)
}

/// The frame of `pthread_create`, if `pthread_create` has called the loader to allocate the thread-local
/// storage of a new thread. An allocation of thread-local storage counts at the site that calls
/// `pthread_create`.
///
/// # Safety
/// `frame` is the frame of the caller of a running entry point.
unsafe fn thread_creator(header: &Header, mut frame: Frame) -> Option<Frame> {
    /// Maximum number of the loader's frames that the function examines. In glibc, the loader has two frames
    /// on the stack: `allocate_dtv` and `_dl_allocate_tls`.
    const MOST_FRAMES: usize = 4;
    for _ in 0..MOST_FRAMES {
        if !module_table::is_loader(frame.address) {
            break;
        }
        let rule = published_action(header, frame.address)?.as_step()?;
        // SAFETY: the collector compiled the rule for exactly this address.
        let caller = unsafe { frame.caller(rule) };
        if caller.sp <= frame.sp {
            return None;
        }
        frame = caller;
        if symbols::is_in_pthread_create(frame.address) {
            return Some(frame);
        }
    }
    None
}

/// Stores the id of a site that is a call of `pthread_create`. The session stores the ids of only the first
/// 32 sites that call `pthread_create`.
fn note_thread_start(header: &Header, site: u32) {
    if site == OTHER {
        return;
    }
    for noted in &header.thread_starts {
        match noted.compare_exchange(0, site, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(one) if one == site => return,
            Err(_) => {}
        }
    }
}

/// Forgets every site with a return address in `start..end`, because another module is loaded at these
/// addresses now. The new module must not get the counts of the old module. The collector still reports the
/// counts of the forgotten sites. If the old module is loaded again, its sites get their old ids again.
pub(crate) fn forget(header: &Header, start: usize, end: usize) {
    // SAFETY: an attached session has its tables set, with `SLOTS` slots.
    let slots = unsafe { core::slice::from_raw_parts(TABLE.load(Ordering::Acquire), SLOTS) };
    // SAFETY: the attached session holds `MAX_SITES` infos.
    let infos = unsafe { core::slice::from_raw_parts(INFOS.load(Ordering::Relaxed), MAX_SITES) };
    for (_, address) in addresses(infos, header.next_site.load(Ordering::Acquire)) {
        if address as usize > start
            && address as usize <= end
            && let Some(slot) = find(slots, address)
        {
            slot.forget();
            caller::withdraw(caller_cache(), address);
        }
    }
}

/// The id and the address of each site that the target has met. The function reads the site infos, which
/// are in the order of the site ids. It does not read the slots of the site table, because most slots are
/// empty: reading an untouched slot makes the kernel allocate the memory page of this slot.
fn addresses(infos: &[SiteInfo], next_site: u32) -> impl Iterator<Item = (usize, u64)> {
    let met = infos.get(..(next_site as usize).min(infos.len())).unwrap_or_default();
    let addresses = met.iter().map(|info| info.address.load(Ordering::Acquire)).enumerate();
    addresses.filter(|&(_, address)| address != 0)
}

/// Copies all sites whose id is less than `next_site` from the parent's session into the session of its
/// forked child. So the site ids in the side table, which the child inherits, stay valid in the child.
///
/// # Safety
/// A session must be mapped at `parents` and at `own`.
pub(crate) unsafe fn inherit(parents: *const u8, own: *const u8, next_site: u32) {
    // SAFETY: the caller guarantees the sessions; each session holds `SLOTS` slots, and all data in a session
    // is atomic.
    let from =
        unsafe { core::slice::from_raw_parts(parents.wrapping_add(SLOTS_AT).cast::<SiteSlot>(), SLOTS) };
    // SAFETY: the child's session holds `SLOTS` slots, which are atomic.
    let to = unsafe { core::slice::from_raw_parts(own.wrapping_add(SLOTS_AT).cast::<SiteSlot>(), SLOTS) };
    let infos_at = |base: *const u8| base.wrapping_add(INFOS_AT).cast::<SiteInfo>();
    // SAFETY: the parent's session holds `MAX_SITES` infos, which are atomic.
    let infos = unsafe { core::slice::from_raw_parts(infos_at(parents), MAX_SITES) };
    // SAFETY: the child's session holds `MAX_SITES` infos, which are atomic.
    let own_infos = unsafe { core::slice::from_raw_parts(infos_at(own), MAX_SITES) };
    for (id, address) in addresses(infos, next_site) {
        if let (Some(slot), Some(info)) = (find(from, address), own_infos.get(id)) {
            copy_into(to, address, slot.meaning.load(Ordering::Acquire));
            info.address.store(address, Ordering::Relaxed);
        }
    }
}

/// Adds one to a counter of events that could not be recorded.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
