//! Detours: bytes that the target writes over the entries of allocators inside its modules, before it has
//! threads.
//!
//! The collector fills these tables before it sets `Header::ready`. The target then maps the code of each
//! module where it was compiled for, puts the addresses of its hooks at its beginning, and writes the jumps;
//! what became of it stands in `result`.

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// Modules that can have detours.
pub const MAX_MODULES: usize = 32;
/// Jumps of all modules together.
pub const MAX_PATCHES: usize = 2048;
/// Code of all modules together.
pub const CODE_BYTES: usize = 512 << 10;
/// Bytes of code that a jump takes the place of, at most: four and the longest instruction.
pub const EXPECTED_BYTES: usize = 20;
/// Blocks that the target counts lie so far apart: stubs ask for at least so much.
pub const SPACING: usize = 32;

/// What a stub leads to: a place in the table at the beginning of each module's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Hook {
    /// The function returns an allocation of r10 bytes.
    Allocate,
    /// It stores one at rax.
    PosixMemalign,
    /// It moves the allocation rax.
    Reallocate,
    /// It moves the allocation rax, or frees it.
    ReallocateOrFree,
    /// It resizes the allocation rax in place.
    Resize,
    /// It frees its first argument.
    Free,
}

/// How many hooks there are, with room for more.
pub const HOOKS: usize = 8;

/// The code of one module.
#[repr(C)]
#[derive(Default)]
pub struct DetourModule {
    /// Where its code was compiled for.
    pub address: AtomicU64,
    /// Bytes of code, which begin with the table of hooks.
    pub code_bytes: AtomicU32,
    /// Where they lie in the region of code.
    pub code_at: AtomicU32,
    /// The first jump.
    pub first_patch: AtomicU32,
    /// How many there are.
    pub patches: AtomicU32,
    /// What became of it: [`WAITING`], [`DONE`], …
    pub result: AtomicU32,
    /// The error of the system call that failed.
    pub errno: AtomicU32,
}

/// A jump to write.
#[repr(C)]
pub struct Patch {
    /// Where.
    pub address: AtomicU64,
    /// How many bytes of `expected` there are.
    pub expected_bytes: AtomicU32,
    /// What must be there.
    pub expected: [AtomicU8; EXPECTED_BYTES],
    /// What takes the place of the first of them.
    pub jump: [AtomicU8; 8],
}
const _: () = assert!(core::mem::size_of::<Patch>() == 40);

/// The target has not come to it.
pub const WAITING: u32 = 0;
/// All jumps are written.
pub const DONE: u32 = 1;
/// The place for its code was taken.
pub const NO_PLACE: u32 = 2;
/// The system did not allow memory with new code in it.
pub const NO_NEW_CODE: u32 = 3;
/// The system did not allow code to be changed.
pub const NO_CHANGE: u32 = 4;
/// Other bytes were there than the file has.
pub const OTHER_BYTES: u32 = 5;
/// All jumps are written; the system did not let the code be protected again.
pub const UNPROTECTED: u32 = 6;
