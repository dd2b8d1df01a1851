//! HOT: the exported C symbols; no other file exports symbols.
//!
//! Every entry point that allocates is a naked stub; the assembly of the stubs is in
//! [`crate::arch::stubs`]. The stubs of frequent functions, such as malloc, call the real function and note
//! the allocation that the real function returns. The stubs of less frequent functions, such as
//! posix_memalign, jump to a hook, which returns directly to the stub's caller. These stubs pass two more
//! arguments, from which the hook finds the caller: the address of the stub's return address, and the frame
//! pointer. Entry points that free memory need no caller, because a free is counted at the site of the
//! allocation.
#![allow(unsafe_code)]
#![allow(unreachable_pub, reason = "the linker exports these, no other file names them")]
#![allow(non_snake_case)] // names of the C++ ABI

use crate::arch::stubs;
use crate::cold::{marks, real};
use crate::entry::{aligned, mapping, operators, pool};
use crate::hot::free;
use core::ffi::c_void;

/// Defines an entry point, written as `name(arguments) => hook`.
macro_rules! entry {
    ($($name:ident ( $($argument:ident : $kind:ty),* ) $(-> $result:ty)? => $hook:path;)*) => {$(
        #[doc = concat!(
            "`", stringify!($name), "`: jumps to its hook with its caller added to the arguments."
        )]
        ///
        /// # Safety
        /// The caller keeps the contract of the C function of this name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) $(-> $result)? {
            stubs::jump_with_caller!($hook; $($argument)*)
        }
    )*};
}

/// Defines an entry point without a stub, written as `name(arguments) => hook`. Entry points that free memory
/// need no caller, because a free is counted at the site of the allocation.
macro_rules! plain_entry {
    ($($name:ident ( $first:ident $(, $more:ident)* ) => $hook:path;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: what its hook does.")]
        ///
        /// # Safety
        /// The caller keeps the contract of the C function of this name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name($first: Pointer $(, $more: usize)*) {
            // SAFETY: these are the arguments that the caller passed to this entry point.
            unsafe { $hook($first.cast() $(, $more)*) }
        }
    )*};
}

type Pointer = *mut c_void;

/// `malloc`.
///
/// # Safety
/// The caller keeps the contract of the C function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn malloc(size: usize) -> Pointer {
    stubs::malloc!(real::MALLOC)
}

/// `calloc`.
///
/// # Safety
/// The caller keeps the contract of the C function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn calloc(count: usize, size: usize) -> Pointer {
    stubs::calloc!(real::CALLOC)
}

/// `realloc`.
///
/// # Safety
/// The caller keeps the contract of the C function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn realloc(old: Pointer, size: usize) -> Pointer {
    stubs::realloc!(free::reallocate)
}

/// `reallocarray`: realloc whose size is the product of two arguments.
///
/// # Safety
/// The caller keeps the contract of the C function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn reallocarray(old: Pointer, count: usize, size: usize) -> Pointer {
    stubs::reallocarray!(free::reallocate, aligned::reallocarray_overflow)
}

/// operator new. The default operator new calls malloc (with one byte for size 0), and throws an exception if
/// malloc fails. As long as the program has not replaced the default operator new, the stub calls malloc and
/// not operator new (see `operators`). If malloc fails, the stub calls the real operator new, which calls the
/// new-handler and throws.
macro_rules! new_entry {
    ($($name:ident => $slow:path;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// The caller keeps the contract of the C++ function of this name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(size: usize) -> Pointer {
            stubs::new!(operators::NEW_IS, operators::DEFAULT, real::MALLOC, $slow)
        }
    )*};
}

new_entry! {
    _Znwm => operators::new_slow;
    _Znam => operators::new_array_slow;
}

/// `free`. The stub jumps through a pointer: to the real free while the library counts nothing, otherwise to
/// the hook.
///
/// # Safety
/// The caller keeps the contract of the C function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn free(allocation: Pointer) {
    stubs::free!(free::ENTRY)
}

entry! {
    posix_memalign(out: *mut Pointer, align: usize, size: usize) -> i32 => aligned::on_posix_memalign;
    aligned_alloc(align: usize, size: usize) -> Pointer => aligned::on_aligned_alloc;
    memalign(align: usize, size: usize) -> Pointer => aligned::on_memalign;
    valloc(size: usize) -> Pointer => aligned::on_valloc;
    pvalloc(size: usize) -> Pointer => aligned::on_pvalloc;

    _ZnwmRKSt9nothrow_t(size: usize, tag: Pointer) -> Pointer => operators::on_new_nothrow;
    _ZnamRKSt9nothrow_t(size: usize, tag: Pointer) -> Pointer => operators::on_new_array_nothrow;
    _ZnwmSt11align_val_t(size: usize, align: usize) -> Pointer => operators::on_new_aligned;
    _ZnamSt11align_val_t(size: usize, align: usize) -> Pointer => operators::on_new_array_aligned;
    _ZnwmSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, tag: Pointer) -> Pointer
        => operators::on_new_aligned_nothrow;
    _ZnamSt11align_val_tRKSt9nothrow_t(size: usize, align: usize, tag: Pointer) -> Pointer
        => operators::on_new_array_aligned_nothrow;
}

plain_entry! {
    cfree(allocation) => free::on_free;
    free_sized(allocation) => free::on_free;
    free_aligned_sized(allocation) => free::on_free;

    edleak_set_mark(name) => marks::on_mark;

    _ZdlPv(allocation, second, third) => operators::on_delete;
    _ZdaPv(allocation, second, third) => operators::on_delete_array;
    _ZdlPvm(allocation, second, third) => operators::on_delete_sized;
    _ZdaPvm(allocation, second, third) => operators::on_delete_array_sized;
    _ZdlPvRKSt9nothrow_t(allocation, second, third) => operators::on_delete_nothrow;
    _ZdaPvRKSt9nothrow_t(allocation, second, third) => operators::on_delete_array_nothrow;
    _ZdlPvSt11align_val_t(allocation, second, third) => operators::on_delete_aligned;
    _ZdaPvSt11align_val_t(allocation, second, third) => operators::on_delete_array_aligned;
    _ZdlPvmSt11align_val_t(allocation, second, third) => operators::on_delete_sized_aligned;
    _ZdaPvmSt11align_val_t(allocation, second, third) => operators::on_delete_array_sized_aligned;
    _ZdlPvSt11align_val_tRKSt9nothrow_t(allocation, second, third) => operators::on_delete_aligned_nothrow;
    _ZdaPvSt11align_val_tRKSt9nothrow_t(allocation, second, third) =>
        operators::on_delete_array_aligned_nothrow;
}

/// Defines an entry point of up to six arguments, written as `name => hook`. The stub passes two more
/// arguments to the hook: the address of the stub's return address, and the caller's frame pointer.
macro_rules! entry_of_six {
    ($($name:ident => $hook:path;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: calls its hook with its caller added to the arguments.")]
        ///
        /// # Safety
        /// The caller keeps the contract of the C function of this name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() -> Pointer {
            stubs::call_with_caller!($hook)
        }
    )*};
}

entry_of_six! {
    mmap => mapping::on_mmap;
    mmap64 => mapping::on_mmap64;
    mremap => mapping::on_mremap;
}

entry! {
    edleak_note_pool(operation: u32, pool: usize, address: usize, size: usize, caller: usize) =>
        pool::on_pool;
}

entry! {
    shmat(segment: i32, address: Pointer, flags: i32) -> Pointer => mapping::on_shmat;
}

/// `munmap`: this function only calls its hook, and has no assembly stub. A call that unmaps memory has no
/// site, so the hook needs no caller.
///
/// # Safety
/// The caller keeps the contract of the C function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn munmap(address: Pointer, length: usize) -> i32 {
    // SAFETY: the caller keeps the contract of the C function.
    unsafe { mapping::on_munmap(address, length) }
}

/// `shmdt`: this function only calls its hook, and has no assembly stub.
///
/// # Safety
/// The caller keeps the contract of the C function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn shmdt(address: Pointer) -> i32 {
    // SAFETY: the caller keeps the contract of the C function.
    unsafe { mapping::on_shmdt(address) }
}

/// `madvise`: this function only calls its hook, and has no assembly stub.
///
/// # Safety
/// The caller keeps the contract of the C function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn madvise(address: Pointer, length: usize, advice: i32) -> i32 {
    // SAFETY: the caller keeps the contract of the C function.
    unsafe { mapping::on_madvise(address, length, advice) }
}
