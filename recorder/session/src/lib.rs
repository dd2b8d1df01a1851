//! The shared memory of one recorded process: layouts that preload and collector agree on. `no_std`, no policy.
//!
//! ```text
//!  control (one page)            one per recording: the launcher's process tree
//!    root pid, options, slots ──▶ which session is free, which is claimed by whom
//!
//!  session (one per image)       created by the collector, claimed by a target when it starts
//!    header    handshake, geometry, losses
//!    shards    who owns which set of counters
//!    slots     caller → site id and action (hash table, read without a lock)
//!    infos     site id → caller
//!    callers   caller → what the hot path does there, in one word
//!    counters  [shard][site id] → allocated bytes, allocations, freed bytes, frees
//!    wrappers  sorted pc ranges whose frames are stepped over
//!    maps      the target's memory map as it was when it attached
//!    events    modules loaded and unloaded since
//!    stacks    the stacks of watched sites, and the rules to walk them by
//! ```
//!
//! Everything here is plain memory with a fixed layout. The target trusts it; the collector does not, because a broken
//! target may have written anything: it keeps its own geometry and checks every index it reads.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
#![warn(unreachable_pub)]

mod atomic;
pub mod caller;
pub mod control;
pub mod counters;
pub mod event;
pub mod header;
pub mod layout;
pub mod only;
pub mod rule;
pub mod site;
pub mod stack;
pub mod wrapper;

macro_rules! version {
    () => {
        8
    };
}

/// Changes with every change of a layout in this crate; preload and collector of different builds refuse each other.
pub const VERSION: u32 = version!();

/// What the preload library says of itself in an ELF note: edleak-record looks for it before it uses a library.
pub const IDENTITY: &str =
    concat!("edleak-preload ", env!("CARGO_PKG_VERSION"), " (session layout ", version!(), ")\0");

/// Name of the environment variable that tells the preload where the control page is: `/proc/COLLECTOR/fd/N#NONCE`.
pub const ENV_SESSION: &str = "EDLEAK_SESSION";

/// Name of the environment variable with the patterns of the programs to record, separated by colons; unset: all.
pub const ENV_ONLY: &str = "EDLEAK_ONLY";
