//! COLD: finds symbols of the program and its libraries with the loader's own functions.
//!
//! `dlsym` may allocate memory, above all if the lookup fails. A failed lookup leaves a message for
//! `dlerror`, and the library must not call `dlerror` to remove it ([`definitions`]). So the functions of
//! symbols.rs first check that a module defines the symbol.
#![allow(unsafe_code)]

use crate::arch;
use crate::cold::definitions::{self, Definer, Symbol};
use crate::cold::elf;
use core::ffi::{CStr, c_char, c_void};
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

#[cfg(not(test))]
unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}
#[cfg(test)]
unsafe fn dlsym(_: *mut c_void, _: *const c_char) -> *mut c_void {
    ptr::null_mut()
}

const RTLD_DEFAULT: *mut c_void = ptr::null_mut();
const RTLD_NEXT: *mut c_void = ptr::without_provenance_mut(usize::MAX);

/// The definition of a symbol that comes next after this library in the search order; null: no library after
/// this one defines the symbol.
pub(crate) fn next(name: &CStr) -> *mut c_void {
    find(RTLD_NEXT, name)
}

/// The definition of a symbol that the whole program uses; null: the program has no such symbol.
pub(crate) fn global(name: &CStr) -> *mut c_void {
    find(RTLD_DEFAULT, name)
}

/// Finds a symbol as the loader does for a program that is linked with glibc. A program that is linked with
/// glibc asks for malloc, free and similar functions with their version. The library `libc_malloc_debug.so`
/// defines these functions only with a version, so a lookup without a version does not find its functions.
/// Other allocators define no versions, so a lookup with a version does not find their functions. Therefore
/// `find` first looks up the symbol without a version. If this lookup finds glibc's own function, `find`
/// prefers the result of a lookup with a version.
fn find(handle: *mut c_void, name: &CStr) -> *mut c_void {
    if matches!(definer(name, handle == RTLD_NEXT, |_| true), Definer::None) {
        return ptr::null_mut();
    }
    // SAFETY: `name` is NUL-terminated. `dlsym` may allocate and free through edleak's entry points; every
    // caller of this function allows that.
    let found = unsafe { dlsym(handle, name.as_ptr()) };
    if found.is_null() {
        // A module defines the symbol, but the loader does not search this module, for example because the
        // program loaded it with `RTLD_LOCAL`. Only now must the library remove a message.
        forget_error();
    }
    let dlvsym = DLVSYM.load(Ordering::Relaxed);
    let Some(version) = arch::glibc_version(name).filter(|_| !dlvsym.is_null()) else { return found };
    // SAFETY: the pointer leads to glibc's `dlvsym`, which has the type `Dlvsym`.
    let dlvsym: Dlvsym = unsafe { transmute(dlvsym) };
    // SAFETY: both strings are NUL-terminated.
    let of_version = unsafe { dlvsym(handle, name.as_ptr(), version.as_ptr()) };
    let is_other = !of_version.is_null() && of_version != found;
    if is_other && is_glibcs_own(found) { of_version } else { found }
}

type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;

/// glibc's `dlvsym`; null: the libc has no such function.
static DLVSYM: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

pub(super) fn learn_versions() {
    DLVSYM.store(global(c"dlvsym"), Ordering::Relaxed);
}

/// A symbol that the library looks up at its first use. `address` is 0 before the lookup, 1 if no library has
/// the symbol, otherwise the address of the symbol.
pub(crate) struct Lazy {
    name: &'static CStr,
    address: AtomicUsize,
}

impl Lazy {
    /// Offset of the field `address`. If the function has a detour, the detour stores the address of its
    /// trampoline in the field `address`.
    pub(crate) const ADDRESS_AT: usize = core::mem::offset_of!(Lazy, address);

    /// A symbol that the library has not looked up yet.
    pub(crate) const fn new(name: &'static CStr) -> Lazy {
        Lazy { name, address: AtomicUsize::new(0) }
    }

    /// The address of the symbol; null: no library has the symbol.
    pub(crate) fn get(&self) -> *mut c_void {
        match self.address.load(Ordering::Relaxed) {
            0 if self.is_there() => self.get(),
            0 => {
                let found = self.in_a_loaded_library();
                self.address.store(if found.is_null() { 1 } else { found as usize }, Ordering::Relaxed);
                found
            }
            1 => ptr::null_mut(),
            address => ptr::with_exposed_provenance_mut(address),
        }
    }

    /// Looks up the symbol in the libraries after this library, before the program calls the function. So
    /// `Lazy::get` need not look up the symbol while the program runs. A lookup while the program runs
    /// would clear a message of `dlerror` that the program has not read yet.
    pub(crate) fn is_there(&self) -> bool {
        let found = next(self.name);
        if !found.is_null() {
            self.address.store(found as usize, Ordering::Relaxed);
        }
        !found.is_null()
    }

    // A C program may load a C++ plugin, and only this plugin may use libstdc++. If only the plugin uses
    // libstdc++, `next` does not find the functions of libstdc++, although the plugin would find them
    // without edleak.
    fn in_a_loaded_library(&self) -> *mut c_void {
        if !self.name.to_bytes().starts_with(b"_Z") {
            return ptr::null_mut();
        }
        let is_runtime = |path| is_named(path, &[b"libstdc++.so.6", b"libc++.so.1", b"libc++abi.so.1"]);
        match definer(self.name, false, is_runtime) {
            Definer::Module(path) => of_module(path, self.name),
            Definer::None | Definer::Unknown => ptr::null_mut(),
        }
    }
}

/// libc's `dl_iterate_phdr`. 0: the library has not looked it up yet; 1: there is no such function.
static ITERATE: AtomicUsize = AtomicUsize::new(0);

/// libc's `dl_iterate_phdr`, which visits every loaded module. A function of this name in the program does
/// not count.
fn iterate() -> Option<definitions::Iterate> {
    if ITERATE.load(Ordering::Relaxed) == 0 {
        let name = c"dl_iterate_phdr";
        // SAFETY: the name is NUL-terminated.
        let next = unsafe { dlsym(RTLD_NEXT, name.as_ptr()) };
        // After a library that a collector has loaded into a running process comes no other library.
        // SAFETY: the name is NUL-terminated. glibc and musl define this function.
        let found = if next.is_null() { unsafe { dlsym(RTLD_DEFAULT, name.as_ptr()) } } else { next };
        ITERATE.store(found.expose_provenance().max(1), Ordering::Relaxed);
    }
    let found = Some(ITERATE.load(Ordering::Relaxed)).filter(|&found| found > 1)?;
    let found: *mut c_void = ptr::with_exposed_provenance_mut(found);
    // SAFETY: the pointer leads to libc's `dl_iterate_phdr`.
    Some(unsafe { transmute::<*mut c_void, definitions::Iterate>(found) })
}

/// Finds the first module that defines a symbol ([`definitions::definer`]).
fn definer(name: &CStr, is_behind: bool, is_wanted: fn(*const c_char) -> bool) -> Definer {
    iterate().map_or(Definer::Unknown, |iterate| definitions::definer(iterate, name, is_behind, is_wanted))
}

/// Whether glibc was loaded before this library, so that this library was not preloaded. A preloaded library
/// is loaded before all libraries that the program needs.
#[cfg_attr(test, allow(dead_code))] // the test build has no constructor
pub(super) fn is_after_glibc() -> bool {
    let glibc = |is_behind| definer(c"gnu_get_libc_version", is_behind, |_| true);
    matches!(glibc(false), Definer::Module(_)) && matches!(glibc(true), Definer::None)
}

static DLERROR: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Finds `dlerror` before any lookup fails. A lookup of `dlerror` after a failure would clear the message,
/// but glibc would keep the memory of the message for its next message.
pub(super) fn learn_dlerror() {
    DLERROR.store(global(c"dlerror"), Ordering::Relaxed);
}

/// Clears the message of `dlerror`, so that the target does not see an error of edleak's own lookup. The
/// function calls `dlerror` twice: the first call returns the message, and the second call frees the memory
/// that glibc keeps for the message. Without the second call of `dlerror`, glibc would use the memory of
/// this message for the next error of the target, and the target's heap would differ from a run without
/// edleak.
fn forget_error() {
    let dlerror = DLERROR.load(Ordering::Relaxed);
    if !dlerror.is_null() {
        // SAFETY: the pointer leads to libc's `dlerror`, which takes no arguments and returns a C string.
        let dlerror: unsafe extern "C" fn() -> *const c_char = unsafe { transmute(dlerror) };
        for _ in 0..2 {
            // SAFETY: `dlerror` takes no arguments; the message belongs to libc.
            unsafe { dlerror() };
        }
    }
}

#[repr(C)]
struct DlInfo {
    path: *const c_char,
    base: *mut c_void,
    symbol: *const c_char,
    address: *mut c_void,
}

/// The path and the base address of the module that contains a function; null pointers: the module is
/// unknown.
pub(crate) fn module_of(function: *mut c_void) -> (*const c_char, *mut c_void) {
    let mut info =
        DlInfo { path: ptr::null(), base: ptr::null_mut(), symbol: ptr::null(), address: ptr::null_mut() };
    let dladdr = global(c"dladdr");
    if !dladdr.is_null() {
        // SAFETY: the pointer leads to libc's dladdr, which takes an address and a pointer to the answer.
        let dladdr: unsafe extern "C" fn(*const c_void, *mut DlInfo) -> i32 = unsafe { transmute(dladdr) };
        // SAFETY: the call passes an address and a place for the answer. If dladdr finds no module, dladdr
        // writes nothing.
        unsafe { dladdr(function, &mut info) };
    }
    (info.path, info.base)
}

/// Whether the last component of a path begins with one of these names.
pub(crate) fn is_named(path: *const c_char, names: &[&[u8]]) -> bool {
    if path.is_null() {
        return false;
    }
    let mut name = path.cast::<u8>();
    let mut at = name;
    loop {
        // SAFETY: `path` is NUL-terminated, and the loop ends there.
        match unsafe { *at } {
            0 => break,
            b'/' => name = at.wrapping_add(1),
            _ => {}
        }
        at = at.wrapping_add(1);
    }
    names.iter().any(|prefix| {
        // SAFETY: the loop compares only up to the first difference, so it does not read beyond the NUL.
        prefix.iter().enumerate().all(|(i, &byte)| unsafe { *name.wrapping_add(i) } == byte)
    })
}

fn is_glibcs_own(function: *mut c_void) -> bool {
    let of_glibc = global(c"gnu_get_libc_version");
    let (_, base) = module_of(function);
    !of_glibc.is_null() && !base.is_null() && base == module_of(of_glibc).1
}

/// The kind of module in which the loader finds a function of the program, such as malloc, that edleak also
/// defines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The function is in the preload library, or the loader does not tell in which module the function is.
    Ours,
    /// The function is a stub in the program, which jumps to the first definition in the search order. A
    /// program that is linked at a fixed address has a stub for a function if it uses the address of the
    /// function. A lookup of the function's name finds this stub instead of the function.
    Stub,
    /// The function is in the program, or in a library that comes before this library.
    Foreign,
}

/// Tells in which kind of module a function lies. `function` is an address that `global` has returned.
pub(crate) fn seen_at(function: *mut c_void) -> Seen {
    const RTLD_DL_SYMENT: i32 = 1;
    if elf::is_own(function as usize) {
        return Seen::Ours;
    }
    let dladdr1 = global(c"dladdr1");
    if function.is_null() || dladdr1.is_null() {
        return Seen::Ours;
    }
    // SAFETY: the pointer leads to glibc's dladdr1, which takes an address, pointers to two answers, and a
    // flag.
    let dladdr1: unsafe extern "C" fn(*const c_void, *mut DlInfo, *mut *const Symbol, i32) -> i32 =
        unsafe { transmute(dladdr1) };
    let mut info =
        DlInfo { path: ptr::null(), base: ptr::null_mut(), symbol: ptr::null(), address: ptr::null_mut() };
    let mut symbol = ptr::null();
    // SAFETY: the call passes an address, and writable memory for both answers.
    let is_known = unsafe { dladdr1(function, &mut info, &mut symbol, RTLD_DL_SYMENT) } != 0;
    // SAFETY: `symbol` is an entry of a symbol table, which stays mapped as long as its module.
    let is_stub = is_known && !symbol.is_null() && unsafe { (*symbol).section } == 0;
    if is_stub { Seen::Stub } else { Seen::Foreign }
}

/// The address of a function in a loaded module; null: the module has no function of this name.
pub(super) fn of_module(path: *const c_char, name: &CStr) -> *mut c_void {
    const RTLD_LAZY_NOLOAD: i32 = 1 | 4;
    let dlopen = global(c"dlopen");
    if dlopen.is_null() || path.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the pointer leads to libc's `dlopen`, which takes a path and flags and returns a handle.
    let dlopen: unsafe extern "C" fn(*const c_char, i32) -> *mut c_void = unsafe { transmute(dlopen) };
    // SAFETY: this call only looks for a library that is already loaded, and loads nothing.
    let handle = unsafe { dlopen(path, RTLD_LAZY_NOLOAD) };
    if handle.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the handle comes from `dlopen`. The handle is never closed, so that the loader cannot unload
    // the library with the function.
    unsafe { dlsym(handle, name.as_ptr()) }
}

/// The address of libc's `pthread_create`; 0: libc has no such function.
pub(super) static PTHREAD_CREATE: AtomicUsize = AtomicUsize::new(0);

/// Whether a return address lies in libc's `pthread_create`. The length of `pthread_create` is unknown, so
/// the code assumes 4 KiB. In glibc, `pthread_create` is 3 KB long. The assumed length also covers about 1
/// KB of code after it, but no function there calls the loader.
pub(crate) fn is_in_pthread_create(address: usize) -> bool {
    const MOST_BYTES: usize = 4 << 10;
    let start = PTHREAD_CREATE.load(Ordering::Relaxed);
    start != 0 && (start + 1..start + MOST_BYTES).contains(&address)
}
