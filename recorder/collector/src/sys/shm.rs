//! The memory that the collector shares with a target. The collector creates and maps this memory, but does
//! not trust the values that the target writes into it.
//!
//! The memory consists of files in memory (`memfd_create`). Files in memory have no name in a file system.
//! The target opens the files of the shared memory through `/proc/COLLECTOR/fd/N`, which the kernel allows
//! only if the target runs as the user of the collector. All values in the shared memory are atomics, so
//! shared references to them are sound even if the target writes arbitrary bytes. The collector checks every
//! index that it reads from the shared memory. The collector also seals each file of the shared memory, so
//! that no process can change the length of the file.
#![allow(unsafe_code)]

use crate::sys::descriptor_keeper::UserAndGroup;
use crate::sys::unshared;
use edleak_session::VERSION;
use edleak_session::caller::CALLERS;
use edleak_session::control::{self, Control};
use edleak_session::counters::Counters;
use edleak_session::detour::{self, DetourModule, Patch};
use edleak_session::event::{MAX_EVENTS, ModuleEvent};
use edleak_session::header::{self, Header};
use edleak_session::layout::{
    BOUNDS_AT, CALLERS_AT, CELLS_AT, COUNTERS_AT, DETOUR_CODE_AT, DETOUR_MODULES_AT, DETOUR_PATCHES_AT,
    EVENTS_AT, FIRST_TABLE_AT, FRAMES_AT, INFOS_AT, MAPPINGS_AT, MAPS_AT, MAPS_BYTES, MARK_NAMES_AT,
    MARK_RING_AT, MARKS_AT, POOL_NAMES_AT, POOL_RING_AT, POOLS_AT, ROWS_AT, SHARD_BYTES, SHARDS_AT, SLOTS_AT,
    STACKS_AT, Shard, TABLES_AT, WRAPPERS_AT, total_bytes,
};
use edleak_session::mapping::{self, MappingRing};
use edleak_session::mark::{MAX_NAMES, MarkName, MarkState, RING_WORDS};
use edleak_session::pool::{self, PoolRing, PoolState};
use edleak_session::site::{FIRST, MAX_SITES, SLOTS, SiteInfo, SiteSlot};
use edleak_session::stack::{
    Bound, Cell, MAX_ADDRESSES, MAX_BOUNDS, MAX_CELLS, MAX_ROWS, MAX_STACKS, MAX_TABLES, RuleRow, RuleTable,
    StackInfo,
};
use edleak_session::wrapper::{MAX_RANGES, WrapperRange};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// A file in memory that is mapped into this process.
struct Memory {
    file: File,
    base: *mut u8,
    bytes: usize,
}

impl Memory {
    fn create(name: &CStr, bytes: usize) -> io::Result<Memory> {
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(bytes as u64)?;
        // Seal the length of the file, so that a target cannot change it. If a target made the file shorter,
        // SIGBUS would kill the collector. If a target made the file longer, the kernel would count the
        // additional memory as memory of the collector.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
        // SAFETY: the kernel chooses the address, so the new mapping covers no existing memory.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Memory { file, base: base.cast(), bytes })
    }

    /// A slice of `count` values of the type `T` at `offset`. The type `T` must consist of atomics.
    fn slice<T>(&self, offset: usize, count: usize) -> &[T] {
        assert!(offset + count * size_of::<T>() <= self.bytes && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: the values are inside the mapping and aligned (checked above). Every type that the callers
        // use for `T` consists of atomics and is valid for any bits. The seal on the file prevents the file
        // from becoming shorter.
        unsafe { std::slice::from_raw_parts(self.base.wrapping_add(offset).cast(), count) }
    }
}

impl Memory {
    /// Fills all pages of the file that exist with zeros. `false`: more than 512 KiB of the file's pages
    /// exist, so creating a new file takes less time than clearing this file.
    fn clear(&mut self) -> bool {
        const MOST_BYTES: usize = 512 << 10;
        let mut left = MOST_BYTES;
        for pages in unshared::pages_of(&self.file) {
            let (Some(rest), true) = (left.checked_sub(pages.len()), pages.end <= self.bytes) else {
                return false;
            };
            left = rest;
            let place = self.base.wrapping_add(pages.start);
            // SAFETY: the pages are inside the mapping, and the exclusive reference `self` ensures that no
            // other reference into the mapping exists.
            unsafe { place.write_bytes(0, pages.len()) };
        }
        true
    }

    fn give_to(&self, owner: UserAndGroup) -> io::Result<()> {
        std::os::unix::fs::fchown(&self.file, Some(owner.user), Some(owner.group))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and no reference into the mapping outlives `self`.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

// SAFETY: the mapping belongs to the value, and the values in the mapping are atomics.
unsafe impl Send for Memory {}
// SAFETY: the values in the mapping are atomics, so threads may share references to these values.
unsafe impl Sync for Memory {}

/// The control page, in shared memory.
pub(crate) struct ControlPage(Memory);

impl ControlPage {
    /// Creates a control page for a process that has not started yet.
    pub(crate) fn create(children: bool) -> io::Result<ControlPage> {
        let page = ControlPage(Memory::create(c"edleak-control", control::BYTES)?);
        let control = page.get();
        control.children.store(u32::from(children), Ordering::Relaxed);
        control.nonce.store(RandomState::new().build_hasher().finish(), Ordering::Relaxed);
        control.version.store(VERSION, Ordering::Relaxed);
        control.magic.store(control::MAGIC, Ordering::Release);
        Ok(page)
    }

    /// The contents of the control page.
    pub(crate) fn get(&self) -> &Control {
        &self.0.slice::<Control>(0, 1)[0]
    }

    /// The address through which a target of the same user opens the page. The address consists of a path and
    /// a random number (nonce), which no page of another collector has.
    pub(crate) fn address(&self) -> String {
        self.address_through(std::process::id())
    }

    /// The address through which a target opens the control page with the help of a keeper: the process
    /// `pid`, which shares the descriptors of the collector.
    pub(crate) fn address_through(&self, pid: u32) -> String {
        let nonce = self.get().nonce.load(Ordering::Relaxed);
        format!("/proc/{pid}/fd/{}#{nonce:016x}", self.0.file.as_raw_fd())
    }

    /// Makes the user of a target the owner of the control page, so that the target may open the page.
    pub(crate) fn give_to(&self, owner: UserAndGroup) -> io::Result<()> {
        self.0.give_to(owner)
    }
}

/// The session of one image (a program that runs in a process until the next exec).
pub(crate) struct Session {
    memory: Memory,
    shards: usize,
}

impl Session {
    /// Creates a session with `shards` shards (sets of counters). A target that attaches to the session waits
    /// for its wrapper rules for at most `rules_timeout_us` microseconds.
    pub(crate) fn create(shards: usize, rules_timeout_us: u32) -> io::Result<Session> {
        let session = Session { memory: Memory::create(c"edleak-session", total_bytes(shards))?, shards };
        session.set_header(rules_timeout_us);
        Ok(session)
    }

    fn set_header(&self, rules_timeout_us: u32) {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let shards = self.shards;
        let header = self.header();
        header.serial.store(SERIAL.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
        header.shards.store(shards as u32, Ordering::Relaxed);
        header.total_bytes.store(total_bytes(shards) as u64, Ordering::Relaxed);
        header.rules_timeout_us.store(rules_timeout_us, Ordering::Relaxed);
        header.collector.store(std::process::id(), Ordering::Relaxed);
        header.next_site.store(FIRST, Ordering::Relaxed);
        header.stacks.cell.store(1, Ordering::Relaxed); // cell 0 stands for "no cell"
        header.magic.store(header::MAGIC, Ordering::Release);
    }

    /// Clears the session of a process that has ended, so that another process can use the session. `false`:
    /// a process, such as a forked child of the ended process, still has the session open, or the session has
    /// too many pages to clear.
    pub(crate) fn renew(&mut self, rules_timeout_us: u32) -> bool {
        let is_clear = unshared::is_unshared(&self.memory.file) && self.memory.clear();
        if is_clear {
            self.set_header(rules_timeout_us);
        }
        is_clear
    }

    /// Frees the memory of the session after the target has stopped counting, except the first pages. The
    /// first pages stay, because they contain the owners of the shards, which the next session of the same
    /// process needs.
    pub(crate) fn give_back(&self) {
        let (from, bytes) = (FIRST_TABLE_AT as i64, (self.memory.bytes - FIRST_TABLE_AT) as i64);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the call passes no memory and does not change the length of the file. If `fallocate` fails,
        // this does no harm: the memory then stays in use until the next recording of the process or until
        // the process ends.
        unsafe { libc::fallocate(self.fd(), mode, from, bytes) };
    }

    /// Makes the user of a target the owner of the session, so that the target may open the session.
    pub(crate) fn give_to(&self, owner: UserAndGroup) -> io::Result<()> {
        self.memory.give_to(owner)
    }

    /// The descriptor of the session's file; the control page contains the number of this descriptor.
    pub(crate) fn fd(&self) -> RawFd {
        self.memory.file.as_raw_fd()
    }

    /// The inode number of the session's file, by which a memory map identifies the file.
    pub(crate) fn inode(&self) -> Option<u64> {
        Some(self.memory.file.metadata().ok()?.ino())
    }

    /// The header of the session: the first page of the session's memory.
    pub(crate) fn header(&self) -> &Header {
        &self.memory.slice::<Header>(0, 1)[0]
    }

    /// For each shard (a set of counters): its owner, which is the thread that counts in the shard. A shard
    /// is a set of counters, and its owner is the thread that counts in it.
    pub(crate) fn shards(&self) -> &[Shard] {
        self.memory.slice(SHARDS_AT, self.shards)
    }

    /// The site table, which maps a return address to a site and an action.
    pub(crate) fn slots(&self) -> &[SiteSlot] {
        self.memory.slice(SLOTS_AT, SLOTS)
    }

    /// For each site id, the return address of the site.
    pub(crate) fn infos(&self) -> &[SiteInfo] {
        self.memory.slice(INFOS_AT, MAX_SITES)
    }

    /// The caller cache, which the library reads at each allocation: for each caller, 8 bytes with the site
    /// and the action.
    pub(crate) fn callers(&self) -> &[AtomicU64] {
        self.memory.slice(CALLERS_AT, CALLERS)
    }

    /// The number of site ids that are in use in this session. The site ids below [`FIRST`] are always in
    /// use. The target assigns the ids from [`FIRST`] on to sites, one after the other.
    pub(crate) fn sites_in_use(&self) -> usize {
        (self.header().next_site.load(Ordering::Acquire) as usize).min(MAX_SITES)
    }

    /// The counters of the first `sites` site ids in one shard.
    pub(crate) fn counters(&self, shard: usize, sites: usize) -> &[Counters] {
        assert!(shard < self.shards && sites <= MAX_SITES);
        self.memory.slice(COUNTERS_AT + shard * SHARD_BYTES, sites)
    }

    /// The code ranges of wrappers that the collector has published.
    pub(crate) fn wrappers(&self) -> &[WrapperRange] {
        self.memory.slice(WRAPPERS_AT, MAX_RANGES)
    }

    /// The ring of the events that the target writes when it loads or unloads a module.
    pub(crate) fn events(&self) -> &[ModuleEvent] {
        self.memory.slice(EVENTS_AT, MAX_EVENTS)
    }

    /// The ring of the events that the target writes when it maps or unmaps memory.
    pub(crate) fn mappings(&self) -> MappingRing<'_> {
        let header = self.header();
        MappingRing {
            slots: self.memory.slice(MAPPINGS_AT, mapping::MAX_EVENTS),
            written: &header.mappings_written,
            read: &header.mappings_read,
        }
    }

    /// The ring of the events that the target writes about pools.
    pub(crate) fn pools(&self) -> PoolRing<'_> {
        PoolRing {
            state: &self.memory.slice::<PoolState>(POOLS_AT, 1)[0],
            names: self.memory.slice(POOL_NAMES_AT, pool::MAX_NAMES),
            slots: self.memory.slice(POOL_RING_AT, pool::MAX_EVENTS),
        }
    }

    /// The stacks of watched sites.
    pub(crate) fn stack_infos(&self) -> &[StackInfo] {
        self.memory.slice(STACKS_AT, MAX_STACKS)
    }

    /// The return addresses of all stacks of watched sites.
    pub(crate) fn stack_frames(&self) -> &[AtomicU64] {
        self.memory.slice(FRAMES_AT, MAX_ADDRESSES)
    }

    /// The cells: each cell contains the counters of one stack for the allocations of one epoch (span of
    /// time).
    pub(crate) fn cells(&self) -> &[Cell] {
        self.memory.slice(CELLS_AT, MAX_CELLS)
    }

    /// The unwind tables of the modules.
    pub(crate) fn rule_tables(&self) -> &[RuleTable] {
        self.memory.slice(TABLES_AT, MAX_TABLES)
    }

    /// The rows of the unwind tables.
    pub(crate) fn rule_rows(&self) -> &[RuleRow] {
        self.memory.slice(ROWS_AT, MAX_ROWS)
    }

    /// The start and the end of each published mapping that may contain a stack.
    pub(crate) fn bounds(&self) -> &[Bound] {
        self.memory.slice(BOUNDS_AT, MAX_BOUNDS)
    }

    /// The state that all marks (named instants that the target sets) share.
    pub(crate) fn mark_state(&self) -> &MarkState {
        &self.memory.slice::<MarkState>(MARKS_AT, 1)[0]
    }

    /// For each name of a mark (a named instant that the target sets): the name and its state.
    pub(crate) fn mark_names(&self) -> &[MarkName] {
        self.memory.slice(MARK_NAMES_AT, MAX_NAMES)
    }

    /// The ring into which the target copies counters at each mark (a named instant).
    pub(crate) fn mark_ring(&self) -> &[AtomicU64] {
        self.memory.slice(MARK_RING_AT, RING_WORDS)
    }

    /// The modules with detours.
    pub(crate) fn detour_modules(&self) -> &[DetourModule] {
        self.memory.slice(DETOUR_MODULES_AT, detour::MAX_MODULES)
    }

    /// The jumps at the start of the detoured functions, for all modules with detours.
    pub(crate) fn detour_patches(&self) -> &[Patch] {
        self.memory.slice(DETOUR_PATCHES_AT, detour::MAX_PATCHES)
    }

    /// The code to which the jumps at the start of the detoured functions lead, for all modules.
    pub(crate) fn detour_code(&self) -> &[AtomicU8] {
        self.memory.slice(DETOUR_CODE_AT, detour::CODE_BYTES)
    }

    /// The memory map of the target at the time when the target attached to the session.
    pub(crate) fn maps(&self) -> Vec<u8> {
        let bytes = (self.header().maps_bytes.load(Ordering::Acquire) as usize).min(MAPS_BYTES);
        let cells: &[std::sync::atomic::AtomicU8] = self.memory.slice(MAPS_AT, bytes);
        cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect()
    }
}

/// Wakes all threads that wait for a change of a number in shared memory (futex).
pub(crate) fn wake(word: &std::sync::atomic::AtomicU32) {
    // SAFETY: the number `word` is in mapped memory, and FUTEX_WAKE reads and writes no memory.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Waits (futex) as long as a number in shared memory has the value `value`, but no longer than `at_most`.
/// The function may also return too early, although the value has not changed.
pub(crate) fn wait(word: &std::sync::atomic::AtomicU32, value: u32, at_most: std::time::Duration) {
    let timeout =
        libc::timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
    // SAFETY: the number `word` and the timeout outlive the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const timeout) };
}
