//! COLD: finds symbols of libc for the files of src/shared. In the preload library, a file of the same name
//! asks the loader for the symbols. This crate has its own file, because a static program has no loader.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use core::ptr;

/// The address of a symbol of libc. Null for a symbol that the files of src/shared do not need in a static
/// program.
pub(crate) fn global(name: &CStr) -> *mut c_void {
    unsafe extern "C" {
        static environ: *const *const u8;
        fn getauxval(kind: usize) -> usize;
    }
    match name.to_bytes() {
        b"environ" => (&raw const environ).cast_mut().cast(),
        b"getauxval" => getauxval as *mut c_void,
        // glibc's `__libc_stack_end` also gets null: in a static program, it does not point at argc.
        _ => ptr::null_mut(),
    }
}

/// Always returns `false`, because in a static program, no loader allocates memory in pthread_create.
pub(crate) fn is_in_pthread_create(_: usize) -> bool {
    false
}
