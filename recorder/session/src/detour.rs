//! Detours: the jumps that the target writes at the entries of allocator functions in its modules. The
//! target writes the jumps of detours while it has only one thread. In a process that was running before
//! the recording began, the collector itself writes the jumps, and the tables of jumps in the session are
//! not used.
//!
//! The collector fills the tables of modules and jumps before it sets `Header::ready`. For each module, the
//! target then maps the code of the detours at the address for which the collector compiled this code. The
//! target stores the addresses of its hooks at the start of the code. After that, the target writes the
//! jumps of the module and stores the outcome in `DetourModule::result`.

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// Maximum number of modules with detours.
pub const MAX_MODULES: usize = 32;
/// Maximum number of jumps in all modules together.
pub const MAX_PATCHES: usize = 2048;
/// Maximum size in bytes of the code for all modules together.
pub const CODE_BYTES: usize = 512 << 10;
/// Maximum number of bytes that a jump replaces: four bytes plus the longest instruction.
pub const EXPECTED_BYTES: usize = 20;
/// Minimum distance in bytes between the starts of two counted allocations. For each allocation, the stubs
/// of detoured functions request at least `SPACING` bytes, so that the starts of two allocations have this
/// distance.
pub const SPACING: usize = 32;

/// The hook to which the stub of a detoured function jumps. The number of a hook is its index in the table of
/// hooks at the start of each module's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Hook {
    /// The function returns an allocation whose size in bytes is in r10.
    Allocate,
    /// The function stores the address of an allocation in memory, at the address in rax.
    PosixMemalign,
    /// The function moves the allocation whose address is in rax.
    Reallocate,
    /// The function moves the allocation whose address is in rax, or frees the allocation if the move fails.
    ReallocateOrFree,
    /// The function resizes the allocation whose address is in rax, without moving the allocation.
    Resize,
    /// The function frees its first argument.
    Free,
    /// mmap: the function maps memory.
    Map,
    /// munmap: the function unmaps memory.
    Unmap,
    /// mremap: the function moves or resizes a mapping.
    Remap,
    /// shmat: the function maps a segment of shared memory.
    AttachSegment,
    /// shmdt: the function unmaps a segment of shared memory.
    DetachSegment,
    /// madvise: the function may give pages back to the kernel.
    GiveBack,
}

/// Number of entries in the table of hooks; some entries are not used.
pub const HOOKS: usize = 16;

/// The detours of one module.
#[repr(C)]
#[derive(Default)]
pub struct DetourModule {
    /// The address for which the collector compiled the code of the detours.
    pub address: AtomicU64,
    /// Number of bytes of code, including the table of hooks at the start of the code.
    pub code_bytes: AtomicU32,
    /// Offset in bytes of this module's code in the region for the code of all modules.
    pub code_at: AtomicU32,
    /// Index of the module's first jump in the table of jumps.
    pub first_patch: AtomicU32,
    /// Number of jumps of this module.
    pub patches: AtomicU32,
    /// The outcome: one of the constants of this file, from [`WAITING`] to [`UNPROTECTED`].
    pub result: AtomicU32,
    /// The error number of the system call that failed.
    pub errno: AtomicU32,
}

/// A jump that the target must write.
#[repr(C)]
pub struct Patch {
    /// The address at which the target writes the jump.
    pub address: AtomicU64,
    /// Number of bytes in `expected`.
    pub expected_bytes: AtomicU32,
    /// The bytes that the target must find at the address before it writes the jump.
    pub expected: [AtomicU8; EXPECTED_BYTES],
    /// The bytes of the jump, which replace the first bytes of `expected`.
    pub jump: [AtomicU8; 8],
}
const _: () = assert!(core::mem::size_of::<Patch>() == 40);

/// The target has not tried to apply the detours of the module.
pub const WAITING: u32 = 0;
/// The target has written all jumps.
pub const DONE: u32 = 1;
/// The target could not map the code of the detours at the address for which the code was compiled.
pub const NO_PLACE: u32 = 2;
/// The system did not allow the target to make the memory for the code executable.
pub const NO_NEW_CODE: u32 = 3;
/// The system did not allow the target to change the module's code.
pub const NO_CHANGE: u32 = 4;
/// The module's code in memory differs from the code in the module's file.
pub const OTHER_BYTES: u32 = 5;
/// The target has written all jumps, but the system did not allow the target to make the code read-only
/// again.
pub const UNPROTECTED: u32 = 6;
