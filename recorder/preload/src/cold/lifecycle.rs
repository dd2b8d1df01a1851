//! COLD: a state machine for the start of the library, for forks and for execs. This file also attaches the
//! process to a session.
//!
//! ```text
//!            first entry point                     real functions known,
//!            or constructor                        session attached
//!   ( New ) ───────────────────▶ ( Starting ) ───────────────────────────▶ ( Counting )
//!                                     │                                        │  the page that fork wipes
//!                                     │ no session for this process            ▼  is found wiped
//!                                     └────────────────────────────────▶ ( Off ) ◀── unrecorded forked child
//! ```
//!
//! A collector may ask for a recording of a process whose phase is Off, and may end the recording of a
//! process whose phase is Counting ([`idle`]).
//!
//! An exec starts a new image, which begins in the phase New and claims its own session. vfork, and clone
//! with shared memory, change no phase: the child shares the parent's state until the child executes a
//! program. All code in this file, with its system calls, runs before the first call of an entry point
//! returns. Before the first call returns, the process usually has only one thread.
#![allow(unsafe_code)]

use crate::cold::claim::{self, CHILDREN, Claim, own_number};
use crate::cold::environment::{Environment, stack_start};
use crate::cold::path::Path;
use crate::cold::{detached, detours, idle, module_table, modules, only, real, sites, slow, sys, thread_id};
use crate::entry::{forward, mapping, pool};
use crate::hot::tables::{self, TABLES};
use crate::hot::{free, live, thread, walk};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use edleak_session::control;
use edleak_session::header::{ATTACHED, Header};
use edleak_session::idle::{BEGINNING, COUNTING, ENDING, NEW, STARTING, WAKE};
use edleak_session::layout::{
    BOUNDS_AT, CALLERS_AT, CELLS_AT, COUNTERS_AT, DETOUR_CODE_AT, DETOUR_MODULES_AT, DETOUR_PATCHES_AT,
    EVENTS_AT, FRAMES_AT, INFOS_AT, MAPPINGS_AT, MAPS_AT, MAPS_BYTES, MAX_SHARDS, ROWS_AT, SHARDS_AT,
    SLOTS_AT, STACK_SLOTS_AT, STACKS_AT, TABLES_AT, WRAPPERS_AT, total_bytes,
};
use edleak_session::{ENV_IDLE, ENV_SESSION};

/// The phase in which the library counts nothing in this process.
pub(crate) const OFF: u32 = edleak_session::idle::OFF;
/// The phase of this process. Entry stubs compare the phase with [`OFF`].
pub(crate) static PHASE: AtomicU32 = AtomicU32::new(NEW);
static HEADER: AtomicPtr<Header> = AtomicPtr::new(ptr::null_mut());
/// Size in bytes of the mapping at [`HEADER`].
static SESSION_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The session that is attached or was attached last; null: this process never had a session.
pub(crate) fn session() -> *mut Header {
    HEADER.load(Ordering::Relaxed)
}

/// Whether a session belongs to this process. In a forked child, the session of the parent is also mapped.
pub(super) fn is_of_this_process(session: *mut Header) -> bool {
    // SAFETY: the session is mapped, and the first page of a session keeps its content.
    !session.is_null() && unsafe { &*session }.pid.load(Ordering::Relaxed) == own_number()
}

/// Size in bytes of the mapping of [`session`].
pub(super) fn session_bytes() -> usize {
    SESSION_BYTES.load(Ordering::Relaxed)
}

/// Starts the preload library once. If another thread is already starting the library, `start` returns
/// immediately, and the library does not count the allocation of the calling thread.
#[inline]
pub(crate) fn start() {
    if PHASE.load(Ordering::Relaxed) == NEW {
        start_slow();
    }
}

#[cold]
fn start_slow() {
    if PHASE.compare_exchange(NEW, STARTING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    let found = real::resolve();
    forward::resolve();
    mapping::resolve();
    let environment = Environment::of_process();
    if let Some(found) = &found {
        found.install();
    }
    let is_secure = environment.is_secure();
    let is_countable = found.as_ref().is_some_and(real::Resolved::is_countable) && !is_secure;
    let waits = environment.get(ENV_IDLE.as_bytes()).is_some_and(is_set);
    idle::describe(is_countable, waits);
    if waits {
        thread_id::offset(); // store the offset now: another thread may begin the recording
    }
    let may_start = !waits && !is_secure;
    let counting = may_start && found.is_some_and(|found| start_counting(&found, &environment));
    if !counting {
        free::forward();
    }
    PHASE.store(if counting { COUNTING } else { OFF }, Ordering::Release);
}

/// Whether an environment variable has a value other than the empty text and `0`.
fn is_set(value: *const u8) -> bool {
    // SAFETY: the value of an environment variable ends in NUL, and no byte after the NUL is read.
    let byte = |index: usize| unsafe { value.wrapping_add(index).read() };
    byte(0) != 0 && (byte(0) != b'0' || byte(1) != 0)
}

/// Attaches to a session if the library can count allocations. If the program has its own allocator, calls of
/// this allocator do not reach the library, and the library counts these calls only through detours.
fn start_counting(found: &real::Resolved, environment: &Environment) -> bool {
    if found.is_countable() {
        return attach(environment);
    }
    let counts =
        found.is_in_program(environment.program_headers()) && attach(environment) && detours::are_in_place();
    if counts {
        found.install_behind_program();
    }
    counts
}

/// Whether this process counts nothing now. In a process that is not recorded, edleak adds only the test of
/// the phase to each call of an entry point.
#[inline(always)]
pub(crate) fn is_off() -> bool {
    PHASE.load(Ordering::Relaxed) == OFF
}

/// The header of the attached session; `None`: the library counts nothing in this process.
#[inline]
pub(crate) fn header() -> Option<&'static Header> {
    let phase = PHASE.load(Ordering::Acquire);
    if phase != COUNTING {
        return uncounted(phase);
    }
    if TABLES.page.alive.load(Ordering::Relaxed) == 0 {
        return forked();
    }
    // SAFETY: the library sets the pointer before it sets the phase, and the session stays mapped for the
    // life of the process.
    Some(unsafe { &*HEADER.load(Ordering::Relaxed) })
}

/// Handles the call of an entry point in a process that does not count. Begins a recording if a collector has
/// asked for a recording.
#[cold]
fn uncounted(phase: u32) -> Option<&'static Header> {
    let page = &TABLES.page;
    if phase == BEGINNING && page.alive.load(Ordering::Relaxed) == 0 {
        // This is a forked child, and the thread that was beginning the recording exists only in the parent.
        PHASE.store(OFF, Ordering::Relaxed);
    }
    if phase == ENDING {
        free::forward();
        // If a collector has already asked for the next recording, the phase is no longer `ENDING`. The
        // compare-and-exchange then fails, and the phase keeps the value that the collector wrote.
        let _ = PHASE.compare_exchange(ENDING, OFF, Ordering::AcqRel, Ordering::Relaxed);
    }
    if phase != WAKE {
        return None;
    }
    // From here on, the kernel sets the page of counters to 0 in a forked child, so the child notices that it
    // is a child.
    if !sys::wipe_on_fork((&raw const *page).cast(), size_of::<tables::Page>()) {
        PHASE.store(OFF, Ordering::Relaxed);
        return None;
    }
    page.alive.store(1, Ordering::Release);
    PHASE.compare_exchange(WAKE, BEGINNING, Ordering::AcqRel, Ordering::Relaxed).ok()?;
    free::hook();
    let begun = idle::IDLE.is_countable.load(Ordering::Relaxed) != 0 && idle::begin();
    let phase = if begun { COUNTING } else { OFF };
    // If the phase is no longer Beginning, the collector has withdrawn its request for a recording.
    let is_wanted = PHASE.compare_exchange(BEGINNING, phase, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let counts = begun && is_wanted;
    if !counts {
        free::forward();
    }
    // SAFETY: the library sets the pointer before it sets the phase, and the session stays mapped for the
    // life of the process.
    counts.then(|| unsafe { &*HEADER.load(Ordering::Relaxed) })
}

/// Works as [`header`], but for calls that only unmap memory. In a forked child that is not recorded, a call
/// that only unmaps memory does not count as use of memory.
pub(crate) fn header_unless_unrecorded_child() -> Option<&'static Header> {
    let is_child =
        PHASE.load(Ordering::Acquire) == COUNTING && TABLES.page.alive.load(Ordering::Relaxed) == 0;
    if is_child && CHILDREN.path().is_none() { None } else { header() }
}

/// Handles the first call of an entry point in a forked child. Until the child has its own session,
/// `HEADER` still points to the parent's session. If edleak records children, the child claims its own
/// session. If edleak does not record children, the library turns itself off in the child.
#[cold]
fn forked() -> Option<&'static Header> {
    let Some(path) = CHILDREN.path() else {
        free::forward();
        PHASE.store(OFF, Ordering::Relaxed);
        // SAFETY: the parent's session is still mapped here.
        unsafe { &*HEADER.load(Ordering::Relaxed) }.has_forked.store(1, Ordering::Relaxed);
        return None;
    };
    PHASE.store(STARTING, Ordering::Relaxed);
    let parents = HEADER.load(Ordering::Relaxed).cast::<u8>();
    let parents_stacks = walk::Tables::in_use();
    // SAFETY: fork has copied only this thread, and no other reference to its state exists. The child resets
    // the state, because the shard of this thread belongs to the parent.
    *unsafe { thread::tls() } = thread::Tls::new();
    let claimed = claim::claim(path);
    if matches!(claimed, Claim::Unreachable) {
        // SAFETY: the parent's session is still mapped here.
        unsafe { &*parents.cast::<Header>() }.lost_children.fetch_add(1, Ordering::Relaxed);
    }
    let own = claimed.session().is_some_and(|base| {
        // SAFETY: the parent's session is still mapped here.
        let parent = unsafe { &*parents.cast::<Header>() };
        let next = parent.next_site.load(Ordering::Acquire);
        // SAFETY: the parent's session and the child's session (`base`) are both mapped here.
        unsafe { sites::inherit(parents, base, next) };
        // SAFETY: the parent's session stays mapped in this process.
        unsafe { sites::ask_parent(parents) };
        module_table::begin_child();
        let published = publish(base, &Environment::known(), Some(parent), |header| {
            header.next_site.store(next, Ordering::Relaxed);
            header.parent.store(parent.serial.load(Ordering::Relaxed), Ordering::Relaxed);
            // The allocations of the parent also exist in the child, and the child will free them.
            // SAFETY: the parent's session is still mapped here, with its stacks.
            unsafe { slow::inherit(header, &parents_stacks) };
        });
        thread::open();
        published
    });
    PHASE.store(if own { COUNTING } else { OFF }, Ordering::Relaxed);
    // SAFETY: the library sets the pointer before it sets the phase, and the session stays mapped for the
    // life of the process.
    own.then(|| unsafe { &*HEADER.load(Ordering::Relaxed) })
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

// Starts the preload library, so that edleak also records a program whose first allocation comes after its
// constructors, or that never allocates.
#[cfg(not(test))]
extern "C" fn constructor() {
    if PHASE.load(Ordering::Relaxed) == NEW && real::is_late() {
        start_late();
    } else {
        start();
    }
}

/// Starts a library that a collector has loaded into a running process. A library that is loaded into a
/// running process waits for a recording, and counts only through the detours that the collector writes.
#[cfg_attr(test, allow(dead_code))] // the test build has no constructor
#[cold]
fn start_late() {
    if PHASE.compare_exchange(NEW, STARTING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    let malloc = real::resolve_late();
    let is_secure = Environment::of_process().is_secure();
    free::forward();
    thread_id::learn_late();
    idle::describe_late(!is_secure, malloc);
    PHASE.store(OFF, Ordering::Release);
}

/// Finds and maps the session for this process, and stores the addresses of its tables. `false`: this process
/// gets no session.
fn attach(environment: &Environment) -> bool {
    if !only::is_wanted(environment) {
        return false;
    }
    let mut path = Path::new();
    let found = match environment.get(ENV_SESSION.as_bytes()) {
        Some(value) => path.push_c(value),
        None => detached::start(environment, &mut path),
    };
    if !found {
        return false;
    }
    let Some(base) = claim::claim(&path).session() else { return false };
    let published = publish(base, environment, None, |_| {});
    thread::open();
    published
}

/// Stores the addresses of the tables of a claimed session, and waits briefly for the rules of this
/// session. `parent` is the session of the process that forked this process. The function calls `prepare`
/// just before it sets the state of the session to `ATTACHED`, which shows the session to the collector.
/// `false`: the kernel cannot set a page to 0 in a forked child, so the library could not distinguish a
/// child from its parent. All threads take the slow path until a call of [`thread::open`].
pub(super) fn publish(
    base: *mut u8,
    environment: &Environment,
    parent: Option<&Header>,
    prepare: impl FnOnce(&Header),
) -> bool {
    // SAFETY: a session begins with its header.
    let header = unsafe { &*base.cast::<Header>() };
    let shards = (header.shards.load(Ordering::Relaxed) as usize).clamp(1, MAX_SHARDS);
    if parent.is_none() {
        // A forked child inherits the settings that `keep_small` and `wipe_on_fork` made in the parent.
        live::keep_small();
        if !sys::wipe_on_fork((&raw const TABLES.page).cast(), size_of::<tables::Page>()) {
            return false; // a kernel before 4.14 does not wipe pages in a forked child
        }
    }
    let tid_offset = thread_id::offset();
    header.pid.store(own_number(), Ordering::Relaxed);
    header.stack_start.store(stack_start() as u64, Ordering::Relaxed);
    header.tids_known.store(u32::from(tid_offset != 0), Ordering::Relaxed);
    // SAFETY: every offset that is passed to `at` lies inside the session.
    let at = |offset: usize| unsafe { base.add(offset) };
    let shared_code = parent.and_then(shared_code);
    match shared_code {
        Some(events) => header.parent_events.store(events, Ordering::Relaxed),
        None => copy_maps(header, at(MAPS_AT)),
    }
    // musl's loader is also libc and never unloads a module, so with musl, the range of the loader stays
    // empty.
    if real::has_glibcs_loader()
        && let Some((start, end)) = environment.loader()
    {
        modules::set_loader(start, end, at(EVENTS_AT).cast());
    }
    sites::set_tables(
        at(SLOTS_AT).cast(),
        at(INFOS_AT).cast(),
        at(CALLERS_AT).cast(),
        at(WRAPPERS_AT).cast(),
    );
    thread::set_shards(at(SHARDS_AT).cast(), at(COUNTERS_AT).cast(), shards, tid_offset);
    let tables = walk::Tables {
        slots: at(STACK_SLOTS_AT).cast(),
        infos: at(STACKS_AT).cast(),
        frames: at(FRAMES_AT).cast(),
        cells: at(CELLS_AT).cast(),
        tables: at(TABLES_AT).cast(),
        rows: at(ROWS_AT).cast(),
        bounds: at(BOUNDS_AT).cast(),
    };
    walk::set_tables(&tables, environment.address());
    let records_mappings = claim::is_recorded(control::DOMAIN_MAPPING);
    mapping::set_ring(if records_mappings { at(MAPPINGS_AT).cast() } else { ptr::null_mut() });
    let records_pools = claim::is_recorded(control::DOMAIN_POOL);
    pool::set_session(if records_pools { base.cast() } else { ptr::null_mut() });
    HEADER.store(base.cast(), Ordering::Relaxed);
    SESSION_BYTES.store(total_bytes(shards), Ordering::Relaxed);
    idle::IDLE.header.store(base as u64, Ordering::Relaxed);
    header.counts_itself.store(u32::from(real::IS_IN_PROGRAM), Ordering::Relaxed);
    header.has_detours.store(u32::from(detours::are_in_place()), Ordering::Relaxed);
    prepare(header);
    header.state.store(ATTACHED, Ordering::Release);
    sys::wake(&header.state);
    // Wake the collector only after the session is complete, so that the collector need not wait for this
    // process.
    claim::wake_collector();
    let needs_rules = shared_code.is_none() || claim::left_few_sessions();
    if header.ready.load(Ordering::Acquire) == 0 && needs_rules {
        // Wait only once and for a short time, while the collector compiles the rules of the modules in the
        // copied memory map.
        sys::wait(&header.ready, 0, header.rules_timeout_us.load(Ordering::Relaxed));
    }
    let is_ready = header.ready.load(Ordering::Acquire) != 0;
    // Only a process that is starting applies detours, because a running process may have several threads.
    // A forked child has the detours of its parent. If the parent has no detours, the child must not apply
    // detours: the child has inherited allocations, and no stub has enlarged these allocations to at least
    // 32 bytes.
    if is_ready && parent.is_none() && PHASE.load(Ordering::Relaxed) == STARTING {
        detours::apply(
            header,
            &detours::Regions {
                modules: at(DETOUR_MODULES_AT).cast(),
                patches: at(DETOUR_PATCHES_AT).cast(),
                code: at(DETOUR_CODE_AT).cast(),
            },
        );
    }
    header.detours_done.store(if is_ready { 1 } else { 2 }, Ordering::Release);
    TABLES.page.alive.store(1, Ordering::Release);
    true
}

/// The number of module events of `parent`, if the child can begin with the modules and rules of `parent`.
/// `None`: the collector has not read all module events of `parent`, or the child must walk stacks, for
/// which it needs the unwind tables of its own session. If this function returns `None`, the child waits
/// until the collector has published rules in the child's own session.
fn shared_code(parent: &Header) -> Option<u32> {
    let events = parent.events_written.load(Ordering::Acquire);
    let is_known = module_table::are_all_told()
        && parent.events_read.load(Ordering::Acquire) == events
        && parent.events_lost.load(Ordering::Relaxed) == 0
        && parent.ready.load(Ordering::Acquire) != 0
        && parent.rule_tables.load(Ordering::Relaxed) == 0
        && parent.watch_all.load(Ordering::Relaxed) == 0;
    is_known.then_some(events)
}

/// Copies the current memory map of the process into the session. So the collector knows every module that is
/// loaded now, even if the process ends soon.
fn copy_maps(header: &Header, to: *mut u8) {
    let Some(fd) = sys::open(b"/proc/self/maps\0", false) else { return };
    let mut used = 0;
    while used < MAPS_BYTES {
        // SAFETY: the region is `MAPS_BYTES` long.
        let rest = unsafe { core::slice::from_raw_parts_mut(to.wrapping_add(used), MAPS_BYTES - used) };
        match sys::read(fd, rest) {
            0 => break,
            read => used += read,
        }
    }
    sys::close(fd);
    header.maps_bytes.store(used as u32, Ordering::Release);
}
