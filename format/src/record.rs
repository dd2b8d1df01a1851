//! The kinds of record a catalog block holds: everything in a trace that is not a slice.
//!
//! A later record about the same thing replaces the earlier one: `Start`, `End`, `Losses`, `Children` and `Processor` are single, `Module`, `Site`,
//! `Stack`, `Survivors` and `Symbols` are keyed by their id. Times are nanoseconds of a monotonic clock since the
//! recording began; addresses are those of the target's address space.

use crate::ids::{ModuleId, SiteId, StackId};
use crate::memory::MemoryArea;
use bincode::{Decode, Encode};

/// One record of the catalog.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[non_exhaustive]
pub enum Record {
    /// What was recorded, and with which clock.
    Start(Start),
    /// A file mapped into the target.
    Module(Module),
    /// A site and where it is.
    Site(Site),
    /// A call stack of a watched site.
    Stack(Stack),
    /// When the surviving allocations of a watched site were made.
    Survivors(Survivors),
    /// Symbols of one module, embedded so that the trace needs no binary.
    Symbols(ModuleSymbols),
    /// What the recording could not see.
    Losses(Losses),
    /// How the recording ended. A trace without it was cut short.
    End(End),
    /// Child processes that have no trace.
    Children(Children),
    /// An area of the process's memory that slices have the size of. Since version 3.
    MemoryArea(MemoryArea),
    /// An allocator of its own that a module has. Since version 3.
    Allocator(Allocator),
    /// Processor time of the process and of its children. Since version 3.
    CpuTime(CpuTime),
    /// How much processor time the target used and waited for. Since version 3.
    Processor(Processor),
}

/// What was recorded, and with which clock. The first record of every trace.
#[derive(Clone, PartialEq, Debug, Default, Encode, Decode)]
pub struct Start {
    /// The program and its arguments; bytes that are not UTF-8 are replaced.
    pub command: Vec<String>,
    /// The process recorded.
    pub pid: u32,
    /// Wall-clock time at which the recording began, nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// Length of one tick: a slice's `tick` counts these since the start.
    pub tick_ns: u64,
    /// The period that the recording began with, in ticks: a power of two. It may have doubled since. 0: not said.
    pub period_ticks: u64,
    /// Machine of the target, as in `uname -m`.
    pub machine: String,
    /// Version of the recorder that wrote the trace.
    pub recorder: String,
}

/// A file mapped into the target.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Module {
    /// Its id; records of sites and stacks refer to it.
    pub id: ModuleId,
    /// Path as the target's memory map names it.
    pub path: String,
    /// The GNU build ID, empty where the file has none.
    pub build_id: Vec<u8>,
    /// Runtime address minus link-time address: what to subtract to get an address of the file's symbols.
    pub load_bias: u64,
    /// First address of the mapping.
    pub start: u64,
    /// One past its last address.
    pub end: u64,
    /// When it was first seen.
    pub loaded_ns: u64,
    /// When it was seen to be gone; 0 while it is loaded.
    pub unloaded_ns: u64,
}

/// What a site stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum SiteKind {
    /// The first caller that is not an allocation wrapper.
    Caller,
    /// One full stack of a watched site.
    Stack,
    /// Everything that found no place in the site table.
    Other,
    /// The known leak of `--inject-leak`: no code of the target's.
    Injected,
}

/// A site and where it is.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Site {
    /// Its id; slices refer to it.
    pub id: SiteId,
    /// What it stands for.
    pub kind: SiteKind,
    /// The caller's site, for a stack of a watched site.
    pub parent: Option<SiteId>,
    /// The return address in the caller; 0 where there is none (`Other`, `Injected`).
    pub address: u64,
    /// The module the address lies in, where it is known.
    pub module: Option<ModuleId>,
    /// The full stack, for a watched site.
    pub stack: Option<StackId>,
}

/// A call stack: return addresses, innermost first.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Stack {
    /// Its id; sites refer to it.
    pub id: StackId,
    /// The frames, innermost first.
    pub frames: Vec<StackFrame>,
    /// The walk stopped early: deeper than the limit, or a frame without an unwind rule.
    pub is_cut: bool,
}

/// One return address of a stack.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub struct StackFrame {
    /// The return address.
    pub address: u64,
    /// The module it lies in, where it is known.
    pub module: Option<ModuleId>,
}

/// When the surviving allocations of a watched site were made: equal epochs over the recording, oldest first.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct Survivors {
    /// The site.
    pub site: SiteId,
    /// The epochs, oldest first; consecutive and without gaps.
    pub epochs: Vec<Epoch>,
    /// When an allocation of this site was last seen to be freed; 0 if never.
    pub last_free_ns: u64,
    /// Upper bound of the age of the oldest allocation that was ever freed.
    pub max_age_at_free_ns: u64,
}

/// One birth epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Epoch {
    /// Its start.
    pub from_ns: u64,
    /// Its end (exclusive).
    pub to_ns: u64,
    /// Bytes allocated in it and still live.
    pub live_bytes: u64,
    /// Allocations made in it and still live.
    pub live_count: u64,
    /// Allocations made in it.
    pub allocs: u64,
}

/// Symbols of one module, embedded so that the trace needs no binary.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct ModuleSymbols {
    /// The module.
    pub module: ModuleId,
    /// The frames of every address that the trace names in it, by ascending offset.
    pub addresses: Vec<AddressSymbols>,
}

/// The frames of one address.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct AddressSymbols {
    /// The return address minus the module's load bias.
    pub offset: u64,
    /// Inlined frames first, innermost first; the last one is the function itself.
    pub frames: Vec<SymbolFrame>,
}

/// One frame of source code.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub struct SymbolFrame {
    /// The function's name, demangled.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line, from 1; 0 where it is unknown.
    pub line: u32,
    /// The function was inlined into the next frame.
    pub is_inlined: bool,
}

/// What the recording could not see. Every number is a count since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Losses {
    /// Frees of addresses that no hook ever handed out.
    pub unknown_frees: u64,
    /// Modules loaded or unloaded while there was no room to tell of it: sites in them may have no name.
    pub lost_module_events: u64,
    /// Allocations whose site found no place in the site table; they are in the site of kind `Other`.
    pub other_site_allocs: u64,
    /// Allocations that found no place in the side table (no memory for it); they are not counted.
    pub untracked_allocs: u64,
    /// Slices that were due and not taken because the machine stalled.
    pub missed_slices: u64,
    /// Distinct stacks that found no place in the stack table; their allocations stay with the parent site.
    pub lost_stacks: u64,
    /// Images (after `exec`) and child processes that could not be recorded.
    pub unrecorded_images: u64,
}

/// Child processes that allocated something and were not recorded, because nobody asked for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Children {
    /// At least so many.
    pub unasked: u64,
}

/// A module has an allocator of its own, which takes memory from the kernel and not from malloc.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Allocator {
    /// The module.
    pub module: ModuleId,
    /// A function by which it is known.
    pub symbol: String,
}

/// Processor time, as /proc has it when the recording ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct CpuTime {
    /// Of the process itself.
    pub own_ns: u64,
    /// Of its children without a trace: those that it has waited for, and those that still ran.
    pub children_ns: u64,
}

/// Processor time of the target between the first and the last slice that it was seen alive in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Processor {
    /// Time from the first reading to the last.
    pub span_ns: u64,
    /// Processor time that all its threads used.
    pub used_ns: u64,
    /// Time that its main thread was ready to run and waited for a processor.
    pub waited_ns: u64,
}

/// Why a recording ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum EndReason {
    /// The target exited by itself with this status.
    Exited(i32),
    /// This signal killed the target.
    Killed(i32),
    /// The target ended; how is not known (it was not the recorder's child).
    Gone,
    /// `--duration` was over; the target may run on.
    DurationReached,
    /// The recorder was asked to stop; the target may run on.
    Stopped,
    /// There was no room for the trace.
    DiskFull,
    /// The process executed a program that is not recorded.
    Replaced,
    /// The process executed another program, which has a trace of its own.
    Executed,
}

/// How the recording ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// When.
    pub at_ns: u64,
}
