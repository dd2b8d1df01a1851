//! The first page of a session: the handshake, the sizes, and counts of the events that the target could not
//! record.

use crate::atomic::{AtomicU32, AtomicU64};
use crate::stack::Next;

/// "edlksess", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"edlksess");

/// The first page of a session. Empty lines divide the fields of `Header` into three groups. The collector
/// writes the first group of fields before it puts the session into a slot. The target writes the second
/// group of fields when the target attaches and while it runs. The third group of fields contains counts of
/// the events that the target could not record.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`crate::VERSION`].
    pub version: AtomicU32,
    /// Number of shards. All threads that found no free shard share the last shard.
    pub shards: AtomicU32,
    /// Size of the whole session in bytes.
    pub total_bytes: AtomicU64,
    /// The `nonce` of the control page through which a target gets this session.
    pub nonce: AtomicU64,
    /// Maximum time in microseconds that an attaching target waits for `ready`.
    pub rules_timeout_us: AtomicU32,
    /// 0: the attaching target must wait. [`READY`] or [`READY_WITH_PARENTS_RULES`]: the target may run.
    /// The target uses `ready` as a futex: it sleeps in the kernel until the collector changes `ready`.
    pub ready: AtomicU32,
    /// Number of ranges in the wrapper table. Before the collector replaces the wrapper table, it sets
    /// `wrapper_ranges` to 0, so that targets do not read the table.
    pub wrapper_ranges: AtomicU32,
    /// Number of modules in the table of unwind rules. Before the collector replaces the unwind rules, it
    /// sets `rule_tables` to 0, so that targets do not read the rules.
    pub rule_tables: AtomicU32,
    /// Number of mapped ranges that the collector has published in this session. Before the collector
    /// replaces ranges, it lowers `bounds` to the number of unchanged ranges, so that targets do not read
    /// the others.
    pub bounds: AtomicU32,
    /// 1: the target records the stacks of every site from the first allocation on.
    pub watch_all: AtomicU32,
    /// The number of the current epoch, in which new allocations at watched sites are counted.
    pub epoch: AtomicU32,
    /// The number of this session. No two sessions of one collector have the same number, and no session has
    /// the number 0.
    pub serial: AtomicU64,
    /// The process ID of the collector in its own PID namespace.
    pub collector: AtomicU32,
    /// Number of modules with detours. The collector stores `detour_modules` before it sets `ready`.
    pub detour_modules: AtomicU32,

    /// Whether a target is attached: [`FRESH`] or [`ATTACHED`]. The collector uses `state` as a futex: it
    /// sleeps in the kernel until a target attaches.
    pub state: AtomicU32,
    /// The process ID of the target, as the collector's /proc shows it.
    pub pid: AtomicU32,
    /// The number of the claim with which an image (a program in a process, from exec to exec) got this
    /// session. If two images of one process claim a session each, the newer image has the higher number.
    pub claim: AtomicU32,
    /// Length in bytes of the target's memory map, which the target stores in the area `maps` of the session.
    pub maps_bytes: AtomicU32,
    /// 1: the thread ids of shard owners are the kernel's thread ids, so the collector can find out which
    /// owners have ended.
    pub tids_known: AtomicU32,
    /// The next site id that is not used yet.
    pub next_site: AtomicU32,
    /// Number of module events written since the target attached.
    pub events_written: AtomicU32,
    /// Number of module events that the collector has read.
    pub events_read: AtomicU32,
    /// Number of module events lost because the ring of module events was full.
    pub events_lost: AtomicU32,
    /// The indexes of the next unused stack, the next unused return address and the next unused cell.
    pub stacks: Next,
    /// Number of mapping events that threads of the target have begun to write.
    pub mappings_written: AtomicU32,
    /// Number of mapping events that the collector has read.
    pub mappings_read: AtomicU32,
    /// 1: some thread counts in the shared shard, which is the last shard. While `shared_in_use` is 0, no
    /// thread has touched the shared shard. The collector must not read an untouched shard, because the
    /// kernel would then allocate memory pages for the shard.
    pub shared_in_use: AtomicU32,
    /// 1: the process was already running when the recording began, so the process has allocations that the
    /// library never counted.
    pub attached: AtomicU32,
    /// The highest index of a shard that a thread has ever owned, plus 1. No thread has touched a shard
    /// whose index is `shards_used` or higher, except the shared shard (see `shared_in_use`).
    pub shards_used: AtomicU32,
    /// 1: a forked child that edleak does not record has allocated memory.
    pub has_forked: AtomicU32,
    /// Number of forked children that the collector should record, but that could not reach the collector.
    pub lost_children: AtomicU32,
    /// The field `serial` of the session of the parent, which is the recorded process that forked this
    /// process; 0: no recorded process forked this process.
    pub parent: AtomicU64,
    /// Number of module events that the parent had written at the fork. If the area `maps` of this session is
    /// empty, this process has the same modules as its parent had at the fork.
    pub parent_events: AtomicU32,
    /// 1: this process is a forked child and has the detours of its parent.
    pub has_detours: AtomicU32,
    /// 1: the code that counts allocations is linked into the program (the crate edleak-alloc), and the
    /// preload library is not loaded.
    pub counts_itself: AtomicU32,
    /// 1: the target has tried to apply its detours. 2: the target began to run before the collector had
    /// published the detours.
    pub detours_done: AtomicU32,
    /// IDs of the sites that call `pthread_create`; 0 ends the list.
    pub thread_starts: [AtomicU32; 32],
    /// The start address of the stack that the kernel gave the program at the last exec, as in /proc/PID/stat
    /// (`startstack`); 0: unknown.
    pub stack_start: AtomicU64,

    /// Number of frees of addresses that are not in the side table.
    pub unknown_frees: AtomicU64,
    /// Number of allocations whose site is not in the site table, because the table had no free slot.
    pub other_site_allocs: AtomicU64,
    /// Number of allocations that are not in the side table, because there was no memory for a leaf of the
    /// table.
    pub untracked_allocs: AtomicU64,
    /// Number of allocations at watched sites that were not counted by stack, because the tables of stacks
    /// were full.
    pub lost_stacks: AtomicU64,
    /// Number of mapping events lost because the ring of mapping events was full.
    pub lost_mappings: AtomicU64,
    /// Number of events of madvise that were lost because the ring of mapping events had too little room.
    pub lost_give_backs: AtomicU64,
}
const _: () = assert!(core::mem::size_of::<Header>() <= 4096);

/// The first fields of a [`Header`], which identify the session. A target reads these first fields from the
/// file of the session before the target maps the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// [`Header::magic`].
    pub magic: u64,
    /// [`Header::version`].
    pub version: u32,
    /// [`Header::shards`].
    pub shards: u32,
    /// [`Header::total_bytes`].
    pub total_bytes: u64,
    /// [`Header::nonce`].
    pub nonce: u64,
}

/// Number of bytes of an [`Identity`] at the start of a session's file.
pub const IDENTITY_BYTES: usize = 32;
const _: () = assert!(core::mem::offset_of!(Header, nonce) + 8 == IDENTITY_BYTES);

impl Identity {
    /// Decodes the first bytes of a session.
    pub fn from_bytes(bytes: &[u8; IDENTITY_BYTES]) -> Identity {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| words.get(index).map_or(0, |word| u64::from_ne_bytes(*word));
        Identity {
            magic: word(0),
            version: word(1) as u32,
            shards: (word(1) >> 32) as u32,
            total_bytes: word(2),
            nonce: word(3),
        }
    }
}

/// The value of [`Header::ready`] after the collector has published the wrapper ranges of the modules in
/// `maps`.
pub const READY: u32 = 1;
/// The value of [`Header::ready`] for a forked child that need not wait, although the collector has not
/// published the child's rules. The child uses the rules in the session of its parent. If `ready` in the
/// parent's session is `READY_WITH_PARENTS_RULES`, too, the child uses the rules in the session of its
/// grandparent.
pub const READY_WITH_PARENTS_RULES: u32 = 2;

/// The value of [`Header::state`] before a target attaches.
pub const FRESH: u32 = 0;
/// The value of [`Header::state`] while a target is attached and counts.
pub const ATTACHED: u32 = 1;
