//! The layouts of the shared memory of one recorded process. The preload library and the collector use the
//! same layouts. This crate is `no_std`. The crate contains the layouts, and the functions that read and
//! write memory in these layouts.
//!
//! ```text
//!  control (one page)            one per recording, for all processes of the run
//!    root pid, options, slots ──▶ each slot: empty, claimed, or the descriptor of a fresh session
//!
//!  session (one per image)       created by the collector, claimed by a target when it starts
//!    header    handshake, sizes, losses
//!    shards    the thread that owns each set of counters
//!    slots     caller → site id and action (hash table, read without a lock)
//!    infos     site id → caller
//!    callers   return address → its site or its unwind rule, in 8 bytes, for the hot path
//!    counters  [shard][site id] → allocated bytes, allocations, freed bytes, frees
//!    wrappers  sorted ranges of code addresses whose frames are skipped
//!    maps      the target's memory map at the time it attached
//!    events    modules that the target loaded and unloaded after it attached
//!    detours   jumps for the functions of allocators, and the code to which the jumps lead
//!    stacks    the stacks of watched sites, and the unwind rules
//!    marks     the name and the count of each mark, and the slices taken at marks
//!    mappings  a ring of events: the ranges of address space that the program mapped, unmapped and gave back
//!    pools     a ring of events: the objects that the program's own pools handed out and took back
//! ```
//!
//! If the preload library waits for a recording, its state is not in a session, but in the target's own
//! memory ([`idle`]).
//!
//! The session is plain memory with a fixed layout. The target trusts the content of the session. The
//! collector does not trust the content of the session, because a broken target may have written any bytes.
//! The collector keeps its own copy of all sizes and checks every index that it reads from the session.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

mod atomic;
pub mod caller;
pub mod control;
pub mod counters;
pub mod detour;
pub mod event;
pub mod header;
pub mod idle;
pub mod layout;
pub mod mapping;
pub mod mark;
pub mod only;
pub mod pool;
pub mod rule;
pub mod site;
pub mod stack;
pub mod wrapper;

macro_rules! version {
    () => {
        21
    };
}

/// The version number of all layouts in this crate. A developer who changes a layout increments the version
/// number. A preload library and a collector with different version numbers refuse to work together.
pub const VERSION: u32 = version!();

/// The version text that the preload library stores in an ELF note. edleak-record checks this text before it
/// uses a library.
pub const IDENTITY: &str =
    concat!("edleak-preload ", env!("CARGO_PKG_VERSION"), " (session layout ", version!(), ")\0");

/// The environment variable through which the preload finds the control page: `/proc/COLLECTOR/fd/N#NONCE`.
pub const ENV_SESSION: &str = "EDLEAK_SESSION";

/// The environment variable that selects the programs to record: patterns for their names, separated by
/// colons. If the variable is not set, edleak records all programs.
pub const ENV_ONLY: &str = "EDLEAK_ONLY";

/// The environment variable that makes the library wait until a recording begins. The library waits if the
/// value of `EDLEAK_IDLE` is neither `0` nor empty.
pub const ENV_IDLE: &str = "EDLEAK_IDLE";
