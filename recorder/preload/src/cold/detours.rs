//! COLD: applies the detours that the collector has compiled: writes jumps at the entries of allocator
//! functions. The library applies detours once, while the process has only one thread.
//!
//! For each module, the code first compares the bytes at the entry of each function with the expected
//! bytes. Then the code maps memory at the address for which the stubs were compiled, copies the stubs into
//! this memory and makes the memory executable. After that, the code makes the machine code of the module
//! writable, writes all jumps, and makes the machine code read-only again. If the system refuses a step
//! before the code writes the first jump, the module stays unchanged.
#![allow(unsafe_code)]

use crate::cold::sys;
use crate::entry::hooks;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use edleak_session::detour::{
    CODE_BYTES, DONE, DetourModule, EXPECTED_BYTES, MAX_MODULES, MAX_PATCHES, NO_CHANGE, NO_NEW_CODE,
    NO_PLACE, OTHER_BYTES, Patch, UNPROTECTED,
};
use edleak_session::header::Header;
use edleak_session::layout::PAGE_BYTES;

/// Whether this process has detours: its own detours, or detours that a forked child has from its parent.
static IN_PLACE: AtomicBool = AtomicBool::new(false);

/// Whether any module of this process has detours.
pub(crate) fn are_in_place() -> bool {
    IN_PLACE.load(Ordering::Relaxed)
}

/// The regions of a session that contain the detours.
pub(crate) struct Regions {
    /// The address of a table of [`MAX_MODULES`] modules.
    pub modules: *const DetourModule,
    /// The address of a table of [`MAX_PATCHES`] jumps.
    pub patches: *const Patch,
    /// The address of [`CODE_BYTES`] bytes of code.
    pub code: *const AtomicU8,
}

/// The reason why a module gets no detours: the result to store for the module, and the error of a system
/// call.
struct Failure(u32, isize);

/// Applies all detours.
pub(crate) fn apply(header: &Header, regions: &Regions) {
    let count = header.detour_modules.load(Ordering::Acquire) as usize;
    // SAFETY: the session holds `MAX_MODULES` modules at `regions.modules`.
    let modules = unsafe { core::slice::from_raw_parts(regions.modules, MAX_MODULES) };
    for module in modules.iter().take(count) {
        let result = match apply_one(module, regions) {
            Ok(result) => {
                IN_PLACE.store(true, Ordering::Relaxed);
                result
            }
            Err(Failure(result, errno)) => {
                module.errno.store(errno.unsigned_abs() as u32, Ordering::Relaxed);
                result
            }
        };
        module.result.store(result, Ordering::Release);
    }
}

fn apply_one(module: &DetourModule, regions: &Regions) -> Result<u32, Failure> {
    // SAFETY: the session holds `MAX_PATCHES` patches at `regions.patches`.
    let patches = unsafe { core::slice::from_raw_parts(regions.patches, MAX_PATCHES) };
    let first = module.first_patch.load(Ordering::Relaxed) as usize;
    let patches = patches.get(first..).unwrap_or_default();
    let patches = patches.get(..module.patches.load(Ordering::Relaxed) as usize).unwrap_or_default();
    let (Some(lowest), Some(highest)) = (patches.first(), patches.last()) else {
        return Err(Failure(NO_PLACE, 0));
    };
    if !patches.iter().all(is_as_expected) {
        return Err(Failure(OTHER_BYTES, 0));
    }
    let stubs = map_stubs(module, regions)?;
    let start = lowest.address.load(Ordering::Relaxed) as usize & !(PAGE_BYTES - 1);
    let end =
        (highest.address.load(Ordering::Relaxed) as usize + EXPECTED_BYTES).next_multiple_of(PAGE_BYTES);
    // If the last jump ends exactly at the end of a page, the next page may be unmapped, so the code does
    // not change the protection of the next page.
    let end =
        end.min((highest.address.load(Ordering::Relaxed) as usize + JUMP_BYTES).next_multiple_of(PAGE_BYTES));
    // While the module's machine code is writable, it stays executable, because its pages may contain the
    // code that runs now. If the system does not allow the code to make the machine code writable, no byte
    // of the machine code has changed.
    let opened = sys::protect(start, end - start, sys::READ_WRITE_EXECUTE);
    if opened < 0 {
        sys::unmap(stubs.0, stubs.1);
        return Err(Failure(NO_CHANGE, opened));
    }
    patches.iter().for_each(write);
    let closed = sys::protect(start, end - start, sys::READ_EXECUTE);
    module.errno.store(closed.unsigned_abs() as u32, Ordering::Relaxed);
    Ok(if closed < 0 { UNPROTECTED } else { DONE })
}

const JUMP_BYTES: usize = 5;

/// Maps memory for the stubs of a module and copies the stubs into this memory. Returns the address and the
/// size of the memory.
fn map_stubs(module: &DetourModule, regions: &Regions) -> Result<(*mut u8, usize), Failure> {
    let (at, bytes) =
        (module.code_at.load(Ordering::Relaxed) as usize, module.code_bytes.load(Ordering::Relaxed) as usize);
    let hooks = hooks::all();
    if at + bytes > CODE_BYTES || bytes < size_of_val(&hooks) {
        return Err(Failure(NO_PLACE, 0));
    }
    let size = bytes.next_multiple_of(PAGE_BYTES);
    let Some(stubs) = sys::map_at(module.address.load(Ordering::Relaxed) as usize, size) else {
        return Err(Failure(NO_PLACE, 0));
    };
    for offset in 0..bytes {
        // SAFETY: the offset lies within the region of code, which `at + bytes` does not exceed.
        let byte = unsafe { &*regions.code.wrapping_add(at + offset) }.load(Ordering::Relaxed);
        // SAFETY: the offset lies within the new mapping.
        unsafe { stubs.wrapping_add(offset).write(byte) };
    }
    for (index, hook) in hooks.into_iter().enumerate() {
        // SAFETY: the code begins with room for the table of hooks, and the start of a mapping is aligned.
        unsafe { stubs.cast::<usize>().wrapping_add(index).write(hook) };
    }
    let closed = sys::protect(stubs as usize, size, sys::READ_EXECUTE);
    if closed < 0 {
        sys::unmap(stubs, size);
        return Err(Failure(NO_NEW_CODE, closed));
    }
    Ok((stubs, size))
}

/// Whether the expected bytes are stored at the address of a jump.
fn is_as_expected(patch: &Patch) -> bool {
    let address = patch.address.load(Ordering::Relaxed) as *const u8;
    let length = patch.expected_bytes.load(Ordering::Relaxed) as usize;
    let expected = patch.expected.iter().take(length).enumerate();
    expected.into_iter().all(|(offset, byte)| {
        // SAFETY: the collector found the code of a module at this address, in a readable mapping.
        let found = unsafe { address.wrapping_add(offset).read_volatile() };
        found == byte.load(Ordering::Relaxed)
    })
}

fn write(patch: &Patch) {
    let address = patch.address.load(Ordering::Relaxed) as *mut u8;
    for (offset, byte) in patch.jump.iter().take(JUMP_BYTES).enumerate() {
        // SAFETY: `apply_one` has made the code writable, and no other thread runs.
        unsafe { address.wrapping_add(offset).write_volatile(byte.load(Ordering::Relaxed)) };
    }
}
