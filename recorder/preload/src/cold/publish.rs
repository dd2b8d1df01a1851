//! COLD: publishes a session that this process has claimed: stores the addresses of the tables of the
//! session, shows the session to the collector, and waits for the rules.
#![allow(unsafe_code)]

use crate::cold::claim::{self, own_number};
use crate::cold::environment::{Environment, stack_start};
use crate::cold::identity::IDLE;
use crate::cold::phase::{self, PHASE};
use crate::cold::{detours, module_table, modules, real, sites, sys, thread_id};
use crate::entry::{mapping, pool};
use crate::hot::tables::{self, TABLES};
use crate::hot::{live, thread, walk};
use core::ptr;
use core::sync::atomic::Ordering;
use edleak_session::control;
use edleak_session::header::{ATTACHED, Header};
use edleak_session::idle::STARTING;
use edleak_session::layout::{
    BOUNDS_AT, CALLERS_AT, CELLS_AT, COUNTERS_AT, DETOUR_CODE_AT, DETOUR_MODULES_AT, DETOUR_PATCHES_AT,
    EVENTS_AT, FRAMES_AT, INFOS_AT, MAPPINGS_AT, MAPS_AT, MAPS_BYTES, MAX_SHARDS, ROWS_AT, SHARDS_AT,
    SLOTS_AT, STACK_SLOTS_AT, STACKS_AT, TABLES_AT, WRAPPERS_AT, total_bytes,
};

/// Stores the addresses of the tables of a claimed session, and waits briefly for the rules of this
/// session. `parent` is the session of the process that forked this process. The function calls `prepare`
/// just before it sets the state of the session to `ATTACHED`, which shows the session to the collector.
/// `false`: the kernel cannot set a page to 0 in a forked child, so the library could not distinguish a
/// child from its parent. All threads take the slow path until a call of [`thread::open`].
pub(super) fn session(
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
    phase::set_session(base.cast(), total_bytes(shards));
    IDLE.header.store(base as u64, Ordering::Relaxed);
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
