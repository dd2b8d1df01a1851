//! COLD and HOT: finds the real malloc, free and similar functions (cold), and calls them (hot). The real
//! functions come after this library in the loader's search order.
//!
//! Every pointer to a real function first points to a function of this file, which runs `phase::start`.
//! While `start` looks up functions, `dlsym` may itself allocate memory, above all if a lookup fails. An
//! arena in this library serves the allocations of `dlsym` and never reuses its memory. The library uses the
//! real functions only after the last lookup, so the target's heap is the same as without edleak.
//!
//! glibc's malloc keeps blocks at least 32 bytes apart. From any other malloc, the library requests at least
//! 32 bytes, because the side table has one entry for each 32 bytes of addresses.
#![allow(unsafe_code)]

use crate::cold::symbols::{self, Seen, global, module_of, next};
use crate::cold::{elf, environment, inside, phase};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use edleak_session::layout::PAGE_BYTES;

type Malloc = unsafe extern "C" fn(usize) -> *mut u8;
type Calloc = unsafe extern "C" fn(usize, usize) -> *mut u8;
type Realloc = unsafe extern "C" fn(*mut u8, usize) -> *mut u8;
type Free = unsafe extern "C" fn(*mut u8);

/// The next malloc after this library in the search order. The entry stub of malloc calls the function at
/// this address.
pub(crate) static MALLOC: AtomicPtr<()> = AtomicPtr::new(malloc_first as *mut ());
/// The next calloc after this library in the search order. The entry stub of calloc calls the function at
/// this address.
pub(crate) static CALLOC: AtomicPtr<()> = AtomicPtr::new(calloc_first as *mut ());
static REALLOC: AtomicPtr<()> = AtomicPtr::new(realloc_first as *mut ());
static FREE: AtomicPtr<()> = AtomicPtr::new(free_first as *mut ());

/// Calls the real malloc.
///
/// # Safety
/// The caller must keep the contract of malloc. Likewise, every other function of real.rs that calls a real
/// function requires that its caller keeps the contract of the real function.
#[inline(always)]
pub(crate) unsafe fn malloc(size: usize) -> *mut u8 {
    // SAFETY: the pointer leads to a function with the type of malloc: a function of this file or the real
    // malloc.
    let real: Malloc = unsafe { transmute(MALLOC.load(Ordering::Relaxed)) };
    // SAFETY: the caller keeps the contract of malloc.
    unsafe { real(size) }
}

/// Calls the real calloc.
///
/// # Safety
/// See [`malloc`].
#[inline(always)]
pub(crate) unsafe fn calloc(count: usize, size: usize) -> *mut u8 {
    // SAFETY: the pointer leads to a function with the type of calloc: a function of this file or the real
    // calloc.
    let real: Calloc = unsafe { transmute(CALLOC.load(Ordering::Relaxed)) };
    // SAFETY: the caller keeps the contract of calloc.
    unsafe { real(count, size) }
}

/// Calls the real realloc.
///
/// # Safety
/// See [`malloc`]; `old` is not in the arena.
#[inline(always)]
pub(crate) unsafe fn realloc(old: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the pointer leads to a function with the type of realloc: a function of this file or the real
    // realloc.
    let real: Realloc = unsafe { transmute(REALLOC.load(Ordering::Relaxed)) };
    // SAFETY: the caller keeps the contract of realloc.
    unsafe { real(old, size) }
}

/// Calls the real realloc. If `old` lies in the arena, moves its content into a real allocation. The arena
/// does not reuse the memory of `old`.
///
/// # Safety
/// See [`malloc`].
pub(crate) unsafe fn realloc_any(old: *mut u8, size: usize) -> *mut u8 {
    if in_arena(old) {
        // SAFETY: `old` comes from the arena.
        return unsafe { move_out_of_arena(old, size) };
    }
    // SAFETY: the caller keeps the contract of realloc.
    unsafe { realloc(old, size) }
}

/// Calls the real free.
///
/// # Safety
/// See [`malloc`].
#[inline(always)]
pub(crate) unsafe fn free(allocation: *mut u8) {
    // SAFETY: the pointer leads to a function with the type of free: a function of this file or the real
    // free.
    let real: Free = unsafe { transmute(FREE.load(Ordering::Relaxed)) };
    // SAFETY: the caller keeps the contract of free.
    unsafe { real(allocation) }
}

unsafe extern "C" fn malloc_first(size: usize) -> *mut u8 {
    phase::start();
    match MALLOC.load(Ordering::Acquire) {
        first if first == malloc_first as *mut () => arena_alloc(size, 16),
        // SAFETY: the pointer leads to the real malloc now, which accepts any size.
        _ => unsafe { malloc(size) },
    }
}

unsafe extern "C" fn calloc_first(count: usize, size: usize) -> *mut u8 {
    phase::start();
    match CALLOC.load(Ordering::Acquire) {
        // Memory of the arena contains only zeros, because the arena never hands out memory twice.
        first if first == calloc_first as *mut () => {
            count.checked_mul(size).map_or(ptr::null_mut(), |size| arena_alloc(size, 16))
        }
        // SAFETY: the pointer leads to the real calloc now, and the caller keeps its contract.
        _ => unsafe { calloc(count, size) },
    }
}

unsafe extern "C" fn realloc_first(old: *mut u8, size: usize) -> *mut u8 {
    phase::start();
    match REALLOC.load(Ordering::Acquire) {
        first if first == realloc_first as *mut () && old.is_null() => arena_alloc(size, 16),
        first if first == realloc_first as *mut () => ptr::null_mut(),
        // SAFETY: the pointer leads to the real realloc now, and the caller keeps its contract.
        _ => unsafe { realloc_any(old, size) },
    }
}

unsafe extern "C" fn free_first(allocation: *mut u8) {
    phase::start();
    if in_arena(allocation) {
        return arena_freed();
    }
    if FREE.load(Ordering::Acquire) != free_first as *mut () {
        // SAFETY: the pointer leads to the real free now, and the caller keeps its contract.
        unsafe { free(allocation) }
    }
}

// The least number of bytes that edleak requests from an allocator other than glibc's, so that the blocks of
// this allocator are at least 32 bytes apart.
const SPACING: usize = 32;

static RAW_MALLOC: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static RAW_CALLOC: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static RAW_REALLOC: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

unsafe extern "C" fn malloc_spaced(size: usize) -> *mut u8 {
    // SAFETY: `install` stores the real function before it publishes this function.
    let real: Malloc = unsafe { transmute(RAW_MALLOC.load(Ordering::Relaxed)) };
    // SAFETY: the caller keeps the contract of malloc.
    unsafe { real(size.max(SPACING)) }
}

unsafe extern "C" fn calloc_spaced(count: usize, size: usize) -> *mut u8 {
    // SAFETY: `install` stores the real function before it publishes this function.
    let real: Calloc = unsafe { transmute(RAW_CALLOC.load(Ordering::Relaxed)) };
    let (count, size) = match count.checked_mul(size) {
        Some(bytes) if bytes < SPACING => (1, SPACING),
        _ => (count, size),
    };
    // SAFETY: the caller keeps the contract of calloc.
    unsafe { real(count, size) }
}

unsafe extern "C" fn realloc_spaced(old: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: `install` stores the real function before it publishes this function.
    let real: Realloc = unsafe { transmute(RAW_REALLOC.load(Ordering::Relaxed)) };
    // SAFETY: the caller keeps the contract of realloc. A realloc to the size 0 may free `old`, so the
    // library passes the size 0 on and does not enlarge it to 32 bytes.
    unsafe { real(old, if size == 0 && !old.is_null() { 0 } else { size.max(SPACING) }) }
}

/// The kind of the program's allocator.
static ALLOCATOR: AtomicU32 = AtomicU32::new(NOT_COUNTED);
/// The allocator is not known yet, or the program's calls reach the allocator before they reach edleak's
/// library.
const NOT_COUNTED: u32 = 0;
const GLIBC: u32 = 1;
const OTHER: u32 = 2;
/// An allocator in the program itself, whose functions have detours.
const PROGRAMS: u32 = 3;

/// Whether the allocator is glibc's. The blocks of glibc's allocator are at least 32 bytes apart, and every
/// allocation goes through malloc.
pub(crate) fn is_glibc() -> bool {
    ALLOCATOR.load(Ordering::Relaxed) == GLIBC
}

/// Whether the allocator comes after edleak's library in the search order and is not glibc's. An allocator
/// other than glibc's may have its own operator new that does not call malloc.
pub(crate) fn is_other() -> bool {
    ALLOCATOR.load(Ordering::Relaxed) == OTHER
}

/// Whether the program itself defines malloc, and its functions have detours.
pub(crate) fn is_programs() -> bool {
    ALLOCATOR.load(Ordering::Relaxed) == PROGRAMS
}

/// Whether this code is linked into the program. In the crate edleak-alloc, the file src/cold/real.rs
/// replaces this file.
pub(crate) const IS_IN_PROGRAM: bool = false;

/// Whether libc's threads have the control blocks of glibc. Only glibc has the symbol `__libc_stack_end`.
pub(crate) fn has_glibcs_threads() -> bool {
    environment::stack_start() != 0
}

/// Whether glibc's loader takes its memory from functions that the library counts.
pub(crate) fn has_glibcs_loader() -> bool {
    is_glibc() || BEHIND_PROGRAM_IS_GLIBC.load(Ordering::Relaxed)
}

/// Whether the program uses its own malloc while its libc is glibc.
static BEHIND_PROGRAM_IS_GLIBC: AtomicBool = AtomicBool::new(false);

/// The number of bytes to request from the real allocator for `size` bytes.
pub(crate) fn spaced(size: usize) -> usize {
    if is_other() { size.max(SPACING) } else { size }
}

/// Whether a malloc belongs to glibc. Other allocators may also define `__libc_malloc`, so the function
/// compares the library that contains the malloc with the library that defines `gnu_get_libc_version`.
fn is_in_glibc(malloc: *mut c_void) -> bool {
    let of_glibc = global(c"gnu_get_libc_version");
    if of_glibc.is_null() {
        return false;
    }
    let (path, base) = module_of(malloc);
    // The library libc_malloc_debug.so is a part of glibc that checks a program's use of malloc. The blocks
    // that libc_malloc_debug.so returns are glibc's blocks.
    if symbols::is_named(path, &[b"libc_malloc_debug.so"]) {
        return true;
    }
    if base.is_null() {
        // Before glibc 2.34, dladdr is in another library, which some programs do not load.
        return next(c"__libc_malloc") == malloc;
    }
    base == module_of(of_glibc).1
}

/// Whether this library was loaded after the start of the process, with `RTLD_LOCAL`. The program uses no
/// symbol of a library that was loaded with `RTLD_LOCAL`.
#[cfg_attr(test, allow(dead_code))] // the test build has no constructor
pub(crate) fn is_late() -> bool {
    if elf::is_own(global(c"malloc") as usize) {
        return false;
    }
    // If malloc belongs to another module, this library may still have been preloaded: another allocator may
    // come before this library.
    symbols::is_after_glibc()
}

/// Finds the functions that this library needs in a running process. Returns the address of the malloc that
/// the process uses, or of the program's stub for malloc.
#[cfg_attr(test, allow(dead_code))] // the test build has no constructor
pub(crate) fn resolve_late() -> usize {
    symbols::learn_dlerror();
    symbols::PTHREAD_CREATE.store(global(c"pthread_create").addr(), Ordering::Relaxed);
    // A collector loads the library only into a process that uses glibc's malloc.
    ALLOCATOR.store(GLIBC, Ordering::Relaxed);
    global(c"malloc") as usize
}

/// The malloc, calloc, realloc and free that come next after this library in the search order. The library
/// calls them only after [`Resolved::install`].
pub(crate) struct Resolved {
    functions: [*mut c_void; 4],
    /// Whether the program's calls of malloc reach this library first ([`Resolved::is_countable`]).
    are_first: bool,
    allocator: u32,
}

/// Finds the real malloc, calloc, realloc and free. The thread that starts the preload library calls this
/// function once. A lookup of malloc, calloc, realloc or free may allocate memory. Until
/// [`Resolved::install`], this memory comes from the arena, so the lookups leave no block in the target's
/// heap. `None`: no library after this one defines malloc.
pub(crate) fn resolve() -> Option<Resolved> {
    symbols::learn_dlerror();
    symbols::learn_versions();
    symbols::PTHREAD_CREATE.store(next(c"pthread_create").addr(), Ordering::Relaxed);
    let names = [c"malloc", c"calloc", c"realloc", c"free"];
    let found = names.map(global);
    let seen = found.map(symbols::seen_at);
    let foreign = seen.iter().position(|&seen| seen == Seen::Foreign);
    let path = foreign.map_or(ptr::null(), |index| module_of(found[index]).0);
    let functions: [_; 4] = core::array::from_fn(|index| {
        let function = match (seen[index], foreign) {
            (Seen::Foreign, _) => found[index],
            (Seen::Stub, Some(_)) => symbols::of_module(path, names[index]),
            _ => ptr::null_mut(),
        };
        if function.is_null() { next(names[index]) } else { function }
    });
    if functions.iter().any(|function| function.is_null()) {
        return None;
    }
    let are_first = foreign.is_none();
    let of_glibc = if are_first { ptr::null_mut() } else { global(c"gnu_get_libc_version") };
    BEHIND_PROGRAM_IS_GLIBC.store(!of_glibc.is_null(), Ordering::Relaxed);
    let allocator = match functions {
        _ if !are_first => NOT_COUNTED,
        [malloc, ..] if is_in_glibc(malloc) => GLIBC,
        _ => OTHER,
    };
    ALLOCATOR.store(allocator, Ordering::Relaxed);
    Some(Resolved { functions, are_first, allocator })
}

impl Resolved {
    /// Whether the library can count allocations. The library cannot count if the program calls another
    /// malloc first: a malloc in the program itself, or in a library that is preloaded before this library.
    /// If the library cannot count, it passes each call on to the function that would run without edleak.
    pub(crate) fn is_countable(&self) -> bool {
        self.are_first
    }

    /// Whether the malloc that the program calls first lies in the program itself. `headers` is the address
    /// of the program's headers.
    pub(crate) fn is_in_program(&self, headers: Option<usize>) -> bool {
        let page = headers.unwrap_or(0) & !(PAGE_BYTES - 1);
        // SAFETY: the kernel has mapped the page with the program headers.
        let extent = if page == 0 { None } else { unsafe { elf::elf_extent(page) } };
        extent.is_some_and(|(end, _)| (page..end).contains(&(self.functions[0] as usize)))
    }

    /// Installs the program's own malloc, whose functions have detours. If the program calls an entry point
    /// of the preload library, the library counts the call and passes it on to the program's malloc. If the
    /// program's malloc itself calls an entry point, the library passes this inner call on to the
    /// definition that comes next after the library. The library does not count the inner call, because it
    /// counts the program's outer call.
    pub(crate) fn install_behind_program(&self) {
        let names = [c"malloc", c"calloc", c"realloc", c"free"];
        for ((index, function), name) in self.functions.iter().enumerate().zip(names) {
            let following = next(name);
            let following = if following.is_null() { *function } else { following };
            PROGRAM[index].store(function.cast(), Ordering::Relaxed);
            FOLLOWING[index].store(following.cast(), Ordering::Relaxed);
        }
        ALLOCATOR.store(PROGRAMS, Ordering::Relaxed);
        CALLOC.store(calloc_of_program as *mut (), Ordering::Release);
        REALLOC.store(realloc_of_program as *mut (), Ordering::Release);
        FREE.store(free_of_program as *mut (), Ordering::Release);
        MALLOC.store(malloc_of_program as *mut (), Ordering::Release);
    }

    /// Makes the entry points call the real functions from now on.
    pub(crate) fn install(&self) {
        let [malloc, calloc, realloc, free] = self.functions.map(|function| function.cast::<()>());
        if self.allocator == OTHER {
            RAW_MALLOC.store(malloc, Ordering::Relaxed);
            RAW_CALLOC.store(calloc, Ordering::Relaxed);
            RAW_REALLOC.store(realloc, Ordering::Relaxed);
            CALLOC.store(calloc_spaced as *mut (), Ordering::Release);
            REALLOC.store(realloc_spaced as *mut (), Ordering::Release);
            FREE.store(free, Ordering::Release);
            MALLOC.store(malloc_spaced as *mut (), Ordering::Release);
        } else {
            CALLOC.store(calloc, Ordering::Release);
            REALLOC.store(realloc, Ordering::Release);
            FREE.store(free, Ordering::Release);
            MALLOC.store(malloc, Ordering::Release);
        }
    }
}

/// The program's own malloc, calloc, realloc and free. `FOLLOWING` has the definition of each function that
/// comes next after this library.
static PROGRAM: [AtomicPtr<()>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];
static FOLLOWING: [AtomicPtr<()>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];

unsafe fn of_program(index: usize, first: usize, second: usize) -> *mut u8 {
    let (program, following) =
        (PROGRAM[index].load(Ordering::Relaxed), FOLLOWING[index].load(Ordering::Relaxed));
    // SAFETY: `index` is the number of a function, and the caller passes the arguments of this function.
    unsafe { inside::call_or_next(program, following, first, second) }
}

unsafe extern "C" fn malloc_of_program(size: usize) -> *mut u8 {
    // SAFETY: the caller keeps the contract of the C function.
    unsafe { of_program(0, size, 0) }
}

unsafe extern "C" fn calloc_of_program(count: usize, size: usize) -> *mut u8 {
    // SAFETY: the caller keeps the contract of the C function.
    unsafe { of_program(1, count, size) }
}

unsafe extern "C" fn realloc_of_program(old: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the caller keeps the contract of the C function.
    unsafe { of_program(2, old as usize, size) }
}

unsafe extern "C" fn free_of_program(allocation: *mut u8) {
    // SAFETY: the caller keeps the contract of the C function.
    unsafe { of_program(3, allocation as usize, 0) };
}

const ARENA_BYTES: usize = 64 << 10;

#[repr(align(64))]
struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);

// SAFETY: `arena_alloc` gives every byte of the arena to one caller only.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_BYTES]));
static ARENA_USED: AtomicUsize = AtomicUsize::new(0);

/// Whether an allocation lies in the arena. The arena serves requests until the library has found the real
/// malloc.
#[inline(always)]
pub(crate) fn in_arena(allocation: *const u8) -> bool {
    (allocation as usize).wrapping_sub(ARENA.0.get() as usize) < ARENA_BYTES
}

/// Number of allocations in the arena that the program has not freed yet.
static ARENA_LIVE: AtomicUsize = AtomicUsize::new(0);

/// Whether the program may still free an allocation of the arena.
pub(crate) fn is_arena_in_use() -> bool {
    ARENA_LIVE.load(Ordering::Relaxed) != 0
}

/// Counts that the program has freed or moved one allocation of the arena.
pub(crate) fn arena_freed() {
    ARENA_LIVE.fetch_sub(1, Ordering::Relaxed);
}

/// The address of the real free.
pub(crate) fn free_function() -> *mut () {
    FREE.load(Ordering::Acquire)
}

/// Returns memory from the arena that contains only zeros. The word before the returned memory holds the size
/// of this memory. Null: the arena has too little room.
fn arena_alloc(size: usize, align: usize) -> *mut u8 {
    let Some(room) = size.checked_add(2 * align) else { return ptr::null_mut() };
    let at = ARENA_USED.fetch_add((room + 15) & !15, Ordering::Relaxed);
    if at.saturating_add(room) > ARENA_BYTES {
        return ptr::null_mut();
    }
    ARENA_LIVE.fetch_add(1, Ordering::Relaxed);
    let allocation = ARENA.0.get().cast::<u8>().wrapping_add((at + 8 + align - 1) & !(align - 1));
    // SAFETY: `room` leaves 8 bytes before the aligned address, and the arena gives these bytes to no other
    // caller.
    unsafe { allocation.cast::<usize>().wrapping_sub(1).write(size) };
    allocation
}

/// Moves the content of arena memory into a real allocation, as realloc does.
///
/// # Safety
/// `old` comes from `arena_alloc`.
#[cold]
unsafe fn move_out_of_arena(old: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: `arena_alloc` wrote the size into the word before the allocation.
    let old_size = unsafe { old.cast::<usize>().wrapping_sub(1).read() };
    // SAFETY: malloc accepts any size.
    let new = unsafe { malloc(size) };
    if !new.is_null() {
        // SAFETY: the old and the new allocation are at least as long as the copy, and a new allocation
        // overlaps no other memory.
        unsafe { ptr::copy_nonoverlapping(old, new, old_size.min(size)) };
        arena_freed();
    }
    new
}
