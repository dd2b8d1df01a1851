//! COLD: finds symbols of libc for the files of src/shared. The preload library has a file of the same name,
//! which asks the loader. A static program has no loader.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use core::ptr;

/// The address of a symbol of libc; null: the files of src/shared do not need this symbol in a static
/// program.
pub(crate) fn global(name: &CStr) -> *mut c_void {
    unsafe extern "C" {
        static environ: *const *const u8;
        fn getauxval(kind: usize) -> usize;
    }
    match name.to_bytes() {
        b"environ" => (&raw const environ).cast_mut().cast(),
        b"getauxval" => getauxval as *mut c_void,
        // In a static program, glibc's `__libc_stack_end` does not point at argc.
        _ => ptr::null_mut(),
    }
}

/// `false`: in a static program, no loader allocates memory in pthread_create.
pub(crate) fn is_in_pthread_create(_: usize) -> bool {
    false
}
