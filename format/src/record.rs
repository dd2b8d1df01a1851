//! The kinds of record in a catalog block: everything in a trace that is not a slice.
//!
//! A later record with the same key replaces the earlier record. `Module`, `Site`, `Stack`, `Survivors`,
//! `Symbols`, `MemoryArea`, `Allocator`, `Mark`, `MarkSlice`, `ThreadStart`, `WatchEnd`, `Pool`,
//! `UncountedFunctions` and `GivenBack` have an id as their key. Of a kind without an id, a trace keeps only
//! the newest record. Times are nanoseconds of a monotonic clock since the recording began. Addresses are
//! addresses in the address space of the target.

use crate::ids::{MarkId, ModuleId, PoolId, SiteId, StackId};
use crate::memory::MemoryArea;
use crate::slice::Counters;
use bincode::{Decode, Encode};

/// One record of the catalog. The file stores a variant by its position in this list, so a new variant must
/// be added at the end.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[non_exhaustive]
pub enum Record {
    /// The recorded process and the clock of the recording.
    Start(Start),
    /// A file mapped into the target.
    Module(Module),
    /// A site and its address.
    Site(Site),
    /// A call stack of a watched site.
    Stack(Stack),
    /// For each birth epoch of a watched site: the allocations that the site made in this epoch, and those of
    /// them that are still live.
    Survivors(Survivors),
    /// Symbols of one module. If a trace contains the symbols of a module, a reader of the trace does not
    /// need the module's file.
    Symbols(ModuleSymbols),
    /// Events that the recording missed.
    Losses(Losses),
    /// The end of the recording. A trace without this record is still being written, or its end is lost
    /// because the recorder was killed.
    End(End),
    /// Number of child processes without a trace.
    Children(Children),
    /// A memory area of the process. The slices hold the area's size. The record `MemoryArea` exists since
    /// format version 3.
    MemoryArea(MemoryArea),
    /// A module with its own allocator. The record `Allocator` exists since format version 3.
    Allocator(Allocator),
    /// Processor time of the process and of its children. The record `CpuTotals` exists since format version
    /// 3.
    CpuTotals(CpuTotals),
    /// Processor time that the target used, and time for which the target waited for a processor. The record
    /// `CpuUse` exists since format version 3.
    CpuUse(CpuUse),
    /// A mark: the name that the target or a user gave to instants. The record `Mark` exists since format
    /// version 3.
    Mark(Mark),
    /// The counters at one instant at which a mark was set. The record `MarkSlice` exists since format
    /// version 3.
    MarkSlice(MarkSlice),
    /// Number of marks that are not in the trace, and number of slices of marks that are not in the trace.
    /// The record `MarkLosses` exists since format version 3.
    MarkLosses(MarkLosses),
    /// The state of a process that ran before its recording began. The record `Attached` exists since format
    /// version 3.
    Attached(Attached),
    /// Exists if the recording counts mapped memory; holds the number of lost calls of mmap and similar
    /// functions. The record `Mappings` exists since format version 4.
    Mappings(Mappings),
    /// A site that starts threads. The record `ThreadStart` exists since format version 4.
    ThreadStart(ThreadStart),
    /// A site whose stacks are no longer recorded. The record `WatchEnd` exists since format version 4.
    WatchEnd(WatchEnd),
    /// The pools of one name. The record `Pool` exists since format version 5.
    Pool(Pool),
    /// Exists if the recording counts the objects of the program's own pools; holds totals and losses. The
    /// record `Pools` exists since format version 5.
    Pools(Pools),
    /// Functions whose calls are not counted, although the other functions of the same allocator are counted.
    /// The record `UncountedFunctions` exists since format version 5.
    UncountedFunctions(UncountedFunctions),
    /// Memory that the program gave back with madvise. The record `GivenBack` exists since format version 5.
    GivenBack(GivenBack),
    /// The traces of the programs that the process executed before this one. The record `Earlier` exists
    /// since format version 5.
    Earlier(Earlier),
}

/// The recorded process and the clock of the recording. This is the first record of every trace.
#[derive(Clone, PartialEq, Debug, Default, Encode, Decode)]
pub struct Start {
    /// The program and its arguments; bytes that are not UTF-8 are replaced.
    pub command: Vec<String>,
    /// PID of the target.
    pub pid: u32,
    /// Wall-clock time at which the recording began, nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// Length of one tick in nanoseconds. A slice's `tick` is the number of ticks since the start.
    pub tick_ns: u64,
    /// The period at the start of the recording, in ticks: a power of two. The recorder may have doubled the
    /// period during the recording. 0: the period is unknown.
    pub period_ticks: u64,
    /// Machine of the target, as in `uname -m`.
    pub machine: String,
    /// Version of the recorder that wrote the trace.
    pub recorder: String,
}

/// A file mapped into the target.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Module {
    /// The id by which sites and stacks refer to the module.
    pub id: ModuleId,
    /// Path of the file, as in the target's memory map.
    pub path: String,
    /// The GNU build ID; empty if the file has none.
    pub build_id: Vec<u8>,
    /// Runtime address minus link-time address. To find a runtime address in the file's symbol table,
    /// subtract this value from the address.
    pub load_bias: u64,
    /// First address of the mapping.
    pub start: u64,
    /// End of the mapping: one past its last address.
    pub end: u64,
    /// Time at which the collector first saw the module. No verdict depends on this time. The time tells a
    /// reader of the trace in which order the modules came.
    pub loaded_ns: u64,
    /// Time at which the collector saw that the target had unloaded the module; 0 while the module is loaded.
    pub unloaded_ns: u64,
}

/// The kind of a site.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum SiteKind {
    /// The function that called for an allocation: the innermost caller that is not a wrapper such as
    /// `xmalloc`.
    Caller,
    /// One full stack of a watched site.
    Stack,
    /// The site that counts the allocations of all sites for which the site table had no room.
    Other,
    /// The leak that `--inject-leak` makes; no code of the target allocates it.
    Injected,
    /// A caller of mmap, mremap or shmat. A site of kind `Mapping` belongs to the domain of mapped memory,
    /// and counts bytes of address space. The kind `Mapping` exists since format version 4.
    Mapping,
    /// An allocator that maps memory for itself. The sites that request memory from the allocator already
    /// count this memory, so the analyzer gives no verdict on a site of kind `AllocatorMapping`. The kind
    /// `AllocatorMapping` exists since format version 4.
    AllocatorMapping,
    /// A caller of the program's own pools. A site of kind `Pool` belongs to the domain of pools. The memory
    /// of a pool's objects is also counted at the site from which the pool gets its memory. The kind `Pool`
    /// exists since format version 5.
    Pool(PoolId),
}

/// A site and its address.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Site {
    /// The id by which slices refer to the site.
    pub id: SiteId,
    /// The kind of the site.
    pub kind: SiteKind,
    /// For a site of kind `Stack`: the site of kind `Caller` to which the stack belongs. `None` for a site of
    /// any other kind.
    pub parent: Option<SiteId>,
    /// The return address in the caller. 0 if the site has no address: `Other`, `Injected`, and a caller of
    /// mmap or of a pool that had no room in the site table.
    pub address: u64,
    /// The module that holds the address; `None`: unknown.
    pub module: Option<ModuleId>,
    /// The full stack of a watched site. For a caller of a pool: the return address in the pool's own
    /// function, then the return address in the caller of that function.
    pub stack: Option<StackId>,
}

/// A call stack: return addresses, innermost first.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Stack {
    /// The id by which sites refer to the stack.
    pub id: StackId,
    /// The frames, innermost first.
    pub frames: Vec<StackFrame>,
    /// Whether frames are missing at the outer end, because the stack is deeper than the limit or a frame has
    /// no unwind rule.
    pub is_cut: bool,
}

/// One return address of a stack.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub struct StackFrame {
    /// The return address.
    pub address: u64,
    /// The module that holds the address; `None`: unknown.
    pub module: Option<ModuleId>,
}

/// The allocations of a watched site by the time at which the program made them: one entry for each epoch.
/// All epochs have the same length.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Survivors {
    /// The site.
    pub site: SiteId,
    /// The epochs, oldest first; each epoch begins where the previous epoch ends.
    pub epochs: Vec<Epoch>,
    /// Time at which the collector last saw that an allocation of this site was freed; 0: never.
    pub last_free_ns: u64,
    /// The greatest age that an allocation of this site had when the program freed the allocation.
    pub max_age_at_free_ns: u64,
}

/// One birth epoch: the allocations that one site made in one span of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Epoch {
    /// Start of the epoch.
    pub from_ns: u64,
    /// End of the epoch (exclusive).
    pub to_ns: u64,
    /// Bytes allocated in the epoch and still live.
    pub live_bytes: u64,
    /// Allocations made in the epoch and still live.
    pub live_count: u64,
    /// Allocations made in the epoch.
    pub allocs: u64,
}

/// Symbols of one module. If a trace contains the symbols of a module, a reader of the trace does not need
/// the module's file.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct ModuleSymbols {
    /// The module.
    pub module: ModuleId,
    /// All addresses of this module that occur in the trace, with their frames, by ascending offset.
    pub addresses: Vec<AddressSymbols>,
}

/// The functions, files and lines of one return address; several if functions are inlined there.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct AddressSymbols {
    /// The return address minus the module's load bias.
    pub offset: u64,
    /// The frames, innermost first: the inlined functions, and last the function into which they are inlined.
    pub frames: Vec<SymbolFrame>,
}

/// One frame of source code.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct SymbolFrame {
    /// The function's name, demangled.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line number, counted from 1; 0: unknown.
    pub line: u32,
    /// Whether the compiler inlined the function into the next frame.
    pub is_inlined: bool,
}

/// Events that the recording missed. Each number is the count since the recording began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Losses {
    /// Number of frees for which edleak had not seen the allocation.
    pub unknown_frees: u64,
    /// Number of modules that were loaded or unloaded while the session had no room for the event. The
    /// analyzer may not find the names of sites in a module whose event was lost.
    pub lost_module_events: u64,
    /// Number of allocations whose site had no room in the site table. The site of kind `Other` counts the
    /// allocations of all sites without room in the site table.
    pub other_site_allocs: u64,
    /// Number of allocations that the preload library did not count, because it had no memory for its table
    /// of allocations.
    pub untracked_allocs: u64,
    /// Number of slices that the collector took too late, or never took, because the machine was too busy.
    pub missed_slices: u64,
    /// Number of distinct stacks that had no room in the stack table. If a stack had no room, the preload
    /// library counted its allocations at the site of the stack's caller.
    pub lost_stacks: u64,
    /// Number of child processes, and of programs started with `exec`, that edleak could not record.
    pub unrecorded_images: u64,
}

/// The child processes that allocated memory and were not recorded because the user did not give
/// `--children`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Children {
    /// Lower bound of the number of child processes that were not recorded.
    pub unrequested: u64,
}

/// A module with its own allocator. This allocator gets its memory from the kernel and not from malloc.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Allocator {
    /// The module.
    pub module: ModuleId,
    /// A function of the module; its name shows that the module has an allocator.
    pub symbol: String,
}

/// Those functions of a module's allocator whose allocations the recording does not count. The recording
/// counts the allocations of all other functions of the same allocator.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct UncountedFunctions {
    /// The module.
    pub module: ModuleId,
    /// The names of the functions, for example `mallocx`.
    pub symbols: Vec<String>,
}

/// Processor time of the process and its children, as read from /proc when the recording ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct CpuTotals {
    /// Processor time of the process itself.
    pub own_ns: u64,
    /// Processor time of the children that have no trace. Two kinds of children count: children that have
    /// ended and for which the process waited, and children that are still running.
    pub children_ns: u64,
}

/// Processor time of the target between the first and the last slice in which it was alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct CpuUse {
    /// Time from the first to the last instant at which the collector read the processor time.
    pub span_ns: u64,
    /// Processor time of all threads together.
    pub used_ns: u64,
    /// Time in which the main thread was ready to run but had no processor.
    pub waited_ns: u64,
}

/// A name of marks, and how often a mark with this name was set by `edleak_mark` or `edleak-record mark`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Mark {
    /// The id of the mark.
    pub id: MarkId,
    /// The name. Bytes that are not UTF-8, and control characters, are written as `\xNN`.
    pub name: String,
    /// Whether the trace has only the first part of the name, because the name was too long.
    pub is_cut: bool,
    /// Number of times that the mark was set before this record was written. If the recorder is not killed,
    /// it writes this record again at the end of the recording.
    pub count: u64,
}

/// The counters of the sites at one instant of a mark. Not every instant of a mark has a `MarkSlice`: for
/// each name, the first 64 instants have one, and after that 32 instants each time the number of instants
/// doubles.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct MarkSlice {
    /// The number of this mark slice. The slices of all marks of a trace are numbered together, from 0.
    pub number: u32,
    /// The id of the mark.
    pub mark: MarkId,
    /// Number of times that the mark had been set when the slice was taken, including this time.
    pub count: u64,
    /// The tick of the first ordinary slice that the recorder took after the mark was set.
    pub tick: u64,
    /// Time at which the collector read the counters, at most one period after the mark was set.
    pub read_ns: u64,
    /// Whether the slice with the next number contains further sites of this instant.
    pub goes_on: bool,
    /// The sites whose counters changed since the mark slice with the previous number, with absolute
    /// counters, by ascending id. The previous mark slice may belong to any mark.
    pub sites: Vec<(SiteId, Counters)>,
}

/// Number of marks that are not in the trace, and number of slices of marks that are not in the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct MarkLosses {
    /// Number of marks whose name is lost: a recording has room for 256 names.
    pub unnamed: u64,
    /// Number of mark slices that the target took too late or never, because another thread was taking a
    /// slice or the collector had not yet read the previous slices.
    pub put_off: u64,
    /// Number of slices that the collector did not write, because slices of marks may take at most 1/8 of the
    /// trace.
    pub left_out: u64,
}

/// A site that starts threads: it calls `pthread_create`, and libc then allocates memory for the new thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ThreadStart {
    /// The id of the site that calls `pthread_create`.
    pub site: SiteId,
}

/// The end of the watch of a caller. After the end, the recording counts new allocations of the caller at the
/// caller's site and no longer at the sites of its stacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct WatchEnd {
    /// The id of the caller's site.
    pub site: SiteId,
    /// Time at which the collector first saw that the watch had ended; 0: the site is watched again.
    pub at_ns: u64,
}

/// The state of a process that ran before its recording began. The recording does not know the allocations
/// that the process made before the recording began.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Attached {
    /// Age of the process when the recording began.
    pub age_ns: u64,
    /// Resident anonymous memory of the process when the recording began (RssAnon).
    pub resident_bytes: u64,
    /// Number of frees of allocations that are older than the recording, at a few instants, by ascending
    /// time.
    pub earlier_frees: Vec<EarlierFrees>,
}

/// Number of frees of allocations that are older than the recording, up to one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct EarlierFrees {
    /// Time up to which `frees` counts, in nanoseconds since the recording began.
    pub at_ns: u64,
    /// Number of frees of allocations that are older than the recording, up to the instant `at_ns`.
    pub frees: u64,
}

/// The losses of the domain of mapped memory. A trace without this record has no domain of mapped memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Mappings {
    /// Number of lost calls of mmap and similar functions. If events were lost, the counts of mapped memory
    /// in the trace are lower bounds.
    pub lost_events: u64,
    /// Number of bytes that a recorded call mapped and that the process later unmapped without a call that
    /// edleak saw.
    pub unmapped_unseen_bytes: u64,
}

/// Pages in the mappings of one site that the program gave back with madvise but kept mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct GivenBack {
    /// The site that mapped the range; `None`: the recorder lost the calls of madvise and does not know their
    /// ranges.
    pub site: Option<SiteId>,
    /// Number of calls of madvise.
    pub calls: u64,
    /// Sum of the lengths that the program passed to madvise. The sum also counts pages that were not
    /// resident, so it can be greater than the memory that became free.
    pub bytes: u64,
}

/// The programs that the process executed before the recorded one, and that ran long enough for a trace of
/// their own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Earlier {
    /// The file name of each of these traces, without the directory, in order of time.
    pub traces: Vec<String>,
}

/// The pools of one name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Pool {
    /// The id by which sites refer to the pools.
    pub id: PoolId,
    /// The name that the program gave its pools; empty: pools without a name.
    pub name: String,
}

/// The totals and losses of the domain of pools. A trace without this record has no domain of pools.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Pools {
    /// Number of pools that held objects when the record was written.
    pub pools: u64,
    /// Number of lost events each of which concerns one object of a pool. If events were lost, the counts of
    /// pool objects in the trace are not exact.
    pub lost_events: u64,
    /// Number of lost events that concern all objects of a pool, for example resets.
    pub lost_resets: u64,
    /// Number of objects that the program returned to a pool although the pool had not handed them out.
    pub unknown_frees: u64,
}

/// The reason why a recording ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum EndReason {
    /// The target exited with this status.
    Exited(i32),
    /// This signal killed the target.
    Killed(i32),
    /// The target ended in an unknown way, because it was not a child of the recorder.
    Gone,
    /// The time given with `--duration` has passed; the target may still run.
    DurationReached,
    /// A user or a signal asked the collector to stop; the target may still run.
    Stopped,
    /// The disk had no room left for the trace.
    DiskFull,
    /// The process executed (exec) another program, and edleak does not record that program.
    Replaced,
    /// The process executed (exec) another program, and edleak recorded that program into a trace of its own.
    Executed,
}

/// How the recording ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct End {
    /// The reason for the end.
    pub reason: EndReason,
    /// Time of the end, in nanoseconds since the recording began.
    pub at_ns: u64,
}
