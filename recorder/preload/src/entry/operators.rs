//! COLD: the hooks of operator new and operator delete. A real operator may call other entry points, so the
//! caller of operator new is pending ([`crate::entry::pending`]).
//!
//! Programs call the default operator new very often, and making a caller pending takes time. The default
//! operator new (of libstdc++ or libc++) calls malloc and throws if malloc fails; the default operator delete
//! calls free. So for the default operators, the hooks call malloc and free themselves. If the program
//! replaces any form of operator new or operator delete, the hooks always call the program's own functions.
#![allow(unsafe_code)]

use crate::arch::call_new;
use crate::cold::symbols::{self, Lazy, Seen};
use crate::cold::{phase, real, sites, slow};
use crate::entry::pending::Form;
use crate::hot::{free, thread};
use core::ffi::c_void;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

const UNKNOWN: u32 = 0;
/// The value of [`NEW_IS`] for the default operator new.
pub(crate) const DEFAULT: u32 = 1;
const REPLACED: u32 = 2;
/// Whether the program uses the default operator new ([`DEFAULT`]) or has replaced it.
pub(crate) static NEW_IS: AtomicU32 = AtomicU32::new(UNKNOWN);

/// Looks up the real operators when the library starts: at this time, the program has no message of
/// `dlerror` that a lookup could clear. If the program loads a C++ runtime later, the library looks up the
/// operators of this runtime at their first use.
pub(crate) fn resolve() {
    if FORMS[NEW].real.is_there() {
        FORMS.iter().for_each(|form| _ = form.real.get());
        DELETE_FORMS.iter().for_each(|form| _ = form.get());
        learn_new();
    }
}

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

/// Calls the real operator new. If there is no memory, the real operator new calls the new-handler or throws
/// an exception.
///
/// # Safety
/// Only the entry stub of operator new calls this hook. Every other hook in this file is also called only by
/// its own entry stub.
#[cold]
pub(crate) unsafe extern "C" fn new_slow(size: usize, caller: *const usize, fp: usize) -> *mut u8 {
    // SAFETY: these are the arguments that the entry stub passed to this hook.
    unsafe { new(NEW, size, 0, 0, caller, fp) }
}

/// Calls the real operator new[].
///
/// # Safety
/// See [`new_slow`].
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
    phase::start();
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
        /// See [`new_slow`].
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
        /// See [`new_slow`].
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
    phase::start();
    if NEW_IS.load(Ordering::Relaxed) == UNKNOWN {
        learn_new();
    }
    let real = DELETE_FORMS[form].get();
    if real.is_null() {
        // SAFETY: without a C++ runtime, `pending` handled operator new and took the memory from
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
        /// See [`new_slow`].
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
