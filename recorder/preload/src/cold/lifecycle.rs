//! COLD: a state machine for the start of the library, for forks and for execs. Other files call this file
//! through `phase`.
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
//! program. The code of this file, with its system calls, runs only when the phase changes. At the start, the
//! process usually has only one thread.
#![allow(unsafe_code)]

use crate::cold::claim::{self, CHILDREN, Claim};
use crate::cold::environment::Environment;
use crate::cold::identity::IDLE;
use crate::cold::path::Path;
use crate::cold::phase::{self, OFF, PHASE};
use crate::cold::{detached, detours, idle, module_table, only, publish, real, sites, slow, sys, thread_id};
use crate::entry::{aligned, mapping, operators};
use crate::hot::tables::{self, TABLES};
use crate::hot::{free, thread, walk};
use core::sync::atomic::Ordering;
use edleak_session::header::Header;
use edleak_session::idle::{BEGINNING, COUNTING, ENDING, NEW, STARTING, WAKE};
use edleak_session::{ENV_IDLE, ENV_SESSION};

/// Starts the library, unless another thread has begun to start it.
#[cold]
pub(crate) extern "C" fn start() {
    if PHASE.compare_exchange(NEW, STARTING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    let found = real::resolve();
    aligned::resolve();
    operators::resolve();
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

/// Handles the call of an entry point in a process that does not count. Begins a recording if a collector has
/// asked for a recording.
#[cold]
pub(crate) extern "C" fn uncounted(phase: u32) -> Option<&'static Header> {
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
    let begun = IDLE.is_countable.load(Ordering::Relaxed) != 0 && idle::begin();
    let phase = if begun { COUNTING } else { OFF };
    // If the phase is no longer Beginning, the collector has withdrawn its request for a recording.
    let is_wanted = PHASE.compare_exchange(BEGINNING, phase, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let counts = begun && is_wanted;
    if !counts {
        free::forward();
    }
    counts.then(phase::last_header).flatten()
}

/// Handles the first call of an entry point in a forked child. Until the child has its own session,
/// [`phase::session`] is still the parent's session. If edleak records children, the child claims its own
/// session. If edleak does not record children, the library turns itself off in the child.
#[cold]
pub(crate) extern "C" fn forked() -> Option<&'static Header> {
    let Some(path) = CHILDREN.path() else {
        free::forward();
        PHASE.store(OFF, Ordering::Relaxed);
        if let Some(parent) = phase::last_header() {
            parent.has_forked.store(1, Ordering::Relaxed);
        }
        return None;
    };
    PHASE.store(STARTING, Ordering::Relaxed);
    let parents = phase::session().cast::<u8>();
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
        let published = publish::session(base, &Environment::known(), Some(parent), |header| {
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
    own.then(phase::last_header).flatten()
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
    let published = publish::session(base, environment, None, |_| {});
    thread::open();
    published
}
