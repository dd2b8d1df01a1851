//! HOT: this thread's counters, and what it is in the middle of.
//!
//! A thread's state is 64 bytes of initial-exec thread-local storage without a destructor. Its first word is not a pointer
//! to its counters but the offset of one in [`PAGE`]: the kernel wipes that page in a forked child
//! (`MADV_WIPEONFORK`), so there every thread finds null and leaves the fast path, with no `pthread_atfork` and however
//! the fork was made. An offset of 0 finds null too: not started, or in the middle of an entry point that calls others.
#![allow(unsafe_code)]

use crate::arch;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use edleak_session::counters::Counters;
use edleak_session::header::Header;
use edleak_session::layout::{MAX_SHARDS, Shard, owner_thread, owner_word};
use edleak_session::site::MAX_SITES;

/// What a thread knows of itself.
#[repr(C)]
pub struct Tls {
    /// Offset in [`PAGE`] of the pointer to this thread's counters; 0: none, leave the fast path.
    pub offset: usize,
    /// What `offset` was, while `pending` hides it.
    pub hidden_offset: usize,
    /// An entry point that may call other entry points is under way on this thread.
    pub pending: Pending,
    /// The address that an operator delete under way has already counted as freed.
    pub deleting: *mut u8,
    /// Slow allocations of a thread that owns no shard, to ask again for one every now and then.
    pub shared_calls: usize,
}
const _: () = assert!(size_of::<Tls>() == 64);

impl Tls {
    /// The state of a new thread: what thread-local storage begins as.
    pub const fn new() -> Tls {
        Tls {
            offset: 0,
            hidden_offset: 0,
            pending: Pending { caller: ptr::null(), rbp: 0, size: 0, slack: 0 },
            deleting: ptr::null_mut(),
            shared_calls: 0,
        }
    }
}

/// An entry point under way that may call other entry points; the first of those to allocate counts for it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pending {
    /// Its caller; null: none is under way.
    pub caller: *const usize,
    /// The frame pointer of its caller.
    pub rbp: usize,
    /// The size it was asked for.
    pub size: usize,
    /// How much more than that it may ask the entry point that it calls for (alignment, at least one byte).
    pub slack: usize,
}

/// The page that a forked child finds wiped.
#[repr(C, align(4096))]
pub struct Page {
    /// Entry 0 stays null; entry n is the counters of shard n − 1.
    counters: [AtomicPtr<Counters>; MAX_SHARDS + 1],
    /// 1 once the session is attached; 0 again in a forked child.
    pub alive: AtomicU32,
    fill: UnsafeCell<[u8; 4096 - (MAX_SHARDS + 1) * 8 - 8]>,
}
const _: () = assert!(size_of::<Page>() == 4096);

// SAFETY: `fill` is never touched; everything else is atomic.
unsafe impl Sync for Page {}

/// See [`Page`].
pub static PAGE: Page = Page {
    counters: [const { AtomicPtr::new(ptr::null_mut()) }; MAX_SHARDS + 1],
    alive: AtomicU32::new(0),
    fill: UnsafeCell::new([0; 4096 - (MAX_SHARDS + 1) * 8 - 8]),
};

/// This thread's own counters, indexed by site; null: leave the fast path.
#[inline(always)]
pub fn counters() -> *const Counters {
    let base = (&raw const PAGE).cast::<u8>();
    // SAFETY: an offset is 0 or was computed in `take_shard`, so it is that of an aligned entry of the page.
    let entry = unsafe { base.add(arch::tls_first_word()) }.cast::<AtomicPtr<Counters>>();
    // SAFETY: as above.
    unsafe { &*entry }.load(Ordering::Relaxed)
}

/// Counts an allocation at `site` in this thread's own counters.
///
/// # Safety
/// `counters` is this thread's, not null; `site` is an id of the site table.
#[inline(always)]
pub unsafe fn count_alloc(counters: *const Counters, site: usize, size: usize) {
    // SAFETY: a shard has `MAX_SITES` counters, and ids of the table are below that.
    unsafe { &*counters.wrapping_add(site) }.add_owned(size as u64);
}

/// Counts a free at `site` in this thread's own counters.
///
/// # Safety
/// As for [`count_alloc`].
#[inline(always)]
pub unsafe fn count_free(counters: *const Counters, site: usize, size: usize) {
    // SAFETY: as in `count_alloc`.
    unsafe { &*counters.wrapping_add(site) }.sub_owned(size as u64);
}

/// Where a thread that has left the fast path counts.
#[derive(Clone, Copy)]
pub enum Counting {
    /// In a shard of its own.
    Owned(*const Counters),
    /// In the last shard, with others.
    Shared(*const Counters),
}

impl Counting {
    /// Counts an allocation.
    pub fn alloc(self, site: u32, size: usize) {
        debug_assert!((site as usize) < MAX_SITES);
        match self {
            // SAFETY: both variants hold a whole shard, and `site` is an id of the table.
            Counting::Owned(base) => unsafe { &*base.wrapping_add(site as usize) }.add_owned(size as u64),
            // SAFETY: as above.
            Counting::Shared(base) => unsafe { &*base.wrapping_add(site as usize) }.add_shared(size as u64),
        }
    }

    /// Counts a free.
    pub fn free(self, site: u32, size: usize) {
        debug_assert!((site as usize) < MAX_SITES);
        match self {
            // SAFETY: as in `alloc`.
            Counting::Owned(base) => unsafe { &*base.wrapping_add(site as usize) }.sub_owned(size as u64),
            // SAFETY: as in `alloc`.
            Counting::Shared(base) => unsafe { &*base.wrapping_add(site as usize) }.sub_shared(size as u64),
        }
    }
}

/// The shards of the attached session.
static SHARDS: AtomicPtr<Shard> = AtomicPtr::new(ptr::null_mut());
static SHARD_COUNT: AtomicU32 = AtomicU32::new(0);
/// Offset of the thread id from the thread pointer; 0: not known (see `lifecycle`).
static TID_OFFSET: AtomicU64 = AtomicU64::new(0);

/// Makes the shards of a session known. Called once, before [`Page::alive`] is set.
pub fn set_shards(shards: *mut Shard, counters: *mut Counters, count: usize, tid_offset: usize) {
    let count = count.clamp(1, MAX_SHARDS);
    for (index, entry) in PAGE.counters.iter().skip(1).take(count).enumerate() {
        entry.store(counters.wrapping_add(index * MAX_SITES), Ordering::Relaxed);
    }
    SHARDS.store(shards, Ordering::Relaxed);
    TID_OFFSET.store(tid_offset as u64, Ordering::Relaxed);
    SHARD_COUNT.store(count as u32, Ordering::Release);
}

/// How many slow calls a thread without a shard makes before it asks again.
const ASK_AGAIN: usize = 1024;

/// Where this thread counts, for a thread that has left the fast path. Needs an attached session.
pub fn counting(header: &Header, tls: &mut Tls) -> Counting {
    let offset = if tls.pending.caller.is_null() { tls.offset } else { tls.hidden_offset };
    if offset != 0 {
        return Counting::Owned(PAGE.counters[offset / 8 % (MAX_SHARDS + 1)].load(Ordering::Relaxed));
    }
    let count = SHARD_COUNT.load(Ordering::Acquire) as usize;
    if tls.shared_calls.is_multiple_of(ASK_AGAIN)
        && let Some(index) = take_shard(count - 1)
    {
        let offset = (index + 1) * size_of::<AtomicPtr<Counters>>();
        if tls.pending.caller.is_null() {
            tls.offset = offset;
        } else {
            tls.hidden_offset = offset;
        }
        return Counting::Owned(PAGE.counters[(index + 1) % (MAX_SHARDS + 1)].load(Ordering::Relaxed));
    }
    tls.shared_calls = tls.shared_calls.wrapping_add(1);
    header.shared_in_use.store(1, Ordering::Relaxed);
    Counting::Shared(PAGE.counters[count % (MAX_SHARDS + 1)].load(Ordering::Relaxed))
}

/// Takes one of the shards that have one owner: that of a dead thread with our thread pointer, else a free one.
fn take_shard(owned: usize) -> Option<usize> {
    let shards = SHARDS.load(Ordering::Relaxed);
    // SAFETY: the session has `SHARD_COUNT` shards, of which `owned` is fewer.
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

/// This thread's id, read from where libc keeps it; 0: not known. Asking the kernel would be a system call.
fn tid() -> u32 {
    match TID_OFFSET.load(Ordering::Relaxed) as usize {
        0 => 0,
        // SAFETY: `lifecycle` found the main thread's id at this offset of its control block, and every thread of the
        // same libc has the same layout.
        offset => unsafe { *((arch::thread_pointer() + offset) as *const u32) },
    }
}

/// This thread's state, for cold code.
///
/// # Safety
/// The reference must not outlive the call it was made in, nor exist twice; cold code makes one at its entry.
#[inline]
pub unsafe fn tls<'a>() -> &'a mut Tls {
    // SAFETY: thread-local storage is zeroed at a thread's start, and zero is a valid `Tls`.
    unsafe { &mut *arch::tls() }
}
