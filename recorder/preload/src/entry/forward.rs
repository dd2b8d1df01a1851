//! COLD: the entry points whose real functions may call other entry points: posix_memalign and other
//! aligned allocations, reallocarray, operator new and operator delete.
//!
//! musl's posix_memalign calls aligned_alloc, and libstdc++'s operator new calls malloc, but jemalloc's
//! operator new does not call malloc. So while posix_memalign, operator new or a similar real function
//! runs, its caller is *pending*. The first entry point that allocates inside the real function counts the
//! allocation for the pending caller. If no inner entry point allocates, the outer entry point counts the
//! allocation itself. So edleak counts every allocation once, at the caller of the outer entry point.
//!
//! Programs call the default operator new very often, and making a caller pending takes time. The default
//! operator new (of libstdc++ or libc++) calls malloc and throws if malloc fails; the default operator delete
//! calls free. So for the default operators, the hooks call malloc and free themselves. If the program
//! replaces any form of operator new or operator delete, the hooks always call the program's own functions.
#![allow(unsafe_code)]

use crate::arch::{call_new, note};
use crate::cold::symbols::{self, Lazy, Seen};
use crate::cold::{lifecycle, real, sites, slow};
use crate::entry::detour;
use crate::hot::{free, thread};
use core::ffi::c_void;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
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
/// `dlerror` that a lookup could clear. If the program loads a C++ runtime later, the library looks up the
/// operators of this runtime at their first use.
pub(crate) fn resolve() {
    for real in [&POSIX_MEMALIGN, &ALIGNED_ALLOC, &MEMALIGN, &VALLOC, &PVALLOC, &REALLOCARRAY] {
        real.get();
    }
    if FORMS[NEW].real.is_there() {
        FORMS.iter().for_each(|form| _ = form.real.get());
        DELETE_FORMS.iter().for_each(|form| _ = form.get());
        learn_new();
    }
}

/// Calls a real function that returns an allocation or null, and counts the allocation once.
unsafe fn counted(
    size: usize,
    slack: usize,
    caller: *const usize,
    fp: usize,
    call: impl FnOnce() -> *mut u8,
) -> *mut u8 {
    lifecycle::start();
    let outermost = begin(size, slack, caller, fp);
    let allocation = call();
    if outermost && !end(caller) {
        return allocation; // an inner entry point has counted the allocation
    }
    // SAFETY: `caller` and `fp` come from the stub.
    unsafe { note::note(allocation, size, caller, fp) }
}

/// Makes `caller` pending: the first inner entry point that allocates counts the allocation for `caller`.
/// `false`: another caller is pending already, or this process counts nothing.
fn begin(size: usize, slack: usize, caller: *const usize, fp: usize) -> bool {
    if lifecycle::header().is_none() {
        return false;
    }
    // SAFETY: in this call, no other reference to the current thread's state exists.
    let tls = unsafe { thread::tls() };
    if detour::is_inside(tls, caller as usize) {
        return false;
    }
    if !tls.pending.caller.is_null() {
        if caller < tls.pending.caller {
            return false;
        }
        slow::thread_end_pending(tls); // the pending caller's frame no longer exists
    }
    tls.hidden_offset = tls.offset as u16;
    tls.offset = 0;
    tls.pending = thread::Pending { caller, fp, size, slack };
    true
}

/// Makes the caller no longer pending, after `begin` has made it pending. `false`: an inner entry point has
/// already counted the allocation for this caller.
fn end(caller: *const usize) -> bool {
    // SAFETY: in this call, no other reference to the current thread's state exists.
    let tls = unsafe { thread::tls() };
    let unconsumed = tls.pending.caller == caller;
    if unconsumed {
        slow::thread_end_pending(tls);
    }
    unconsumed
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

// ---- operator new ----

const UNKNOWN: u32 = 0;
/// The value of [`NEW_IS`] for the default operator new.
pub(crate) const DEFAULT: u32 = 1;
const REPLACED: u32 = 2;
/// Whether the program uses the default operator new ([`DEFAULT`]) or has replaced it.
pub(crate) static NEW_IS: AtomicU32 = AtomicU32::new(UNKNOWN);

#[inline(always)]
fn new_is_malloc() -> bool {
    NEW_IS.load(Ordering::Relaxed) == DEFAULT
}

#[cold]
fn learn_new() {
    sites::set_own_call(call_new::return_address());
    // The program uses the default operator new if the loader finds edleak's operators first, and if the
    // next definitions of the operators belong to a C++ runtime. Without the first test, edleak could call
    // malloc although the program has its own operator new.
    let forms = [
        c"_Znwm",
        c"_Znam",
        c"_ZnwmRKSt9nothrow_t",
        c"_ZnamRKSt9nothrow_t",
        c"_ZdlPv",
        c"_ZdaPv",
        c"_ZdlPvm",
        c"_ZdaPvm",
    ];
    let unreplaced = forms.iter().all(|name| symbols::seen_at(symbols::global(name)) != Seen::Foreign);
    let default = unreplaced
        && FORMS[NEW].real.get_if_any().is_some_and(is_in_cxx_runtime)
        && DELETE_FORMS[DELETE].get_if_any().is_some_and(is_in_cxx_runtime);
    NEW_IS.store(if default { DEFAULT } else { REPLACED }, Ordering::Relaxed);
}

impl Lazy {
    fn get_if_any(&self) -> Option<*mut c_void> {
        let found = self.get();
        (!found.is_null()).then_some(found)
    }
}

fn is_in_cxx_runtime(function: *mut c_void) -> bool {
    let (path, _) = symbols::module_of(function);
    symbols::is_named(path, &[b"libstdc++.so", b"libc++.so", b"libc++abi.so"])
}

/// One form of operator new, such as the form with an alignment.
pub(crate) struct Form {
    real: Lazy,
    takes_align: bool,
}

const NEW: usize = 0;
const NEW_ARRAY: usize = 1;
static FORMS: [Form; 8] = [
    Form { real: Lazy::new(c"_Znwm"), takes_align: false },
    Form { real: Lazy::new(c"_Znam"), takes_align: false },
    Form { real: Lazy::new(c"_ZnwmRKSt9nothrow_t"), takes_align: false },
    Form { real: Lazy::new(c"_ZnamRKSt9nothrow_t"), takes_align: false },
    Form { real: Lazy::new(c"_ZnwmSt11align_val_t"), takes_align: true },
    Form { real: Lazy::new(c"_ZnamSt11align_val_t"), takes_align: true },
    Form { real: Lazy::new(c"_ZnwmSt11align_val_tRKSt9nothrow_t"), takes_align: true },
    Form { real: Lazy::new(c"_ZnamSt11align_val_tRKSt9nothrow_t"), takes_align: true },
];

/// The arguments of a call of a real operator new. [`call_new::edleak_call_new`] stores these arguments on
/// its stack.
#[repr(C)]
pub(crate) struct NewCall {
    pub(crate) size: usize,
    pub(crate) second: usize,
    pub(crate) third: usize,
    pub(crate) caller: *const usize,
    pub(crate) fp: usize,
    pub(crate) form: *const Form,
    pub(crate) real_size: usize,
}

/// Makes the caller pending before a real operator new runs. Returns the address of the operator.
///
/// # Safety
/// Only `edleak_call_new` calls this function.
#[cfg_attr(test, allow(dead_code))] // the test build has no assembly that calls it
pub(crate) unsafe extern "C" fn new_begins(call: *mut NewCall) -> *mut c_void {
    // SAFETY: `edleak_call_new` has stored `call` on its stack.
    let call = unsafe { &mut *call };
    // SAFETY: `call.form` is a form of `FORMS`.
    let form = unsafe { &*call.form };
    let slack = if form.takes_align { call.second } else { 1 };
    call.real_size = real::spaced(call.size);
    let real = form.real.get();
    begin(call.size, slack, call.caller, call.fp);
    if real.is_null() { without_runtime as *mut c_void } else { real }
}

/// Makes the caller no longer pending, after [`new_begins`] has made it pending. Returns the allocation.
///
/// # Safety
/// Only `edleak_call_new` calls this function.
#[cfg_attr(test, allow(dead_code))] // the test build has no assembly that calls it
pub(crate) unsafe extern "C" fn new_ends(call: *const NewCall, allocation: *mut u8) -> *mut u8 {
    // SAFETY: `edleak_call_new` has stored `call` on its stack.
    let call = unsafe { &*call };
    // If glibc is the allocator and operator new has not called malloc, operator new took the memory from a
    // pool of the program. edleak counts the pool's own allocations when the pool makes them. An allocator
    // other than glibc's may have its own operator new that does not call malloc. If this operator new has
    // called no inner entry point, the hook counts the returned allocation here.
    if end(call.caller) && real::is_other() {
        // SAFETY: `caller` and `fp` come from the stub.
        return unsafe { note::note(allocation, call.size, call.caller, call.fp) };
    }
    allocation
}

// This function runs if the program calls operator new, but no library defines operator new. It returns
// memory from malloc; if malloc fails, it returns null and throws no exception.
unsafe extern "C" fn without_runtime(size: usize) -> *mut u8 {
    // SAFETY: malloc accepts any size.
    unsafe { real::malloc(size.max(1)) }
}

/// Calls the real operator new. If there is no memory, the real operator new calls the new-handler or throws
/// an exception.
///
/// # Safety
/// See [`on_posix_memalign`].
#[cold]
pub(crate) unsafe extern "C" fn new_slow(size: usize, caller: *const usize, fp: usize) -> *mut u8 {
    // SAFETY: these are the arguments that the entry stub passed to this hook.
    unsafe { new(NEW, size, 0, 0, caller, fp) }
}

/// Calls the real operator new[].
///
/// # Safety
/// See [`on_posix_memalign`].
#[cold]
pub(crate) unsafe extern "C" fn new_array_slow(size: usize, caller: *const usize, fp: usize) -> *mut u8 {
    // SAFETY: these are the arguments that the entry stub passed to this hook.
    unsafe { new(NEW_ARRAY, size, 0, 0, caller, fp) }
}

unsafe fn new(
    form: usize,
    size: usize,
    second: usize,
    third: usize,
    caller: *const usize,
    fp: usize,
) -> *mut u8 {
    lifecycle::start();
    if NEW_IS.load(Ordering::Relaxed) == UNKNOWN {
        learn_new();
    }
    // SAFETY: the form is one of `FORMS`, and the other arguments come from the stub.
    unsafe { call_new::edleak_call_new(size, second, third, caller, fp, (&raw const FORMS[form]).cast()) }
}

macro_rules! new_with_one {
    ($($name:ident, $form:literal;)*) => {$(
        /// A form of operator new with one argument in addition to the size.
        ///
        /// # Safety
        /// See [`on_posix_memalign`].
        pub(crate) unsafe extern "C" fn $name(
            size: usize,
            second: usize,
            caller: *const usize,
            fp: usize,
        ) -> *mut u8 {
            // SAFETY: these are the arguments that the entry stub passed to this hook.
            unsafe { new($form, size, second, 0, caller, fp) }
        }
    )*};
}

macro_rules! new_with_two {
    ($($name:ident, $form:literal;)*) => {$(
        /// A form of operator new with two arguments in addition to the size.
        ///
        /// # Safety
        /// See [`on_posix_memalign`].
        pub(crate) unsafe extern "C" fn $name(
            size: usize,
            second: usize,
            third: usize,
            caller: *const usize,
            fp: usize,
        ) -> *mut u8 {
            // SAFETY: these are the arguments that the entry stub passed to this hook.
            unsafe { new($form, size, second, third, caller, fp) }
        }
    )*};
}

new_with_one! {
    on_new_nothrow, 2;
    on_new_array_nothrow, 3;
    on_new_aligned, 4;
    on_new_array_aligned, 5;
}
new_with_two! {
    on_new_aligned_nothrow, 6;
    on_new_array_aligned_nothrow, 7;
}

// ---- operator delete ----

const DELETE: usize = 0;
static DELETE_FORMS: [Lazy; 12] = [
    Lazy::new(c"_ZdlPv"),
    Lazy::new(c"_ZdaPv"),
    Lazy::new(c"_ZdlPvm"),
    Lazy::new(c"_ZdaPvm"),
    Lazy::new(c"_ZdlPvRKSt9nothrow_t"),
    Lazy::new(c"_ZdaPvRKSt9nothrow_t"),
    Lazy::new(c"_ZdlPvSt11align_val_t"),
    Lazy::new(c"_ZdaPvSt11align_val_t"),
    Lazy::new(c"_ZdlPvmSt11align_val_t"),
    Lazy::new(c"_ZdaPvmSt11align_val_t"),
    Lazy::new(c"_ZdlPvSt11align_val_tRKSt9nothrow_t"),
    Lazy::new(c"_ZdaPvSt11align_val_tRKSt9nothrow_t"),
];

type Delete = unsafe extern "C" fn(*mut u8, usize, usize);

#[cold]
unsafe fn delete_slow(form: usize, allocation: *mut u8, second: usize, third: usize) {
    lifecycle::start();
    if NEW_IS.load(Ordering::Relaxed) == UNKNOWN {
        learn_new();
    }
    let real = DELETE_FORMS[form].get();
    if real.is_null() {
        // SAFETY: without a C++ runtime, `without_runtime` handled operator new and took the memory from
        // malloc.
        return unsafe { free::on_free(allocation) };
    }
    // SAFETY: a form of operator delete takes at most three arguments and ignores all further arguments.
    let real: Delete = unsafe { transmute(real) };
    if !real::is_other() {
        // SAFETY: this is the target's own call, with its own arguments. The allocator is glibc's or lies
        // in the program itself, so the real operator delete calls edleak's free.
        return unsafe { real(allocation, second, third) };
    }
    // SAFETY: the target passed `allocation`. Another allocator's operator delete may free the memory itself,
    // or may call edleak's free. The field `deleting` tells edleak's free that the address is already counted
    // as freed.
    slow::count_taken(unsafe { slow::take(allocation) });
    // SAFETY: at this point, no other reference to the current thread's state exists.
    unsafe { thread::tls() }.deleting = allocation;
    // SAFETY: this is the target's own call, with its own arguments.
    unsafe { real(allocation, second, third) };
    // SAFETY: this is the only reference to this thread's state at this point.
    unsafe { thread::tls() }.deleting = ptr::null_mut();
}

macro_rules! delete {
    ($($name:ident, $form:literal;)*) => {$(
        /// A form of operator delete. While the program uses the default operator new, this form of operator
        /// delete calls free.
        ///
        /// # Safety
        /// See [`on_posix_memalign`].
        #[inline(always)]
        pub(crate) unsafe fn $name(allocation: *mut u8, second: usize, third: usize) {
            if new_is_malloc() {
                // SAFETY: the default operator delete only calls free, and this code does the same.
                unsafe { free::on_free(allocation) }
            } else {
                // SAFETY: these are the arguments that the entry stub passed to this hook.
                unsafe { delete_slow($form, allocation, second, third) }
            }
        }
    )*};
}

delete! {
    on_delete, 0;
    on_delete_array, 1;
    on_delete_sized, 2;
    on_delete_array_sized, 3;
    on_delete_nothrow, 4;
    on_delete_array_nothrow, 5;
    on_delete_aligned, 6;
    on_delete_array_aligned, 7;
    on_delete_sized_aligned, 8;
    on_delete_array_sized_aligned, 9;
    on_delete_aligned_nothrow, 10;
    on_delete_array_aligned_nothrow, 11;
}
