//! COLD: the hooks of posix_memalign and of the other functions that return aligned memory. The real
//! functions may call other entry points, so their callers are pending ([`crate::entry::pending`]). This file
//! also handles a reallocarray whose size overflows.
#![allow(unsafe_code)]

use crate::cold::real;
use crate::cold::symbols::Lazy;
use crate::entry::pending::counted;
use core::mem::transmute;
use core::ptr;
use edleak_session::layout::PAGE_BYTES;

type Align = unsafe extern "C" fn(usize, usize) -> *mut u8;
type PosixMemalign = unsafe extern "C" fn(*mut *mut u8, usize, usize) -> i32;
type Page = unsafe extern "C" fn(usize) -> *mut u8;
type ReallocArray = unsafe extern "C" fn(*mut u8, usize, usize) -> *mut u8;

static POSIX_MEMALIGN: Lazy = Lazy::new(c"posix_memalign");
static ALIGNED_ALLOC: Lazy = Lazy::new(c"aligned_alloc");
static MEMALIGN: Lazy = Lazy::new(c"memalign");
static VALLOC: Lazy = Lazy::new(c"valloc");
static PVALLOC: Lazy = Lazy::new(c"pvalloc");
static REALLOCARRAY: Lazy = Lazy::new(c"reallocarray");

/// Looks up the real functions when the library starts: at this time, the program has no message of
/// `dlerror` that a lookup could clear.
pub(crate) fn resolve() {
    for real in [&POSIX_MEMALIGN, &ALIGNED_ALLOC, &MEMALIGN, &VALLOC, &PVALLOC, &REALLOCARRAY] {
        real.get();
    }
}

/// The hook of posix_memalign.
///
/// # Safety
/// Only the entry stub of posix_memalign calls this hook. Every other hook in this file is also called only
/// by its own entry stub.
pub(crate) unsafe extern "C" fn on_posix_memalign(
    out: *mut *mut u8,
    align: usize,
    size: usize,
    caller: *const usize,
    fp: usize,
) -> i32 {
    const ENOMEM: i32 = 12;
    let mut status = ENOMEM;
    let real = POSIX_MEMALIGN.get();
    if real.is_null() {
        return status;
    }
    // SAFETY: the pointer leads to a posix_memalign, which has the type `PosixMemalign`.
    let real: PosixMemalign = unsafe { transmute(real) };
    let call = || {
        // SAFETY: this is the target's own call, with its own arguments.
        status = unsafe { real(out, align, real::spaced(size)) };
        // SAFETY: on success, posix_memalign has stored the allocation at `out`.
        if status == 0 { unsafe { *out } } else { ptr::null_mut() }
    };
    // SAFETY: `caller` and `fp` come from the stub.
    unsafe { counted(size, align, caller, fp, call) };
    status
}

unsafe fn aligned(real: &Lazy, align: usize, size: usize, caller: *const usize, fp: usize) -> *mut u8 {
    let real = real.get();
    if real.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the pointer leads to an aligned_alloc or a memalign, which have the type `Align`.
    let real: Align = unsafe { transmute(real) };
    // SAFETY: this is the target's own call, with its own arguments.
    let call = || unsafe { real(align, real::spaced(size)) };
    // SAFETY: `caller` and `fp` come from the stub.
    unsafe { counted(size, align, caller, fp, call) }
}

/// The hook of aligned_alloc.
///
/// # Safety
/// See [`on_posix_memalign`].
pub(crate) unsafe extern "C" fn on_aligned_alloc(
    align: usize,
    size: usize,
    caller: *const usize,
    fp: usize,
) -> *mut u8 {
    // SAFETY: these are the arguments that the entry stub passed to this hook.
    unsafe { aligned(&ALIGNED_ALLOC, align, size, caller, fp) }
}

/// The hook of memalign.
///
/// # Safety
/// See [`on_posix_memalign`].
pub(crate) unsafe extern "C" fn on_memalign(
    align: usize,
    size: usize,
    caller: *const usize,
    fp: usize,
) -> *mut u8 {
    // SAFETY: these are the arguments that the entry stub passed to this hook.
    unsafe { aligned(&MEMALIGN, align, size, caller, fp) }
}

unsafe fn paged(real: &Lazy, size: usize, caller: *const usize, fp: usize) -> *mut u8 {
    let real = real.get();
    if real.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the pointer leads to a valloc or a pvalloc, which have the type `Page`.
    let real: Page = unsafe { transmute(real) };
    // SAFETY: this is the target's own call, with its own arguments.
    let call = || unsafe { real(real::spaced(size)) };
    // SAFETY: `caller` and `fp` come from the stub.
    unsafe { counted(size, PAGE_BYTES, caller, fp, call) }
}

/// The hook of valloc.
///
/// # Safety
/// See [`on_posix_memalign`].
pub(crate) unsafe extern "C" fn on_valloc(size: usize, caller: *const usize, fp: usize) -> *mut u8 {
    // SAFETY: these are the arguments that the entry stub passed to this hook.
    unsafe { paged(&VALLOC, size, caller, fp) }
}

/// The hook of pvalloc.
///
/// # Safety
/// See [`on_posix_memalign`].
pub(crate) unsafe extern "C" fn on_pvalloc(size: usize, caller: *const usize, fp: usize) -> *mut u8 {
    // SAFETY: these are the arguments that the entry stub passed to this hook.
    unsafe { paged(&PVALLOC, size, caller, fp) }
}

/// Handles a call of reallocarray whose product of count and size overflows. The real reallocarray fails
/// because of the overflow, and sets errno.
///
/// # Safety
/// See [`on_posix_memalign`].
#[cold]
pub(crate) unsafe extern "C" fn reallocarray_overflow(old: *mut u8, count: usize, size: usize) -> *mut u8 {
    let real = REALLOCARRAY.get();
    if real.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the pointer leads to a reallocarray, which has the type `ReallocArray`.
    let real: ReallocArray = unsafe { transmute(real) };
    // SAFETY: this is the target's own call; the real function checks the arguments and fails.
    unsafe { real(old, count, size) }
}
