//! The kinds of record in a catalog block: everything in a trace that is not a slice.
//!
//! A later record with the same key replaces the earlier one. `Module`, `Site`, `Stack`, `Survivors`,
//! `Symbols`, `MemoryArea`, `Allocator`, `Mark`, `MarkSlice`, `ThreadStart`, `WatchEnd`, `Pool`,
//! `UncountedFunctions` and `GivenBack` have an id as their key. Of each other kind, the trace keeps one
//! record. Times are nanoseconds of a monotonic clock since the recording began. Addresses are addresses in
//! the target.

use crate::ids::{MarkId, ModuleId, PoolId, SiteId, StackId};
use crate::memory::MemoryArea;
use crate::slice::Counters;
use bincode::{Decode, Encode};

/// One record of the catalog. The place of a variant is its number in the file, so a new variant goes to the
/// end.
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
    /// Birth times of a watched site's surviving allocations.
    Survivors(Survivors),
    /// Symbols of one module, embedded so that the trace needs no binary.
    Symbols(ModuleSymbols),
    /// Events that the recording missed.
    Losses(Losses),
    /// The end of the recording. A trace without this record was cut short or is still being written.
    End(End),
    /// Number of child processes without a trace.
    Children(Children),
    /// An area of the process's memory. The slices hold the area's size. This record exists since version 3.
    MemoryArea(MemoryArea),
    /// A module with its own allocator. This record exists since version 3.
    Allocator(Allocator),
    /// Processor time of the process and of its children. This record exists since version 3.
    CpuTotals(CpuTotals),
    /// Processor time that the target used and waited for. This record exists since version 3.
    CpuUse(CpuUse),
    /// A mark: the name that the target or a user gave to instants. This record exists since version 3.
    Mark(Mark),
    /// The counters at one instant of a mark. This record exists since version 3.
    MarkSlice(MarkSlice),
    /// Numbers of marks without a name or a slice. This record exists since version 3.
    MarkLosses(MarkLosses),
    /// The state of a process that ran before its recording began. This record exists since version 3.
    Attached(Attached),
    /// The recording has the calls that map memory. This record exists since version 4.
    Mappings(Mappings),
    /// A caller that starts threads. This record exists since version 4.
    ThreadStart(ThreadStart),
    /// A site whose stacks are no longer recorded. This record exists since version 4.
    WatchEnd(WatchEnd),
    /// The pools of one name. This record exists since version 5.
    Pool(Pool),
    /// The recording has the objects of the program's own pools. This record exists since version 5.
    Pools(Pools),
    /// Functions of a counted allocator whose calls are not counted. This record exists since version 5.
    UncountedFunctions(UncountedFunctions),
    /// Memory that the program gave back with madvise. This record exists since version 5.
    GivenBack(GivenBack),
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
    /// The period at the start of the recording, in ticks: a power of two. The period may have doubled since.
    /// 0 means unknown.
    pub period_ticks: u64,
    /// Machine of the target, as in `uname -m`.
    pub machine: String,
    /// Version of the recorder that wrote the trace.
    pub recorder: String,
}

/// A file mapped into the target.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Module {
    /// The module's id; sites and stacks refer to it.
    pub id: ModuleId,
    /// Path as the target's memory map names it.
    pub path: String,
    /// The GNU build ID; empty if the file has none.
    pub build_id: Vec<u8>,
    /// Runtime address minus link-time address. A runtime address minus this value is an address in the
    /// file's symbol table.
    pub load_bias: u64,
    /// First address of the mapping.
    pub start: u64,
    /// One past the last address of the mapping.
    pub end: u64,
    /// Time at which the collector first saw the module.
    pub loaded_ns: u64,
    /// Time at which the collector saw that the module is gone; 0 while it is loaded.
    pub unloaded_ns: u64,
}

/// The kind of a site.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum SiteKind {
    /// The first caller that is not an allocation wrapper.
    Caller,
    /// One full stack of a watched site.
    Stack,
    /// The site for all allocations whose own site found no place in the site table.
    Other,
    /// The leak that `--inject-leak` makes; it has no code in the target.
    Injected,
    /// A caller of mmap, mremap or shmat. Such a site belongs to the domain of mapped memory, and its bytes
    /// are address space. This kind exists since version 4.
    Mapping,
    /// An allocator that maps memory for itself. The sites that ask the allocator for memory count this
    /// memory already, so the analyzer does not judge this site. This kind exists since version 4.
    AllocatorMapping,
    /// A caller of the program's own pools. Such a site belongs to the domain of pools. The memory of a pool
    /// is also counted where the pool takes it from. This kind exists since version 5.
    Pool(PoolId),
}

/// A site and its address.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Site {
    /// The site's id; slices refer to it.
    pub id: SiteId,
    /// The kind of the site.
    pub kind: SiteKind,
    /// The caller's site; only for a stack of a watched site.
    pub parent: Option<SiteId>,
    /// The return address in the caller. 0 if the site has no address: `Other`, `Injected`, and a mapping or
    /// a caller of a pool that found no place in the site table.
    pub address: u64,
    /// The module that holds the address; `None`: unknown.
    pub module: Option<ModuleId>,
    /// The full stack of a watched site. For a caller of a pool: the place in the pool's own function, then
    /// the caller of that function.
    pub stack: Option<StackId>,
}

/// A call stack: return addresses, innermost first.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Stack {
    /// The stack's id; sites refer to it.
    pub id: StackId,
    /// The frames, innermost first.
    pub frames: Vec<StackFrame>,
    /// Whether the walk stopped early: the stack is deeper than the limit, or a frame has no unwind rule.
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

/// Birth times of a watched site's surviving allocations, in equal epochs, oldest first.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Survivors {
    /// The site.
    pub site: SiteId,
    /// The epochs, oldest first; consecutive and without gaps.
    pub epochs: Vec<Epoch>,
    /// Time at which the collector last saw a free at this site; 0: never.
    pub last_free_ns: u64,
    /// Upper bound of the age of the oldest allocation that was freed.
    pub max_age_at_free_ns: u64,
}

/// One birth epoch: the allocations that were made in one span of time.
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

/// Symbols of one module, embedded so that the trace needs no binary.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct ModuleSymbols {
    /// The module.
    pub module: ModuleId,
    /// The frames of each of this module's addresses that occur in the trace, by ascending offset.
    pub addresses: Vec<AddressSymbols>,
}

/// The frames of one address.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct AddressSymbols {
    /// The return address minus the module's load bias.
    pub offset: u64,
    /// Inlined frames first, from the innermost outwards; the last frame is the function itself.
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
    /// Whether the function was inlined into the next frame.
    pub is_inlined: bool,
}

/// Events that the recording missed. Every number is a count since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Losses {
    /// Number of frees of addresses that no hook returned.
    pub unknown_frees: u64,
    /// Number of modules loaded or unloaded while the session had no room for the event. Sites in these
    /// modules may have no name.
    pub lost_module_events: u64,
    /// Number of allocations whose site found no place in the site table. The site of kind `Other` counts
    /// them.
    pub other_site_allocs: u64,
    /// Number of allocations that found no place in the side table, because no memory was left for it. The
    /// library did not count these allocations.
    pub untracked_allocs: u64,
    /// Number of slices that the collector did not take in time because the machine stalled.
    pub missed_slices: u64,
    /// Number of distinct stacks that found no place in the stack table. The library counted their
    /// allocations at the parent site.
    pub lost_stacks: u64,
    /// Number of images (after `exec`) and child processes that edleak could not record.
    pub unrecorded_images: u64,
}

/// Child processes that allocated memory and were not recorded, because the user did not give `--children`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Children {
    /// Lower bound of the number of these processes.
    pub unrequested: u64,
}

/// A module with its own allocator, which takes memory from the kernel and not from malloc.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Allocator {
    /// The module.
    pub module: ModuleId,
    /// The function whose name shows that the module has an allocator.
    pub symbol: String,
}

/// Functions of a module's allocator whose allocations the recording does not count, although it counts those
/// of the allocator's other functions.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct UncountedFunctions {
    /// The module.
    pub module: ModuleId,
    /// The functions, for example `mallocx`.
    pub symbols: Vec<String>,
}

/// Processor time as read from /proc when the recording ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct CpuTotals {
    /// Processor time of the process itself.
    pub own_ns: u64,
    /// Processor time of its children without a trace: ended children that it waited for, and children still
    /// running.
    pub children_ns: u64,
}

/// Processor time of the target between the first and the last slice in which it was alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct CpuUse {
    /// Time from the first reading of the processor time to the last.
    pub span_ns: u64,
    /// Processor time of all threads together.
    pub used_ns: u64,
    /// Time in which the main thread was ready to run and waited for a processor.
    pub waited_ns: u64,
}

/// All instants of one name: the calls of `edleak_mark` and the uses of `edleak-record mark`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Mark {
    /// The id of the mark.
    pub id: MarkId,
    /// The name. Bytes that are not UTF-8, and control characters, are written as `\xNN`.
    pub name: String,
    /// The name was longer; the trace does not have its end.
    pub is_cut: bool,
    /// How often the mark was set up to the newest record. If the recording ended in order, the newest record
    /// is from its end.
    pub count: u64,
}

/// The counters of the sites at one instant of a mark. Not every instant has a slice: of each name, the first
/// 64 instants have one, then 32 in each doubling of the count.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct MarkSlice {
    /// The number of this slice. All marks of a trace share one row of numbers, which begins at 0.
    pub number: u32,
    /// The id of the mark.
    pub mark: MarkId,
    /// How often the mark had been set, including this instant.
    pub count: u64,
    /// The tick of the first slice of the recording after this instant.
    pub tick: u64,
    /// Time at which the collector read the counters, at most one period after the instant.
    pub read_ns: u64,
    /// The slice with the next number has the other sites of this instant.
    pub goes_on: bool,
    /// The sites whose counters changed since the slice with the number before, with absolute counters, by
    /// ascending id. The slice before may belong to any mark.
    pub sites: Vec<(SiteId, Counters)>,
}

/// Numbers of marks and slices of marks that are not in the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct MarkLosses {
    /// Number of marks whose name found no place: a recording has room for 256 names.
    pub unnamed: u64,
    /// Number of due slices that the target took later or never, because another thread was taking a slice or
    /// the collector had not read the earlier slices.
    pub put_off: u64,
    /// Number of slices that the collector left out, because slices of marks take at most an eighth of the
    /// trace.
    pub left_out: u64,
}

/// A caller whose allocations libc makes for new threads: the site is a call of `pthread_create`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ThreadStart {
    /// The id of the caller's site.
    pub site: SiteId,
}

/// The end of a watch: from this time on, the allocations of a watched site count at the site and no longer
/// at its stacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct WatchEnd {
    /// The id of the caller's site.
    pub site: SiteId,
    /// Time at which the collector first saw that the site is no longer watched; 0: the site is watched
    /// again.
    pub at_ns: u64,
}

/// The state of a process that ran before its recording began. The recording does not know the allocations
/// from before.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Attached {
    /// Age of the process when the recording began.
    pub age_ns: u64,
    /// Resident anonymous memory of the process when the recording began (RssAnon).
    pub resident_bytes: u64,
    /// Number of frees of allocations from before, at a few instants, by ascending time.
    pub earlier_frees: Vec<EarlierFrees>,
}

/// Number of frees of allocations from before the recording, up to one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct EarlierFrees {
    /// Time since the recording began.
    pub at_ns: u64,
    /// Number of frees from the beginning of the recording up to this time.
    pub frees: u64,
}

/// The losses of the domain of mapped memory. A trace without this record does not have the domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Mappings {
    /// Number of lost calls of mmap and its kin. If a call was lost, the figures of the domain are lower
    /// bounds.
    pub lost_events: u64,
    /// Bytes that recorded calls mapped and that a call which edleak did not see unmapped.
    pub unmapped_unseen_bytes: u64,
}

/// The pages that a program gave back with madvise and kept mapped, in the mappings of one site.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct GivenBack {
    /// The site that mapped the range; `None`: the recorder lost these calls, and does not know their
    /// ranges.
    pub site: Option<SiteId>,
    /// Number of calls.
    pub calls: u64,
    /// Sum of the lengths of all calls, whether or not the pages were resident.
    pub bytes: u64,
}

/// The pools of one name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Pool {
    /// The id of the name.
    pub id: PoolId,
    /// The name that the program gave its pools; empty: pools without a name.
    pub name: String,
}

/// The totals and losses of the domain of pools. A trace without this record does not have the domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Pools {
    /// Number of pools that held objects when the record was written.
    pub pools: u64,
    /// Number of lost events of single objects. If one was lost, the figures of the domain are not exact.
    pub lost_events: u64,
    /// Number of lost events that concern all objects of a pool, for example resets.
    pub lost_resets: u64,
    /// Number of objects that a pool took back although it had not handed them out.
    pub unknown_frees: u64,
}

/// Why a recording ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum EndReason {
    /// The target exited with this status.
    Exited(i32),
    /// This signal killed the target.
    Killed(i32),
    /// The target ended in an unknown way, because it was not a child of the recorder.
    Gone,
    /// The time of `--duration` was over; the target may run on.
    DurationReached,
    /// A user or a signal asked the collector to stop; the target may run on.
    Stopped,
    /// The disk had no room left for the trace.
    DiskFull,
    /// The process executed a program that is not recorded.
    Replaced,
    /// The process executed another program, which has its own trace.
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
