//! The allocation wrappers that edleak knows: functions that allocate for their caller. If an allocation
//! wrapper allocates memory that leaks, the mistake is in the caller of the wrapper and not in the wrapper
//! itself.
//!
//! The list does not contain functions that call a function of the user (`std::sort`, the start of a
//! `std::thread`, `FnOnce::call_once`, `catch_unwind`). If the compiler inlines the user's function into the
//! library function that calls it, the frame of the library function also belongs to the user's code, and
//! edleak must not skip this frame.

mod c;
mod cpp;
mod rust;

pub(crate) use c::{C_FUNCTIONS, OWN_FUNCTIONS};
pub(crate) use cpp::{CPP_PATHS, CPP_STD_MEMBERS};
pub(crate) use rust::{RUST_CALL_TRAITS, RUST_CLOSURE_PATHS, RUST_PATHS, RUST_TRAITS};

/// Libraries in which every function counts as a wrapper. An entry of this list is the part of the library's
/// soname before the first dot. The compiler cannot inline the user's code into a shared library, and a
/// callback into the user's code has a frame of its own. So edleak can safely skip all frames of a library in
/// this list.
pub(crate) const LIBRARIES: &[&str] = &[
    "libc",
    "libm",
    "libdl",
    "librt",
    "libpthread",
    // The dynamic loader. A walk skips a frame of the loader only if pthread_create called the loader and the
    // loader called malloc.
    "ld-linux-x86-64",
    "libresolv",
    "libnsl",
    "libanl",
    "libutil",
    "libstdc++",
    "libgcc_s",
    "libc++",
    "libc++abi",
    "libunwind",
];

/// Libraries in which every internal function counts as a wrapper, because a stripped library does not
/// contain the names of its internal functions. An exported function of these libraries is a wrapper only if
/// the lists contain its name.
pub(crate) const LIBRARIES_INSIDE: &[&str] = &["libglib-2", "libgobject-2"];
