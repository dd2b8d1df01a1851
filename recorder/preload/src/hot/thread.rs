//! HOT: the counters of the current thread, and the entry point that runs on this thread.
//!
//! The state of a thread is 64 bytes of initial-exec thread-local storage without a destructor. The first
//! word of the state is the offset of an [`Own`] in `tables::Page`, and not a pointer to the counters. In a
//! forked child, the kernel sets the page `tables::Page` to 0 (`MADV_WIPEONFORK`). So in the child, every
//! thread finds zeros and leaves the fast path. Setting the page to 0 needs no `pthread_atfork` and works
//! for every kind of fork. An offset of 0 leads to an [`Own`] whose fields are all 0, too. The first word
//! of the state is 0 if the thread has not started to count, or while the thread runs an entry point that
//! may call other entry points.
#![allow(unsafe_code)]

use crate::arch;
use crate::hot::live;
use crate::hot::tables::{Own, TABLES};
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence};
use edleak_session::counters::Counters;
use edleak_session::header::Header;
use edleak_session::idle::{LIMITS_AT, LIMITS_STRIDE, Limits};
use edleak_session::layout::{MAX_SHARDS, Shard, owner_thread, owner_word};
use edleak_session::site::MAX_SITES;

/// The state of one thread.
#[repr(C)]
pub(crate) struct Tls {
    /// Offset of this thread's [`Own`] in `tables::Page`; 0: the thread must leave the fast path.
    pub offset: usize,
    /// The saved value of `offset` while an entry point that may call other entry points (`pending`) has set
    /// `offset` to 0.
    pub hidden_offset: u16,
    /// The saved value of `offset` while a detoured function has set `offset` to 0.
    pub outer_offset: u16,
    /// Number of allocations and frees that a thread without its own shard has counted in the last shard.
    /// After every 1024 allocations and frees that it has counted in the last shard, the thread tries again
    /// to get a shard of its own.
    pub shared_calls: u32,
    /// The entry point that runs on this thread and may call other entry points.
    pub pending: Pending,
    /// The address of an allocation whose free a running operator delete has already counted.
    pub deleting: *mut u8,
    /// The stack pointer (rsp) at the call of the detoured function that runs on this thread; 0: no detoured
    /// function runs.
    pub inside: usize,
}
const _: () = assert!(size_of::<Tls>() == arch::TLS_BYTES);

impl Tls {
    /// The state of a new thread. This state has the same content as new thread-local storage.
    pub(crate) const fn new() -> Tls {
        Tls {
            offset: 0,
            hidden_offset: 0,
            outer_offset: 0,
            shared_calls: 0,
            pending: Pending { caller: ptr::null(), fp: 0, size: 0, slack: 0 },
            deleting: ptr::null_mut(),
            inside: 0,
        }
    }
}

/// A running entry point that may call other entry points. The first inner entry point that allocates
/// counts the allocation with the caller and the size in this object, instead of its own caller and size.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    /// The caller of the pending entry point; null: no such entry point is running.
    pub caller: *const usize,
    /// The frame pointer of the caller of the pending entry point.
    pub fp: usize,
    /// The size that the caller requested.
    pub size: usize,
    /// The greatest number of bytes by which the size of an inner entry point's call may exceed `size`: the
    /// alignment, but at least 1.
    pub slack: usize,
}

/// Stores in the state of the thread that a detoured function begins to run. `sp` is the stack pointer (rsp)
/// at the call of the function.
pub(crate) fn enter(tls: &mut Tls, sp: usize) {
    tls.inside = sp;
    tls.outer_offset = tls.offset as u16;
    tls.offset = 0;
}

/// Stores in the state of the thread that the detoured function has ended.
pub(crate) fn leave(tls: &mut Tls) {
    tls.inside = 0;
    tls.offset = tls.outer_offset.into();
}

impl Own {
    /// The small allocation in `found`, and the counters for the free of this allocation. `None`: the
    /// allocation is not small, or this thread must not count. The function reads the counters before the
    /// limit, so the counters are valid if the comparison with the limit succeeds.
    ///
    /// # Safety
    /// The pointer `own` comes from the function [`own`].
    #[inline(always)]
    pub(crate) unsafe fn small(
        own: *const Own,
        found: live::Found,
    ) -> Option<(live::Small, *const Counters)> {
        // SAFETY: the caller guarantees that the function `own()` returned the pointer `own`, which leads
        // to an entry of the page of counters.
        let counters = unsafe { &raw const (*own).counters };
        // SAFETY: the function `own()` returned the pointer `own`, which leads to an entry of the page.
        // This read of `counters` is volatile, because the compiler could move a plain read behind the read
        // of the limit `small`.
        let counters = unsafe { counters.read_volatile() };
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the function `own()` returned the pointer `own`, which leads to an entry of the page.
        found.small(unsafe { (*own).small }).map(|small| (small, counters))
    }
}

/// The counters and limits of this thread. The result is always an entry of the page of counters: the
/// thread's offset from the start of this page is 0, or it is the offset of an entry, which `counting` has
/// computed.
#[inline(always)]
pub(crate) fn own() -> *const Own {
    (&raw const TABLES.page).cast::<u8>().wrapping_add(arch::tls_first_word()).cast::<Own>()
}

/// The counters of the current thread; null: the thread must leave the fast path.
#[inline(always)]
pub(crate) fn counters() -> *const Counters {
    // SAFETY: `own` returns an entry of the page, which exists for the life of the process.
    unsafe { (*own()).counters }
}

/// Counts the free of a small allocation in this thread's own counters.
///
/// # Safety
/// `counters` belongs to this thread and is not null.
#[inline(always)]
pub(crate) unsafe fn count_free(counters: *const Counters, small: live::Small) {
    let (site, size) = (small.site(), small.size());
    // SAFETY: a shard has `MAX_SITES` counters, and the site of a small entry has an id of the site table,
    // which is less than `MAX_SITES`.
    unsafe { &*counters.wrapping_byte_add(site.bytes()) }.add_free_owned(size as u64);
}

/// The counters of a thread that has left the fast path.
#[derive(Clone, Copy)]
pub(crate) enum Counting {
    /// This thread counts in a shard of which it is the only owner.
    Owned(*const Counters),
    /// This thread counts in the last shard, together with other threads.
    Shared(*const Counters),
}

impl Counting {
    /// Counts an allocation at its site.
    pub(crate) fn alloc(self, site: u32, size: usize) {
        debug_assert!((site as usize) < MAX_SITES);
        match self {
            Counting::Owned(base) => {
                // SAFETY: `base` is the start of a whole shard, and `site` is an id of the site table.
                unsafe { &*base.wrapping_add(site as usize) }.add_allocation_owned(size as u64)
            }
            Counting::Shared(base) => {
                // SAFETY: `base` is the start of a whole shard, and `site` is an id of the site table.
                unsafe { &*base.wrapping_add(site as usize) }.add_allocation_shared(size as u64)
            }
        }
    }

    /// Counts a free at its site.
    pub(crate) fn free(self, site: u32, size: usize) {
        debug_assert!((site as usize) < MAX_SITES);
        match self {
            Counting::Owned(base) => {
                // SAFETY: `base` is the start of a whole shard, and `site` is an id of the site table.
                unsafe { &*base.wrapping_add(site as usize) }.add_free_owned(size as u64)
            }
            Counting::Shared(base) => {
                // SAFETY: `base` is the start of a whole shard, and `site` is an id of the site table.
                unsafe { &*base.wrapping_add(site as usize) }.add_free_shared(size as u64)
            }
        }
    }
}

/// The shards of the attached session.
static SHARDS: AtomicPtr<Shard> = AtomicPtr::new(ptr::null_mut());
static SHARD_COUNT: AtomicU32 = AtomicU32::new(0);
/// Offset of the thread id from the thread pointer in libc's data; 0: unknown (see `thread_id`).
static TID_OFFSET: AtomicU64 = AtomicU64::new(0);

/// For each shard, the thread that owned it in the previous session. A thread keeps the offset of its shard
/// as long as it runs. So in the next session, this shard must not be given to another thread.
static OWNERS: [AtomicU64; MAX_SHARDS] = [const { AtomicU64::new(0) }; MAX_SHARDS];

/// The shards of the attached session that a single thread may own: all shards except the last.
#[cold]
fn owned_shards() -> &'static [Shard] {
    let owned = (SHARD_COUNT.load(Ordering::Acquire) as usize).saturating_sub(1);
    let shards = SHARDS.load(Ordering::Relaxed);
    // SAFETY: the session has more shards than `owned`, and stays mapped until another session replaces it.
    if owned == 0 { &[] } else { unsafe { core::slice::from_raw_parts(shards, owned) } }
}

/// Remembers the owners of the shards before a new session replaces the attached session.
#[cold]
pub(crate) fn keep_owners() {
    for (kept, shard) in OWNERS.iter().zip(owned_shards()) {
        kept.store(shard.owner.load(Ordering::Acquire), Ordering::Relaxed);
    }
}

/// Restores the owner of each shard in a new session: the thread that owned a shard in the previous session
/// owns the shard with the same index in the new session. Call this function while no thread counts.
#[cold]
pub(crate) fn restore_owners() {
    for (kept, shard) in OWNERS.iter().zip(owned_shards()) {
        shard.owner.store(kept.load(Ordering::Relaxed), Ordering::Release);
    }
}

/// The address of the limits of the first thread, which the collector may change.
pub(crate) fn first_limits() -> usize {
    (&raw const TABLES.page) as usize + size_of::<Own>() + offset_of!(Own, size_limit)
}
const _: () = assert!(size_of::<Own>() == LIMITS_STRIDE && offset_of!(Own, size_limit) == LIMITS_AT);
const _: () = assert!(offset_of!(Own, small) == LIMITS_AT + 8);
const _: () = assert!(Limits::OPEN.size == live::LARGE as u64 && Limits::OPEN.small == live::SMALL);

/// Whether this process is a forked child, in which the kernel has set the page of counters to 0.
#[cold]
pub(crate) fn is_wiped() -> bool {
    TABLES.page.alive.load(Ordering::Relaxed) == 0
}

/// Lets every thread that has its own shard use the fast path. Call this function only when no thread holds
/// a pointer to the counters of an older session.
pub(crate) fn open() {
    let owned = (SHARD_COUNT.load(Ordering::Acquire) as usize).saturating_sub(1);
    for own in TABLES.page.own.iter().skip(1).take(owned) {
        let own = own.get();
        // SAFETY: `own` leads to an entry of the page of counters.
        let small = unsafe { &raw mut (*own).small };
        // SAFETY: `own` leads to an entry of the page of counters.
        let size_limit = unsafe { &raw mut (*own).size_limit };
        // SAFETY: only this thread writes limits now.
        unsafe { small.write_volatile(live::SMALL) };
        // SAFETY: only this thread writes limits now.
        unsafe { size_limit.write_volatile(live::LARGE) };
    }
}

/// Stores the shards of a session, before `Page::alive` is set. Until the call of [`open`], threads count
/// in the session's shards only on the slow path.
pub(crate) fn set_shards(shards: *mut Shard, counters: *mut Counters, count: usize, tid_offset: usize) {
    let count = count.clamp(1, MAX_SHARDS);
    for (index, own) in TABLES.page.own.iter().skip(1).enumerate() {
        let counters = if index < count { counters.wrapping_add(index * MAX_SITES) } else { ptr::null() };
        // SAFETY: `own` leads to an entry of the page of counters.
        let place = unsafe { &raw mut (*own.get()).counters };
        // SAFETY: the limits are 0, so a thread that has the offset of this entry does not use its counters.
        unsafe { place.write_volatile(counters) };
    }
    SHARDS.store(shards, Ordering::Relaxed);
    TID_OFFSET.store(tid_offset as u64, Ordering::Relaxed);
    SHARD_COUNT.store(count as u32, Ordering::Release);
}

/// Number of allocations and frees after which a thread without its own shard tries again to get a shard.
const ASK_AGAIN: u32 = 1024;

/// The counters of a thread that has left the fast path. Call this function only while a session is attached.
pub(crate) fn counting(header: &Header, tls: &mut Tls) -> Counting {
    let offset = match (tls.pending.caller.is_null(), tls.inside) {
        (false, _) => usize::from(tls.hidden_offset),
        (true, 0) => tls.offset,
        (true, _) => usize::from(tls.outer_offset),
    };
    let count = SHARD_COUNT.load(Ordering::Acquire) as usize;
    if offset != 0 {
        let index = (offset / size_of::<Own>()).wrapping_sub(1);
        if index < count - 1 {
            return Counting::Owned(TABLES.page.counters(index));
        }
        set_offset(tls, 0); // this session has fewer shards than an older session
    }
    if tls.shared_calls.is_multiple_of(ASK_AGAIN)
        && let Some(index) = take_shard(count - 1)
    {
        header.shards_used.fetch_max(index as u32 + 1, Ordering::Relaxed);
        let offset = (index + 1) * size_of::<Own>();
        set_offset(tls, offset);
        return Counting::Owned(TABLES.page.counters(index));
    }
    tls.shared_calls = tls.shared_calls.wrapping_add(1);
    header.shared_in_use.store(1, Ordering::Relaxed);
    Counting::Shared(TABLES.page.counters(count - 1))
}

/// Stores the offset of this thread's [`Own`]. If `pending` or a detoured function has set `offset` to 0,
/// `set_offset` changes the saved offset instead.
fn set_offset(tls: &mut Tls, offset: usize) {
    match (tls.pending.caller.is_null(), tls.inside) {
        (false, _) => tls.hidden_offset = offset as u16,
        (true, 0) => tls.offset = offset,
        (true, _) => tls.outer_offset = offset as u16,
    }
}

/// Takes a shard for this thread alone. The first choice is the shard of an ended thread that had the same
/// thread pointer; otherwise the thread takes a free shard.
fn take_shard(owned: usize) -> Option<usize> {
    let shards = SHARDS.load(Ordering::Relaxed);
    // SAFETY: the session has `SHARD_COUNT` shards, and `owned` is less than `SHARD_COUNT`.
    let shards = unsafe { core::slice::from_raw_parts(shards, owned) };
    let me = owner_word(arch::thread_pointer() as u64, tid());
    for (index, shard) in shards.iter().enumerate() {
        let owner = shard.owner.load(Ordering::Acquire);
        if owner != 0
            && owner_thread(owner) == owner_thread(me)
            && shard.owner.compare_exchange(owner, me, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            return Some(index);
        }
    }
    shards.iter().position(|shard| {
        shard.owner.load(Ordering::Relaxed) == 0
            && shard.owner.compare_exchange(0, me, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    })
}

/// The id of the current thread, which the function reads from libc's data; 0: unknown. The library does
/// not ask the kernel for the thread's id, because this would cost a system call.
fn tid() -> u32 {
    match TID_OFFSET.load(Ordering::Relaxed) as usize {
        0 => 0,
        // SAFETY: `thread_id` found a thread's id at this offset of its control block, and every
        // thread of the same libc has the same layout.
        offset => unsafe { *((arch::thread_pointer() + offset) as *const u32) },
    }
}

/// The state of the current thread, for cold code.
///
/// # Safety
/// The reference must not outlive the call in which it was made, and only one reference may exist at a time.
/// A cold function makes one reference when the function begins.
#[inline]
pub(crate) unsafe fn tls<'a>() -> &'a mut Tls {
    // SAFETY: thread-local storage is zeroed at a thread's start, and zero is a valid `Tls`.
    unsafe { &mut *arch::tls().cast() }
}
